"""What a verdict costs: ``nki-sim gate`` beside ``nki-sim profile --no-data``, on kernels of nkilib.

    python benchmarks/gate.py [NAME...]      by default those below

Each runs in this process, the best of three, after one that imports everything. The goal is a ratio of at
most 1.5 over all of them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from nki import runtime
from nki.launch import prepare
from nki.launch.cache import Cache
from nki_isa.machine.targets import as_target
from nki_tools.gate import judge
from nkilib.registry import rows

GOAL = 1.5
_KERNELS = "rmsnorm_quant attention_cte mlp qkv router_topk cumsum moe_tkg depthwise_conv1d"
_TARGET = as_target("trn2")


@dataclass(frozen=True)
class Call:
    """The first small example of a kernel."""

    name: str

    def run(self, **options: object) -> runtime.Launch:
        """Launch it."""
        row = rows()[self.name]
        example = next(e for e in row.examples if _TARGET.name in e.targets and not e.slow)
        return row.run(example.arguments(), example.lnc[0], _TARGET, data=False, **options).launch

    def profile(self) -> None:
        """What ``profile --no-data`` does."""
        self.run(timing=True, check="none")

    def gate(self) -> None:
        """What ``gate`` does."""
        launch = self.run(check="all", decide=True)
        judge(self.name, launch.diagnostics, [core.program for core in launch.cores], _TARGET)


def seconds(run: Callable[[], None]) -> float:
    """The best of three runs, nothing kept from one to the next."""
    best = float("inf")
    for _ in range(3):
        prepare.cache = Cache()
        begin = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - begin)
    return best


def main(names: list[str]) -> int:
    """Print a line for each kernel and the ratio of all; 1 if it is over the goal."""
    totals = [0.0, 0.0]
    print(f"{'kernel':24} {'profile --no-data':>18} {'gate':>8} {'ratio':>6}")
    for name in names or _KERNELS.split():
        call = Call(name)
        call.profile()
        times = seconds(call.profile), seconds(call.gate)
        totals = [total + one for total, one in zip(totals, times)]
        print(f"{name:24} {times[0]:16.3f} s {times[1]:6.3f} s {times[1] / times[0]:6.2f}")
    ratio = totals[1] / totals[0]
    print(f"{'all':24} {totals[0]:16.3f} s {totals[1]:6.3f} s {ratio:6.2f}  goal {GOAL}")
    return int(ratio > GOAL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
