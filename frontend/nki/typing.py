"""``nki.typing``: shapes of a kernel's tensors as annotations, checked when it is called.

Source: SDK migration guide, "nki.typing module".
"""

from __future__ import annotations

from collections.abc import Iterator
from types import FunctionType
from typing import Any

from nki_isa.diagnostics import error
from nki_isa.tensor.tensor import NkiTensor


class _Tensor(type):
    """The class of ``tensor``: makes ``tensor[128, 512]``, and counts every tensor as an instance."""

    def __getitem__(cls, shape: Any) -> ShapedTensor:
        sizes = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
        if any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in sizes):
            raise error(
                "NKI-L052",
                f"{cls.__name__}[{', '.join(map(repr, sizes))}] does not give a shape",
                help=f"write sizes: nt.{cls.__name__}[128, 512]; for any shape write nt.{cls.__name__}",
            )
        return ShapedTensor(sizes, cls.__name__ == "mutable_tensor")

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, NkiTensor)


class tensor(metaclass=_Tensor):
    """A tensor of any shape; ``tensor[128, 512]`` one of that shape."""


class mutable_tensor(metaclass=_Tensor):
    """A tensor that the kernel writes; as :class:`tensor`."""


class ShapedTensor:
    """``tensor[128, 512]``.

    Attributes:
        shape: the sizes that an argument must have.
        mutable: True if the kernel writes it.
    """

    __slots__ = ("mutable", "shape")

    def __init__(self, shape: tuple[int, ...], mutable: bool = False):
        self.shape = shape
        self.mutable = mutable

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ShapedTensor) and other.shape == self.shape

    def __hash__(self) -> int:
        return hash(self.shape)

    def __repr__(self) -> str:
        return f"tensor[{', '.join(map(str, self.shape))}]"


def _annotations(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """The parameters of `function` with their annotations.

    An annotation that is text (``from __future__ import annotations``) counts where it can be evaluated
    in the function's module; one that cannot, states nothing.
    """
    for name, annotation in getattr(function, "__annotations__", {}).items():
        if isinstance(annotation, str) and "tensor" in annotation:
            try:
                annotation = eval(annotation, function.__globals__)
            except (NameError, AttributeError, TypeError, SyntaxError):
                continue
        yield name, annotation


def shapes_of(function: FunctionType) -> dict[str, tuple[int, ...]]:
    """The shapes that the parameters of `function` are annotated with, by name."""
    return {name: a.shape for name, a in _annotations(function) if isinstance(a, ShapedTensor)}


def mutable_of(function: FunctionType) -> frozenset[str]:
    """The parameters of `function` that are annotated as mutable."""
    return frozenset(
        name
        for name, a in _annotations(function)
        if a is mutable_tensor or (isinstance(a, ShapedTensor) and a.mutable)
    )


def check_shape(kernel: str, name: str, wanted: tuple[int, ...], given: Any) -> None:
    """Refuse an argument whose shape is not the annotated one.

    Args:
        kernel: its name.
        name: the parameter.
        wanted: the annotated shape.
        given: the argument.

    Raises:
        NkiError: NKI-L053.
    """
    shape = getattr(given, "shape", None)
    if shape is None or tuple(shape) != wanted:
        what = f"a {type(given).__name__}" if shape is None else f"an array of shape {tuple(shape)}"
        raise error(
            "NKI-L053",
            f"{kernel}: parameter {name!r} is annotated {ShapedTensor(wanted)!r} and got {what}",
            help=f"pass an array of shape {wanted}, or annotate it nt.tensor for any shape",
        )


__all__ = ["mutable_tensor", "tensor"]
