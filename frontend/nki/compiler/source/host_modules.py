"""Modules that are not kernel source, as a text names them: known without importing any.

What a text names is never imported: nothing of it would be checked then, it would run. Known are the modules
of this project, numpy and ml_dtypes as far as they are loaded, and of the standard library those that are
imported here, whatever any text says. Of the rest of the standard library only the names are known.
"""

from __future__ import annotations

import abc
import builtins
import collections
import contextlib
import copy
import dataclasses
import enum
import functools
import itertools
import json
import logging
import math
import numbers
import operator
import os
import random
import re
import string
import sys
import sysconfig
import time
import types
import typing
import warnings
from pathlib import Path
from types import ModuleType

_STANDARD = {
    module.__name__: module
    for module in (
        *(abc, builtins, collections, collections.abc, contextlib, copy, dataclasses, enum, functools),
        *(itertools, json, logging, math, numbers, operator, os, random, re, string, sys, time, types),
        *(typing, warnings),
    )
} | {"os.path": os.path}
_PACKAGES = ("nki", "nki_isa", "nki_sim", "numpy", "ml_dtypes")


def loaded(dotted: str) -> ModuleType | None:
    """The module of this name, if it is one of those that are known."""
    found = _STANDARD.get(dotted)
    if found is None and dotted.partition(".")[0] in _PACKAGES:
        found = sys.modules.get(dotted)
    return found


def exists(dotted: str) -> bool:
    """True if a package that is known has a module of this name, loaded or not."""
    parent, _, name = dotted.rpartition(".")
    module = loaded(parent)
    return loaded(dotted) is not None or (module is not None and has_submodule(module, name))


def has_submodule(package: ModuleType, name: str) -> bool:
    """True if the folders of `package` hold a module called `name`."""
    folders = [Path(folder) for folder in getattr(package, "__path__", ())]
    return any((f / name).is_dir() or any(f.glob(f"{name}.*")) for f in folders)


__all__ = ["exists", "has_submodule", "loaded"]


_HOST_PACKAGES = {"nki", "nki_isa", "nki_sim", "numpy", "ml_dtypes", "math", "builtins"}


def is_host(module: str | None) -> bool:
    """True for a module whose functions are not kernel source: nki itself, numpy, the standard library."""
    top = (module or "builtins").partition(".")[0]
    return top in _HOST_PACKAGES or (
        top in sys.stdlib_module_names and top != "__main__" and _is_standard(top)
    )


def _is_standard(top: str) -> bool:
    """True unless a module of the user's has the name of one of the standard library."""
    module = sys.modules.get(top)
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return all(place is None or _library() in Path(place).resolve().parents for place in places)


@functools.cache
def _library() -> Path:
    return Path(sysconfig.get_path("stdlib")).resolve()
