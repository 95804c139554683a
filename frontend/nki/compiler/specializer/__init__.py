"""A tree, or a traced function, to a Program."""
