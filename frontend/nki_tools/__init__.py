"""What people ask of kernels, from Python: the questions of the command line.

from nki_tools import gate

print(gate(kernel, x, w))   # would the compiler take it?
"""

from nki_tools.gate import Judgement, Verdict, gate

__all__ = ["Judgement", "Verdict", "gate"]
