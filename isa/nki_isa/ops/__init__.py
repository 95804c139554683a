"""Every instruction, one class each, one module per engine."""
