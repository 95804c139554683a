"""NKI, the Neuron Kernel Interface, on a simulated NeuronCore.

``import nki`` here is a drop-in for the vendor's package: kernels decorated with
:func:`jit` are compiled from their source text, placed in the memories of the
chosen generation, executed on real bytes and timed.
"""

from nki import builtin, collectives, compiler, dtype, experimental, isa, language, levels, tensor, typing
from nki.compiler.language import frontends, names
from nki.kernel import Kernel, jit, simulate
from nki.uncaught import NkiWarning, install

__all__ = [
    "Kernel",
    "NkiWarning",
    "builtin",
    "collectives",
    "compiler",
    "dtype",
    "experimental",
    "isa",
    "jit",
    "language",
    "levels",
    "simulate",
    "tensor",
    "typing",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    raise names.attribute_error(__name__, name)


install()  # a refused kernel, or level, shows its errors, not our traceback
levels.use(levels.of_environment())
frontends.use(frontends.of_environment())
