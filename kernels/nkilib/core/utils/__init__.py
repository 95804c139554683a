"""What the kernels share: assertions, integer helpers, tiled ranges."""
