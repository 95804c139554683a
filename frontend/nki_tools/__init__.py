"""What people ask of kernels, from Python: the questions of the command line.

from nki_tools import check, compare, gate, profile, sbuf, step, sweep

check(kernel, x, w)          # everything wrong with this call, as diagnostics
print(gate(kernel, x, w))    # would the compiler take it?
print(sbuf(kernel, x, w))    # will it fit, and who holds SBUF and PSUM when?
print(profile(kernel, x, w)) # where does its time go?
print(compare(profile(old, x, w), profile(new, x, w)))   # what did a change change?
print(step(kernel, x, w))    # what does each instruction do, to which partitions?
found = sweep(kernel, {"tile": [128, 256, 512]}, {"x": x, "w": w})   # which tile is best?
"""

from nki_tools.check import check
from nki_tools.compare import Comparison, compare
from nki_tools.gate import Judgement, Verdict, gate
from nki_tools.profile import Profiled, profile
from nki_tools.sbuf import MemoryUse, sbuf
from nki_tools.step import InstructionStep, Steps, step
from nki_tools.sweep import sweep

__all__ = [
    "Comparison",
    "Judgement",
    "MemoryUse",
    "Profiled",
    "InstructionStep",
    "Steps",
    "Verdict",
    "check",
    "compare",
    "gate",
    "profile",
    "sbuf",
    "step",
    "sweep",
]
