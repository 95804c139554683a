"""The arithmetic of strided views: shapes and strides in, shapes and strides out.

Nothing here knows tensors or memories; :mod:`nki_isa.tensor.views` adds the rules of the hardware.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nki_isa.diagnostics import NkiError, error


@functools.lru_cache(maxsize=4096)
def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major strides of `shape`, in elements."""
    strides = [1] * len(shape)
    for k in range(len(shape) - 2, -1, -1):
        strides[k] = strides[k + 1] * shape[k + 1]
    return tuple(strides)


def reach(shape: Sequence[int], strides: Sequence[int]) -> tuple[int, int]:
    """How far before and after its first element a view reaches: at most 0, and at least 0, in elements."""
    before = after = 0
    for size, stride in zip(shape, strides, strict=True):
        if stride < 0:
            before += stride * (size - 1)
        else:
            after += stride * (size - 1)
    return before, after


def is_row_major(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """True if the dimensions, without those of size 1, are dense and in order."""
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


def restride(
    shape: Sequence[int], strides: Sequence[int], new_shape: Sequence[int]
) -> tuple[int, ...] | None:
    """Strides that show the same elements, in the same order, as `new_shape`, which has as many.

    Neighbouring dimensions that are contiguous form runs; each new dimension must divide what is left of
    the innermost run.

    Returns:
        One stride per new dimension, or None if the elements would have to be copied.
    """
    runs: list[tuple[int, int]] = []  # (elements, stride), outermost first
    for size, stride in zip(shape, strides, strict=True):
        if size == 1:
            continue
        if runs and runs[-1][1] == stride * size:
            runs[-1] = (runs[-1][0] * size, stride)
        else:
            runs.append((size, stride))
    left, stride = 1, 1
    result = []
    for size in reversed(new_shape):
        if size != 1 and left == 1:
            left, stride = runs.pop()
        if left % size:
            return None
        result.append(stride)
        left //= size
        stride *= size
    return tuple(reversed(result))


def infer_size(sizes: Sequence[int], total: int) -> tuple[int, ...] | None:
    """`sizes` with its one -1 replaced so that the product is `total`; None where that cannot be."""
    if list(sizes).count(-1) == 1:
        known = -math.prod(sizes)
        missing = total // known if known > 0 else 0
        sizes = [missing if size == -1 else size for size in sizes]
    return tuple(sizes) if all(size > 0 for size in sizes) and math.prod(sizes) == total else None


def pattern_dims(pattern: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shape and strides of an access pattern ``[[stride, count], ...]``.

    Raises:
        NKI-V021: it is not such a list, or a count is below 1.
    """
    try:
        strides = tuple([integer(stride) for stride, _ in pattern])
        shape = tuple([integer(count) for _, count in pattern])
    except (TypeError, ValueError, NkiError):
        raise error(
            "NKI-V021",
            f"the access pattern is {pattern!r}, which is not a list of [stride, count] pairs of integers",
            help="write ap(pattern=[[partition_stride, partitions], [stride, count], ...])",
        ) from None
    if not shape or min(shape) < 1:
        raise error(
            "NKI-V021",
            f"the access pattern is {pattern!r}; it needs at least one pair, and counts of at least 1",
        )
    return shape, strides


class Rearrangement:
    """What ``rearrange`` does, as the view steps it is made of.

    Attributes:
        splits: ``(dim, sizes)`` to apply in order; a size of -1 is inferred.
        order: the permutation that follows.
        merges: ``(first, last)`` dimensions to flatten, in order.
    """

    __slots__ = ("merges", "order", "splits")

    def __init__(self, source: Sequence[Any], target: Sequence[Any], sizes: Mapping[str, int]):
        source_groups, target_groups = _groups(source), _groups(target)
        names = [name for group in source_groups for name in group]
        wanted = [name for group in target_groups for name in group]
        if len(set(names)) != len(names) or sorted(names) != sorted(wanted) or not set(sizes) <= set(names):
            raise error(
                "NKI-V028",
                f"rearrange from {source!r} to {target!r} with sizes {dict(sizes)!r}: both patterns have "
                f"each name once, and sizes are given for those names only",
            )
        self.splits: list[tuple[int, tuple[int, ...]]] = []
        self.merges: list[tuple[int, int]] = []
        dim = 0
        for group, written in zip(source_groups, source, strict=True):
            if not isinstance(written, str) or group[0] in sizes:
                self.splits.append((dim, tuple(sizes.get(name, -1) for name in group)))
            dim += len(group)
        self.order = tuple(names.index(name) for name in wanted)
        for first, group in enumerate(target_groups):
            if len(group) > 1:
                self.merges.append((first, first + len(group) - 1))


def _groups(pattern: Sequence[Any]) -> list[tuple[str, ...]]:
    if not isinstance(pattern, (list, tuple)):
        pattern = (None,)
    groups = [tuple(item) if isinstance(item, tuple | list) else (item,) for item in pattern]
    if not all(group and all(isinstance(name, str) for name in group) for group in groups):
        raise error(
            "NKI-V028",
            f"a rearrange pattern is {pattern!r}; it is a tuple of names and of tuples of names",
            help="write t.rearrange(('b', ('h', 'w')), ('b', 'w', 'h'), {'h': 4})",
        )
    return groups


def put(values: tuple[int, ...], dim: int, *new: int, width: int = 1) -> tuple[int, ...]:
    """`values` with `width` of them from `dim` on replaced by `new`."""
    return values[:dim] + new + values[dim + width :]


_INDEX_REMEDIES = {
    "NoneType": "to add a dimension use t.expand_dim(dim)",
    "VirtualRegister": "an index known at run time goes through t.select(dim, index) or nl.ds(index, size)",
    "NkiTensor": "t.select(dim, index) for one run-time index, t.vector_select(0, offsets) for one per "
    "partition, nl.ds(start, size) for a range",
    "bool": "write 0 or 1",
    "list": "a list of indices needs a gather: t.vector_select(0, offsets)",
    "ndarray": "an array of indices needs a gather: t.vector_select(0, offsets)",
    "float": "divide with // so that it stays an integer",
}


def integer(value: Any, what: str = "a size, offset or index") -> int:
    """`value` as an int, if it is an integer (numpy's too) and no truth value.

    Raises:
        NKI-V012: it is not; the remedy depends on what it is.
    """
    if type(value) is int:
        return value
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    text = f"an array {value.dtype}{list(value.shape)}" if isinstance(value, np.ndarray) else repr(value)
    raise error(
        "NKI-V012",
        f"{text} is used as {what}",
        help=_INDEX_REMEDIES.get(type(value).__name__, "use integers, slices, ... or nl.ds"),
    )
