"""How a machine runs a Program: places, executes, times, checks and reports it."""
