"""Programs as text: the printer, and the parser, which knows all instructions."""
