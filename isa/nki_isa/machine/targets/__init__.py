"""The generations of NeuronCore: each file here is one, found by being here."""

from __future__ import annotations

import copyreg
import enum
import functools
import importlib
import os
import pkgutil
from dataclasses import replace

from nki_isa.diagnostics import error
from nki_isa.machine.target import Feature, Target


def _found() -> dict[str, Target]:
    modules = (importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__))
    targets: list[Target] = [m.TARGET for m in modules if hasattr(m, "TARGET")]
    return {t.name: t for t in sorted(targets, key=lambda t: t.nc_version)}


TARGETS: dict[str, Target] = _found()
"""By name, the oldest generation first."""

TRN1, TRN2, TRN3 = TARGETS["trn1"], TARGETS["trn2"], TARGETS["trn3"]

_VARIABLES = ("NEURON_PLATFORM_TARGET_OVERRIDE", "NKI_NC_VERSION")


@functools.cache
def on_logical_cores(target: Target, cores: int) -> Target:
    """`target` where a logical core is so many of its physical cores; itself where that is what it is."""
    return target if cores == target.logical_cores else replace(target, logical_cores=cores)


def _named(name: str, cores: int) -> Target:
    return on_logical_cores(TARGETS[name], cores)


copyreg.pickle(  # pickles and copies hold no figures
    Target, lambda target: (_named, (target.name, target.logical_cores))
)


def since(feature: Feature | None) -> int:
    """The version of the oldest NeuronCore that has `feature`."""
    return next(target.nc_version for target in TARGETS.values() if target.has(feature))


def _names(target: Target) -> tuple[str, ...]:
    version = target.nc_version
    spelled = (f"gen{version}", f"nc-v{version}", f"nc_v{version}", f"neuroncore-v{version}", f"{version}")
    return (target.name, *target.aliases, *spelled)


def as_target(value: Target | str | int | enum.Enum) -> Target:
    """The generation `value` names: ``trn1``, ``inf2``, ``gen2``, ``nc-v2``, 2 and their like.

    Raises:
        NkiValidationError: NKI-V116, the name is none of these.
    """
    if isinstance(value, Target):
        return value
    name = str(value.name if isinstance(value, enum.Enum) else value).strip().lower()
    for target in TARGETS.values():
        if name in _names(target):
            return target
    choices = [f"{t.name} ({', '.join((*t.aliases, f'gen{t.nc_version}'))})" for t in TARGETS.values()]
    raise error(
        "NKI-V116",
        f"{value!r} is not a target this simulator knows",
        help=f"write {', '.join(choices[:-1])} or {choices[-1]}",
    )


def default_target() -> Target:
    """The target of the environment: NEURON_PLATFORM_TARGET_OVERRIDE, then NKI_NC_VERSION, else trn2.

    Read at each call, so a program may change the variable between kernels.

    Raises:
        NkiValidationError: NKI-V116, the variable names no target.
    """
    for variable in _VARIABLES:
        name = os.environ.get(variable)
        if name:
            return as_target(name)
    return TRN2
