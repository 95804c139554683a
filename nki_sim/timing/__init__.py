"""When each instruction runs."""
