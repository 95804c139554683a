"""Run-time indices out of bounds, which no run goes on with: the machine itself refuses them."""

from __future__ import annotations

from nki_sim.sanitize.check import Check, Scene


class Bounds(Check):
    """Always on, whether chosen or not."""

    name = "bounds"
    finds = "run-time indices out of bounds; always on (NKI-H001)"
    codes = ("NKI-H001",)
    listed = 1
    needs_data = True

    @classmethod
    def sees(cls, scene: Scene) -> bool:
        """Nothing by itself."""
        return False
