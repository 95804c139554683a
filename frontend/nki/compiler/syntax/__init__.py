"""Kernel text to a tree: lexer, LL(k) parser, tree, and the cache of trees."""
