"""All errors of a kernel before the first instruction."""
