"""What editors ask over the language server protocol."""
