"""Runtime terms of a view's address, and what each kind of them asks for.

Sources: SDK ``nki.language.NkiTensor`` (select, vector_select, ap, indirect) and "Indirect addressing" of
``nki.isa.dma_copy``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nki_isa.diagnostics import NkiError, error
from nki_isa.tensor.storage import MemoryRegion, NkiScalar, VirtualRegister

if TYPE_CHECKING:
    from nki_isa.tensor.tensor import NkiTensor
    from nki_isa.tensor.views import StridedView


@dataclass(frozen=True, slots=True, eq=False)
class DynamicOffset:
    """A run-time term of a view's address: ``index * stride`` elements.

    Attributes:
        kind: ``"scalar"`` (one index for the whole view), ``"vector"`` (position ``i``
            of dimension 0 takes index ``i``) or ``"indirect"`` (trn3 tensor indirection:
            position ``i`` of dimension 1 takes index ``i``).
        index: a register, or the tensor that holds the indices.
        stride: elements one step of the index moves by.
        dim: the dimension whose positions take their own index, -1 for ``"scalar"``. It and
            those before it are locked: no view operation may change them.
        limit: the index lies in ``range(limit)``, for out-of-bounds checks.
    """

    kind: str
    index: NkiTensor | VirtualRegister
    stride: int
    dim: int
    limit: int

    def _key(self) -> tuple[Any, ...]:
        index = id(self.index) if isinstance(self.index, VirtualRegister) else self.index
        return self.kind, index, self.stride, self.dim, self.limit

    def __eq__(self, other: object) -> bool:
        """True for the same term; a register is the same only as itself."""
        return isinstance(other, DynamicOffset) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())


@dataclass(frozen=True, slots=True)
class _Indirection:
    """What one kind of run-time addressing asks for."""

    text: str
    dim: int  # the dimension whose positions take their own index
    on_chip: bool | None  # True: SBUF and PSUM only; False: HBM only; None: both
    index: str
    fits: Callable[[StridedView, NkiTensor], bool]  # (addressed tensor, index)
    remedy: str = ""


_INDIRECTIONS = {
    "scalar": _Indirection(
        "one run-time index",
        -1,
        None,
        "a register, or an SBUF tensor of one integer",
        lambda tensor, index: index.size == 1,
    ),
    "vector": _Indirection(
        "an index per position of dimension 0",
        0,
        False,
        "SBUF integers of shape (P, 1), or (128, N) for dma_transpose",
        lambda tensor, index: index.size == index.shape[0] or index.ndim == 2,
        "gather from HBM, or use nisa.nc_n_gather or t.indirect on chip",
    ),
    "indirect": _Indirection(
        "tensor indirection",
        1,
        True,
        "SBUF integers of shape (P, K), P the partitions of the tensor",
        lambda tensor, index: index.ndim == 2 and index.shape[0] == tensor.shape[0],
        "use t.vector_select on HBM",
    ),
}


def already_indirect(tensor: StridedView) -> NkiError:
    """NKI-V024, ready to raise."""
    return error(
        "NKI-V024",
        f"{tensor} already has a run-time offset",
        help="combine both indices into one beforehand, or copy the first selection to a tile",
    )


def dynamic_offset(tensor: StridedView, kind: str, index: Any, stride: int, limit: int) -> DynamicOffset:
    """The run-time offset of a view of `tensor`; the arguments are those of :class:`DynamicOffset`.

    Raises:
        NKI-V024: `tensor` has one already. NKI-V026: `index` cannot hold it.
        NKI-V027: the memory of `tensor` has no such addressing.
    """
    if tensor.dynamic is not None:
        raise already_indirect(tensor)
    wanted = _INDIRECTIONS[kind]
    if tensor.storage.on_chip is not wanted.on_chip and wanted.on_chip is not None:
        raise error("NKI-V027", f"{tensor} is addressed with {wanted.text}", help=wanted.remedy)
    if isinstance(index, NkiScalar) and (
        index.is_comparison or (tensor.storage.on_chip and index.dtype.bits > 32)
    ):
        why = "what a comparison gave" if index.is_comparison else "64 bits address HBM only"
        raise error(
            "NKI-V026",
            f"{tensor} is addressed with {index!r}: {why}",
            help="use an int32 scalar, loaded with nisa.scalar_load from an int32 tensor",
        )
    if isinstance(index, NkiScalar):
        index = index.register
    if isinstance(index, VirtualRegister) and kind == "scalar":
        return DynamicOffset(kind, index, stride, wanted.dim, limit)
    if (
        not issubclass(type(index), type(tensor))
        or index.buffer is not MemoryRegion.sbuf
        or index.dtype.kind not in ("int", "uint")
        or index.dynamic is not None
        or not wanted.fits(tensor, index)
    ):
        raise error(
            "NKI-V026", f"{tensor} is addressed with {index!r}", help=f"{wanted.text} takes {wanted.index}"
        )
    return DynamicOffset(kind, index, stride, wanted.dim, limit)
