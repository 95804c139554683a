"""The ``nki-sim`` command: compile a kernel, hand it to the machine, show what happened."""
