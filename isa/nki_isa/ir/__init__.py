"""What a specialized kernel is made of, and how one is made of another."""
