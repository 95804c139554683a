"""Constraints that instructions share: operands, access patterns, the systolic array, DMA, indirection."""
