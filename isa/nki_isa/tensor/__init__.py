"""Tensors: where bytes live, and the strided, typed views of them."""
