"""What the machine is: dtypes, targets, tensors, instructions, programs, diagnostics."""
