"""The base of classes that kernels use."""

from __future__ import annotations

import inspect
from typing import Any


class NKIObject:
    """Base class of the classes a kernel makes or takes.

    Without an ``__init__`` of its own (and without ``@dataclass``) a class takes its
    annotated fields as keywords, or in order: class-level values are the defaults,
    absent fields are None; then ``__post_init__`` runs. Equality is structural.

    Source: SDK language guide, class support.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        fields = [name for cls in reversed(type(self).__mro__) for name in inspect.get_annotations(cls)]
        values = dict(zip(fields, args))
        if len(args) > len(fields):
            raise TypeError(f"{type(self).__name__} has {len(fields)} fields but got {len(args)} values")
        for name, value in kwargs.items():
            if name in values:
                raise TypeError(f"{type(self).__name__} got {name!r} twice")
            values[name] = value
        for name in fields:
            setattr(self, name, values.pop(name, getattr(type(self), name, None)))
        for name, value in values.items():
            setattr(self, name, value)
        self.__post_init__()

    def __post_init__(self) -> None:
        """Runs after the fields are set; for subclasses."""

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return vars(self) == vars(other)

    __hash__ = object.__hash__
