"""Several cores of one launch, where they meet and where they race."""
