"""Production kernels and the utilities they share."""
