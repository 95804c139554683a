"""The modules that the library and its tests import and do not publish, or that only serve their cloud."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import nki
import nki.builtin
import nki.collectives
import nki.compiler
import nki.dtype
import nki.isa
import nki.isa.constants
import nki.language
import nki.tensor
import nki.typing
from tests.upstream.library import neuron_dtypes, packed_dtypes, tracing
from tests.upstream.library.simulator import Simulation

#: Names of the simulator the library asks for, and our module of the same content.
_SIMULATOR = {
    "nki_cpu_simulator": None,
    "nki_cpu_simulator.nki": nki,
    "nki_cpu_simulator.nki.builtin": nki.builtin,
    "nki_cpu_simulator.nki.compiler": nki.compiler,
    "nki_cpu_simulator.nki.isa": nki.isa,
    "nki_cpu_simulator.nki.isa.constants": nki.isa.constants,
    "nki_cpu_simulator.nki.language": nki.language,
    "nki_cpu_simulator.nki.language.dtypes": nki.dtype,
    "nki_cpu_simulator.nki.tensor": nki.tensor,
    "nki_cpu_simulator.nki.typing": nki.typing,
    "nki.compiler.frontend": tracing.module(),
    "neuronxcc.nki": nki,
    "neuronxcc.nki.isa": nki.isa,
    "neuronxcc.nki.language": nki.language,
    "neuronxcc.nki.typing": nki.typing,
    "neuronxcc.starfish.support.dtype": neuron_dtypes,
    "neuron_dtypes": neuron_dtypes,
}

#: Packages of the library's test infrastructure that a simulation never calls.
_UNUSED = (
    "aws_embedded_metrics",
    "boto3",
    "botocore",
    "fabric2",
    "filelock",
    "paramiko",
    "plotext",
    "pytest_html",
)


def install() -> None:
    """Make every stand-in importable."""
    packed_dtypes.install()
    nki.cpu_simulate = Simulation  # type: ignore[attr-defined]
    nki.language.static_cast = neuron_dtypes.static_cast  # type: ignore[attr-defined]  # tests call it
    for name, module in _SIMULATOR.items():
        _register(name, module or ModuleType(name))
    provide(*_UNUSED)


def provide(*names: str) -> None:
    """Let these modules, and any below them, be imported where they are not installed."""
    sys.meta_path.append(_Unused(names))


def _register(name: str, module: ModuleType) -> None:
    """`module` as `name`, with empty packages for the parts of `name` before it."""
    sys.modules[name] = module
    parent, _, last = name.rpartition(".")
    if parent:
        if parent not in sys.modules:
            _register(parent, ModuleType(parent))
        if not hasattr(sys.modules[parent], last):
            setattr(sys.modules[parent], last, module)


class _UnusedModule(ModuleType):
    """A module with every name: classes, which are exceptions where they are called so."""

    __path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        base = Exception if name.endswith(("Error", "Exception")) else object
        made = type(name, (base,), {"__module__": self.__name__})
        setattr(self, name, made)
        return made


class _Unused(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds, when nothing else does, modules that are imported and never called."""

    def __init__(self, names: tuple[str, ...]):
        self._names = names

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if any(f"{name}.".startswith(f"{known}.") for known in self._names):
            return importlib.util.spec_from_loader(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _UnusedModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass
