"""Projection of attention scores back to the hidden dimension: for prefill (cte) and for decoding (tkg)."""
