"""The kernel library: same import paths and parameters as the vendor's ``nkilib``, bodies our own."""
