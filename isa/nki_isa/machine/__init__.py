"""The machine: its generations."""
