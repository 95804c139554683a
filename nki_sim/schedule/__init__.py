"""Orders of a Program other than its own."""
