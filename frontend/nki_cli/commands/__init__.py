"""One module per command of ``nki-sim``, each with one function of the command's name."""

#: The commands, in the order of the help.
NAMES = (
    "run",
    "profile",
    "compare",
    "step",
    "sweep",
    "check",
    "gate",
    "ir",
    "sbuf",
    "isa",
    "explain",
    "targets",
    "lsp",
    "lib",
)
