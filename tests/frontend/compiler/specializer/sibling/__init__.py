"""A package of the user's own, as kernels import them."""

from dataclasses import dataclass

from nki.language import NKIObject

from . import deep
from .deep import helper as _helper

SCALE = 0.5


def double(x):
    return 2 * x


def nested(x):
    return _helper(x) + deep.CONSTANT


@dataclass
class Shape(NKIObject):
    rows: int
    columns: int = 1

    def area(self):
        return self.rows * self.columns
