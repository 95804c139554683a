"""Documentation pages that are printed from the tables the program itself reads."""
