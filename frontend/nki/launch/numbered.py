"""Kernels by number: a graph of torch holds the number of a kernel that it calls, not the kernel."""

from __future__ import annotations

import itertools
import weakref

from nki.compiler.source.kernel_source import KernelSource

_kernels: weakref.WeakValueDictionary[int, KernelSource] = weakref.WeakValueDictionary()
_numbers = itertools.count()


def number_of(kernel: KernelSource) -> int:
    """A new number for `kernel`, for as long as it lives."""
    number = next(_numbers)
    _kernels[number] = kernel
    return number


def kernel_of(number: int) -> KernelSource:
    """The kernel that has `number`."""
    return _kernels[number]


__all__ = ["kernel_of", "number_of"]
