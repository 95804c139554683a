"""The base of classes that kernels use."""

from __future__ import annotations

import sys
from typing import Any

from nki import levels


def own_fields(cls: type) -> tuple[str, ...]:
    """The annotated names of the body of `cls`, in order; annotations are not evaluated."""
    if sys.version_info >= (3, 14):
        import annotationlib

        return tuple(annotationlib.get_annotations(cls, format=annotationlib.Format.FORWARDREF))
    return tuple(vars(cls).get("__annotations__", ()))


class NKIObject:
    """Base class of the classes a kernel makes or takes.

    Without an ``__init__`` of its own (and without ``@dataclass``) a class takes its
    annotated fields as keywords, or in order: class-level values are the defaults,
    absent fields are None; then ``__post_init__`` runs. Up to API level 0.6 objects with equal fields are
    equal; from 0.7 on equality is Python's.

    Source: SDK language guide, class support.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        kind = type(self)
        fields = _defaults(kind)
        if len(args) > len(fields):
            raise TypeError(f"{kind.__name__} has {len(fields)} fields but got {len(args)} values")
        given = dict(zip(fields, args))
        for name in kwargs:
            if name in given:
                raise TypeError(f"{kind.__name__} got {name!r} twice")
        for name, value in {**fields, **given, **kwargs}.items():
            setattr(self, name, value)
        self.__post_init__()

    def __post_init__(self) -> None:
        """Runs after the fields are set; for subclasses."""

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other) or not levels.before("0.7"):
            return NotImplemented
        return vars(self) == vars(other)

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"{type(self).__qualname__}({', '.join(f'{k}={v!r}' for k, v in vars(self).items())})"


def _defaults(cls: type) -> dict[str, Any]:
    """The fields of `cls` and its bases, the bases' first, with their defaults."""
    kept: dict[str, Any] | None = vars(cls).get("__nki_fields__")
    if kept is None:
        names = [name for kind in reversed(cls.__mro__) for name in own_fields(kind)]
        kept = {name: getattr(cls, name, None) for name in names}
        type.__setattr__(cls, "__nki_fields__", kept)
    return kept
