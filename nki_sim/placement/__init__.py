"""Where every tensor of a Program lives, and what is said where it does not fit."""
