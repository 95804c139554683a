"""One module per command of ``nki-sim``, each with one function of the command's name."""
