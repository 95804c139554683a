"""What goes to workers, as bytes: kernels and functions of a script or a notebook go by value."""

from __future__ import annotations

import io
import marshal
from collections import ChainMap
from types import CodeType
from typing import Any

import cloudpickle


def _code(code: CodeType) -> tuple[Any, ...]:
    return marshal.loads, (marshal.dumps(code),)


class _Pickler(cloudpickle.Pickler):
    """Cloudpickle's, which drops the name of the file of a function; kernels are compiled from its text."""

    dispatch_table = ChainMap({CodeType: _code}, cloudpickle.Pickler.dispatch_table)


def packed(value: Any) -> bytes:
    """`value` as bytes that :func:`unpacked` reads, in a process of the same version of Python."""
    file = io.BytesIO()
    _Pickler(file).dump(value)
    return file.getvalue()


def unpacked(octets: bytes) -> Any:
    """What :func:`packed` was given."""
    return cloudpickle.loads(octets)
