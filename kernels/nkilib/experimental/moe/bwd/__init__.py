"""Gradients of moe_cte."""
