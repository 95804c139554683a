"""The MLP of token generation: few tokens, bound by reading the weights."""
