"""LncSubscriptable: calls, and what its construction compares."""

from typing import Protocol

import pytest

from nkilib.core.utils.lnc_subscriptable import LncSubscriptable


class Scaled(Protocol):
    def __call__(self, x: int, by: int = 2) -> int:
        """x times by, for each core."""


def _scaled(x: int, by: int = 2) -> int:
    return x * by * scaled.lnc


scaled: "LncSubscriptable[Scaled]"
scaled = LncSubscriptable(_scaled, Scaled)
"""x times by, for each core."""


def test_calls_know_the_number_of_cores():
    assert (scaled[1](3), scaled[2](3, by=5)) == (6, 30)
    with pytest.raises(TypeError, match=r"write _scaled\[1\]\(...\) or _scaled\[2\]"):
        scaled(3)
    with pytest.raises(RuntimeError, match="while _scaled runs"):
        _ = scaled.lnc


def other_name(y: int, by: int = 2) -> int:
    return y


def other_type(x: float, by: int = 2) -> int:
    return by


def other_result(x: int, by: int = 2) -> str:
    return ""


@pytest.mark.parametrize(
    "function, message",
    [
        (other_name, r"parameters are \['y', 'by'\] and \['x', 'by'\]"),
        (other_type, "x is annotated <class 'float'> and <class 'int'>"),
        (other_result, "result is <class 'str'> and <class 'int'>"),
    ],
)
def test_the_protocol_says_what_the_function_says(function, message):
    with pytest.raises(TypeError, match=message):
        LncSubscriptable(function, Scaled)


def test_the_docstring_under_the_assignment_is_the_protocols():
    with pytest.raises(TypeError, match="under the assignment is 'Something else.'"):
        wrong = LncSubscriptable(_scaled, Scaled)
        """Something else."""
        assert wrong
