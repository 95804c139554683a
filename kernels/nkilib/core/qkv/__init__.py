"""Projection of hidden states to queries, keys and values: for prefill (cte) and for decoding (tkg)."""
