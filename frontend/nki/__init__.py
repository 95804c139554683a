"""NKI, the Neuron Kernel Interface, on a simulated NeuronCore.

``import nki`` here is a drop-in for the vendor's package: kernels decorated with
:func:`jit` are compiled from their source text, placed in the memories of the
chosen generation, executed on real bytes and timed.
"""

from nki import collectives, compiler, isa, language, typing
from nki.kernel import Kernel, jit, simulate

__all__ = ["Kernel", "collectives", "compiler", "isa", "jit", "language", "simulate", "typing"]
__version__ = "0.1.0"
