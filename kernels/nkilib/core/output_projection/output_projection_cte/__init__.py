"""Output projection for context encoding."""

from .output_projection_cte import output_projection_cte

__all__ = ["output_projection_cte"]
