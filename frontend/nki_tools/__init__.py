"""What people ask of kernels, from Python: the questions of the command line.

from nki_tools import gate

print(gate(kernel, x, w))   # would the compiler take it?
found = sweep(kernel, {"tile": [128, 256, 512]}, {"x": x, "w": w})   # which tile is best?
"""

from nki_tools.gate import Judgement, Verdict, gate
from nki_tools.sweep import sweep

__all__ = ["Judgement", "Verdict", "gate", "sweep"]
