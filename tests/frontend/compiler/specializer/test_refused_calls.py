"""What a user is told of wrong calls of a kernel, of what is not a kernel, and of results that are none."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from refusing import refused

import nki
import nki.isa as nisa
import nki.language as nl
from nki.compiler import specialize
from nki_isa.diagnostics import NkiError

A = np.ones((4, 8), np.float32)


def helper():
    return None


class Own(nl.NKIObject):
    def check(self):
        """A method is not a function."""


# --- wrong calls of a kernel


@nki.jit
def takes(x, scale=1.0, what="a"):
    return x


def test_a_signature_is_shown_without_what_annotations_and_defaults_are() -> None:
    @nki.jit
    def annotated(x: nl.ndarray, of: Any = object()) -> nl.ndarray:  # noqa: B008
        return x

    with pytest.raises(NkiError) as found:
        annotated(A, off=1)
    (diagnostic,) = found.value.diagnostics
    assert diagnostic.help == "its signature is annotated(x, of=...)"


class Slotted:
    __slots__ = ("x",)


@pytest.mark.parametrize(
    ("args", "kwargs", "code", "message"),
    [
        ((), {}, "NKI-L012", "takes: missing a required argument: 'x'"),
        ((A, 1, 2, 3), {}, "NKI-L012", "takes: too many positional arguments"),
        ((A,), {"scales": 2}, "NKI-L012", "takes: got an unexpected keyword argument 'scales'"),
        ((A,), {"x": A}, "NKI-L012", "takes: multiple values for argument 'x'"),
        (
            (A.astype(np.float64),),
            {},
            "NKI-L024",
            "argument 'x' has dtype float64, which the NeuronCore lacks",
        ),
        (
            (A.astype(np.complex64),),
            {},
            "NKI-L024",
            "argument 'x' has dtype complex64, which the NeuronCore lacks",
        ),
        ((A.astype(object),), {}, "NKI-L024", "argument 'x' has dtype object, which the NeuronCore lacks"),
        ((np.array(["a"]),), {}, "NKI-L024", "argument 'x' has dtype <U1, which the NeuronCore lacks"),
        ((A[:0],), {}, "NKI-L024", "argument 'x' is empty: shape (0, 8)"),
        (
            ([A, A.astype(np.float64)],),
            {},
            "NKI-L024",
            "argument 'x_1' has dtype float64, which the NeuronCore lacks",
        ),
        (({"w": {1, 2}},), {}, "NKI-L024", "argument 'x_w' is a set, which is not an array or a plain value"),
        ((b"ab",), {}, "NKI-L024", "argument 'x' is a bytes, which is not an array or a plain value"),
        ((1j,), {}, "NKI-L024", "argument 'x' is a complex, which is not an array or a plain value"),
        ((object(),), {}, "NKI-L024", "argument 'x' is a object, which is not an array or a plain value"),
        (
            (memoryview(b"ab"),),
            {},
            "NKI-L024",
            "argument 'x' is a memoryview, which is not an array or a plain value",
        ),
        (
            (iter([1]),),
            {},
            "NKI-L024",
            "argument 'x' is a list_iterator, which is not an array or a plain value",
        ),
        ((np,), {}, "NKI-L024", "argument 'x' is a module, which is not an array or a plain value"),
        (
            (SimpleNamespace(a=1),),
            {},
            "NKI-L024",
            "argument 'x' is a types.SimpleNamespace, which is not an array or a plain value",
        ),
    ],
)
def test_wrong_arguments(args: Any, kwargs: Any, code: str, message: str) -> None:
    (found,) = refused(takes, *args, **kwargs)
    assert (found.code, found.message) == (code, message)
    assert found.help


def test_the_signature_is_told() -> None:
    (found,) = refused(takes)
    assert found.help == "its signature is takes(x, scale=..., what=...)"


def test_a_tensor_of_another_call_is_refused() -> None:
    from nki.compiler.specializer.specialize import specialize_call
    from nki_isa.machine.targets import as_target

    target = as_target("trn2")
    tensor = specialize_call(takes, (A,), {}, target=target).program.inputs[0]
    (found,) = refused(takes, tensor)
    assert found.message.startswith(
        "argument 'x' is x[4, 8] float32 shared_hbm, a tensor of another kernel call"
    )


def test_the_callers_arrays_stay_as_they_are_when_a_kernel_fails() -> None:
    @nki.jit
    def kernel(x):
        tile = nl.zeros((4, 8), nl.float32, buffer=nl.sbuf)
        nisa.dma_copy(dst=x, src=tile)
        assert False  # noqa: B011

    x = A.copy()
    with pytest.raises(NkiError):
        kernel(x)
    np.testing.assert_array_equal(x, A)


# --- what is not a kernel


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (Own, "type"),
        (len, "builtin_function_or_method"),
        (3, "int"),
        ("f", "str"),
        (np.add, "ufunc"),
        (Own.check.__get__(3), "method"),
    ],
)
def test_what_is_no_function_is_no_kernel(value: Any, kind: str) -> None:
    for make in (nki.jit, nki.jit(mode="x"), specialize):
        with pytest.raises(NkiError) as found:
            make(value)
        (diagnostic,) = found.value.diagnostics
        assert (diagnostic.code, diagnostic.message) == (
            "NKI-L023",
            f"nki.jit was given a {kind}, not a function",
        )


@pytest.mark.api("0.6")
def test_a_lambda_is_no_kernel() -> None:
    with pytest.raises(NkiError) as found:
        specialize(nki.jit(lambda x: x), A)
    assert found.value.diagnostics[0].code in ("NKI-L013", "NKI-L023")


@pytest.mark.parametrize("grid", [0, -1, 1.5, "2", (), (1, 2), None, True, [1]])
def test_grids(grid: Any) -> None:
    with pytest.raises(NkiError) as found:
        takes[grid]
    (diagnostic,) = found.value.diagnostics
    assert diagnostic.code == "NKI-L024" and repr(grid) in diagnostic.message
    assert diagnostic.help == "write takes[1](...) or takes[2](...)"


def test_good_grids() -> None:
    assert (takes[1].grid, takes[2].grid, takes[(2,)].grid) == (1, 2, 2)


def test_device_operations_outside_of_a_kernel() -> None:
    for call in (
        lambda: nl.ndarray((1, 1), nl.float32),
        lambda: nl.program_id(0),
        lambda: nisa.register_alloc(),
        nl.no_reorder,
    ):
        with pytest.raises(NkiError) as found:
            call()
        assert found.value.diagnostics[0].code == "NKI-L029"


# --- results


def returns_sbuf(x):
    return nl.ndarray((4, 8), nl.float32, buffer=nl.sbuf)


def returns_register(x):
    return nisa.register_alloc(1)


def returns_object(x):
    return [x, Holder(1)]


def returns_function(x):
    return [helper]


def returns_twice(x):
    if x.shape[0] == 5:
        return x
    return nl.ndarray((4, 8), nl.float32, buffer=nl.psum)


@dataclass
class Holder(nl.NKIObject):
    x: int


@pytest.mark.parametrize(
    ("kernel", "message", "line"),
    [
        (returns_sbuf, "returns_sbuf returns sbuf1[4, 8] float32 sbuf, which lives in sbuf", 1),
        (returns_register, "returns_register returns a register", 1),
        (returns_object, "returns_object returns a Holder", 1),
        (returns_function, "returns_function returns a function", 1),
        (returns_twice, "returns_twice returns psum1[4, 8] float32 psum, which lives in psum", 0),
    ],
)
def test_bad_return_values(kernel: Any, message: str, line: int) -> None:
    (found,) = refused(kernel, A)
    assert (found.code, found.message) == ("NKI-L025", message)
    assert found.span is not None and found.span.line == kernel.__code__.co_firstlineno + line
