"""MLP: gate, up and down projection with fused normalization, for prefill and decode."""
