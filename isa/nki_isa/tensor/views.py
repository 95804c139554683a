"""The view methods of a tensor that work on its dimensions alone, with the rules of the hardware.

Source: SDK ``nki.language.NkiTensor``, the constraints listed with each method.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nki_isa.diagnostics import NkiError, error
from nki_isa.tensor.kinds import checked_methods
from nki_isa.tensor.strides import Rearrangement, contiguous_strides, infer_size, integer, put, restride

if TYPE_CHECKING:
    from nki_isa.machine.dtypes import DType
    from nki_isa.tensor.dynamic import DynamicOffset
    from nki_isa.tensor.storage import MemoryRegion, Storage
    from nki_isa.tensor.tensor import NkiTensor


@checked_methods
class StridedView:
    """What every view does with its dimensions: reorder, split, merge, repeat.

    The base of :class:`nki_isa.tensor.tensor.NkiTensor`, which has the attributes and the rest.
    """

    __slots__ = ()

    if TYPE_CHECKING:
        shape: tuple[int, ...]
        strides: tuple[int, ...]
        offset: int
        dtype: DType
        storage: Storage
        dynamic: DynamicOffset | None

        @property
        def ndim(self) -> int: ...

        @property
        def size(self) -> int: ...

        @property
        def buffer(self) -> MemoryRegion: ...

        def _with(self, shape: tuple[int, ...], strides: tuple[int, ...]) -> NkiTensor: ...

    def get_pattern(self) -> list[list[int]]:
        """``[[stride, count], ...]``, one pair per dimension, outermost first."""
        return [[stride, count] for stride, count in zip(self.strides, self.shape, strict=True)]

    # --- reordering and reshaping

    def permute(self, dims: Sequence[int]) -> NkiTensor:
        """The dimensions in the order `dims`.

        Raises:
            NKI-V015: on chip, ``dims[0]`` is not 0. NKI-V017: `dims` is not a permutation.
            NKI-V025: a locked dimension moves.
        """
        order = tuple(dims)
        if sorted(order) != list(range(self.ndim)):
            raise error("NKI-V017", f"permute{order} of {self}, which has {self.ndim} dimensions")
        for dim in range(self._pinned):
            if order[dim] != dim:
                raise self._locked("permute", dim)
        return self._with(
            tuple([self.shape[dim] for dim in order]), tuple([self.strides[dim] for dim in order])
        )

    def broadcast(self, dim: int, size: int) -> NkiTensor:
        """Dimension `dim`, of size 1, seen `size` times.

        Raises:
            NKI-V013: ``size < 1``. NKI-V014: no such `dim`. NKI-V015: the partition dimension.
            NKI-V016: ``shape[dim]`` is not 1. NKI-V025: `dim` is locked.
        """
        self._check_free(dim, "broadcast")
        self._check_one(dim, "broadcast")
        if size < 1:
            raise error("NKI-V013", f"broadcast of {self} to size {size}; a size is at least 1")
        return self._with(put(self.shape, dim, size), put(self.strides, dim, 0))

    def expand_dim(self, dim: int) -> NkiTensor:
        """A new dimension of size 1 before dimension `dim`, or last for ``dim == ndim``.

        Raises:
            NKI-V014: `dim` is not in ``range(ndim + 1)``. NKI-V015: before the partition dimension.
            NKI-V025: before a locked dimension.
        """
        last = dim == self.ndim
        if not last:
            self._check_free(dim, "expand_dim")
        stride = 1 if last else self.strides[dim] * self.shape[dim]
        return self._with(put(self.shape, dim, 1, width=0), put(self.strides, dim, stride, width=0))

    def squeeze_dim(self, dim: int) -> NkiTensor:
        """Without dimension `dim`, which has size 1.

        Raises:
            NKI-V014: no such `dim`. NKI-V015: the partition dimension. NKI-V016: ``shape[dim]`` is not 1.
            NKI-V025: `dim` is locked. NKI-V033: too few dimensions would remain.
        """
        self._check_free(dim, "squeeze_dim")
        self._check_one(dim, "squeeze_dim")
        return self._with(put(self.shape, dim), put(self.strides, dim))

    def reshape_dim(self, dim: int, shape: Sequence[int]) -> NkiTensor:
        """Dimension `dim` split into `shape`, of which one size may be -1: inferred.

        Raises:
            NKI-V014: no such `dim`. NKI-V015: the partition dimension, except into itself.
            NKI-V018: the product is not ``shape[dim]``. NKI-V025: `dim` is locked.
        """
        self._check_dim(dim)
        sizes = infer_size(shape, self.shape[dim])
        if sizes is None:
            raise error(
                "NKI-V018", f"dimension {dim} of {self} has {self.shape[dim]} elements, not {tuple(shape)}"
            )
        if dim < self._pinned and len(sizes) > 1:
            raise self._locked("reshape_dim", dim)
        steps = tuple([stride * self.strides[dim] for stride in contiguous_strides(sizes)])
        return self._with(put(self.shape, dim, *sizes), put(self.strides, dim, *steps))

    def flatten_dims(self, start_dim: int, end_dim: int) -> NkiTensor:
        """Dimensions `start_dim` to `end_dim` (inclusive) as one.

        Raises:
            NKI-V014: not ``start_dim <= end_dim < ndim``. NKI-V015: the partition dimension.
            NKI-V019: they are not contiguous in memory. NKI-V025: one is locked.
        """
        self._check_dim(end_dim)
        self._check_free(start_dim, "flatten_dims")
        if start_dim > end_dim:
            raise error("NKI-V014", f"flatten_dims({start_dim}, {end_dim}) of {self}: the range is backward")
        end = end_dim + 1
        total = math.prod(self.shape[start_dim:end])
        merged = restride(self.shape[start_dim:end], self.strides[start_dim:end], (total,))
        if merged is None:
            raise self._needs_copy(f"flatten its dimensions {start_dim} to {end_dim}")
        return self._with(
            (*self.shape[:start_dim], total, *self.shape[end:]),
            (*self.strides[:start_dim], *merged, *self.strides[end:]),
        )

    def reshape(self, shape: Sequence[int]) -> NkiTensor:
        """The same elements, in the same order, as `shape`.

        Raises:
            NKI-V015: on chip, ``shape[0]`` changes. NKI-V018: the number of elements changes.
            NKI-V019: the layout would need a copy. NKI-V025: a locked dimension changes.
            NKI-V033: too few dimensions.
        """
        sizes = tuple([integer(size) for size in shape])
        if math.prod(sizes) != self.size or min(sizes, default=1) < 1:
            help = f"choose sizes whose product is {self.size}, the number of elements; // rounds down"
            if min(sizes, default=1) < 1:
                help = f"write every size, none is inferred: their product is {self.size}"
            raise error(
                "NKI-V018",
                f"reshape of {self} with {self.size} elements to {sizes} with {math.prod(sizes)}",
                help=help,
            )
        pinned = self._pinned
        if sizes[:pinned] != self.shape[:pinned]:
            raise self._locked("reshape", 0)
        free = restride(self.shape[pinned:], self.strides[pinned:], sizes[pinned:])
        if free is None:
            raise self._needs_copy(f"reshape it to {sizes}")
        return self._with(sizes, self.strides[:pinned] + free)

    def rearrange(
        self,
        src_pattern: Sequence[str | Sequence[str]],
        dst_pattern: Sequence[str | Sequence[str]],
        fixed_sizes: Mapping[str, int] | None = None,
    ) -> NkiTensor:
        """Split, reorder and merge dimensions by name, as einops does.

        Args:
            src_pattern: a name per dimension; a tuple of names where one is to be split.
            dst_pattern: the same names in their new order; a tuple where some are to be merged.
            fixed_sizes: sizes by name; each split infers at most one.

        Raises:
            NKI-V028: malformed patterns. Else as :meth:`reshape_dim`, :meth:`permute`, :meth:`flatten_dims`.
        """
        if not isinstance(src_pattern, (list, tuple)) or len(src_pattern) != self.ndim:
            raise error("NKI-V028", f"{self} has {self.ndim} dimensions; the pattern is {src_pattern!r}")
        plan = Rearrangement(src_pattern, dst_pattern, fixed_sizes or {})
        split: StridedView = self
        for dim, sizes in plan.splits:
            split = split.reshape_dim(dim, sizes)
        view = split.permute(plan.order)
        for first, last in plan.merges:
            view = view.flatten_dims(first, last)
        return view

    # --- checks

    @property
    def _pinned(self) -> int:
        """How many leading dimensions must stay: the partitions on chip, those locked by an index."""
        locked = 0 if self.dynamic is None else self.dynamic.dim + 1
        return max(locked, self.storage.on_chip)

    def _check_dim(self, dim: int) -> None:
        if not 0 <= dim < self.ndim:
            raise error("NKI-V014", f"dimension {dim} of {self}; its dimensions are 0 to {self.ndim - 1}")

    def _check_free(self, dim: int, method: str) -> None:
        self._check_dim(dim)
        if dim < self._pinned:
            raise self._locked(method, dim)

    def _check_one(self, dim: int, method: str) -> None:
        if self.shape[dim] != 1:
            raise error(
                "NKI-V016", f"{method} of dimension {dim} of {self}, which has size {self.shape[dim]}, not 1"
            )

    def _locked(self, method: str, dim: int) -> NkiError:
        if self.dynamic is not None and dim <= self.dynamic.dim:
            return error(
                "NKI-V025",
                f"{method} changes dimension {dim} of {self}, which a run-time index addresses",
                help=f"call {method} before the runtime selection",
            )
        return error(
            "NKI-V015",
            f"{method} changes dimension 0 of {self}, its partitions",
            help="moving data between partitions takes an instruction: nisa.nc_transpose, nisa.dma_copy",
        )

    def _needs_copy(self, what: str) -> NkiError:
        return error(
            "NKI-V019",
            f"{self} with strides {self.strides}: to {what} would need a copy",
            help="copy it to a contiguous tile first: nisa.tensor_copy on chip, nisa.dma_copy in HBM",
        )

    def _too_few(self, shape: tuple[int, ...]) -> NkiError:
        least = 1 + self.storage.on_chip
        return error("NKI-V033", f"{self} as {shape}; {self.buffer.value} tensors have at least {least}")
