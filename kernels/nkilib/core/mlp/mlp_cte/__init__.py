"""The MLP of context encoding: many tokens, bound by the tensor engine."""
