"""Whatever a kernel is called with becomes what docs/trust.md says, or is refused by name."""

import ml_dtypes
import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki_isa.diagnostics import NkiError


@nki.jit
def copied(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=x)
    return out


@nki.jit
def beside(x, y):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=x)
    return out


GOOD = np.arange(6, dtype=np.float32).reshape(2, 3)


class Derived(np.ndarray):
    pass


ARRAYS = {
    "no dimensions": np.array(1.5, np.float32),
    "bool": GOOD > 2,
    "float16": GOOD.astype(np.float16),
    "bfloat16": GOOD.astype(ml_dtypes.bfloat16),
    "read-only": np.broadcast_to(np.float32(1), (2, 3)),
    "strided": np.arange(24, dtype=np.float32).reshape(4, 6)[::2, ::2],
    "backward": GOOD[::-1],
    "Fortran order": np.asfortranarray(GOOD),
    "subclass": GOOD.view(Derived),
    "32 dimensions": np.ones((1,) * 32, np.float32),
}
REFUSED = {
    "masked": np.ma.masked_array(GOOD, mask=GOOD > 2),
    "byte-swapped": GOOD.astype(GOOD.dtype.newbyteorder()),
    "float64": GOOD.astype(np.float64),
    "object": np.array([[1, None]], object),
    "text": np.array(["a"]),
    "structured": np.zeros(3, [("a", "f4")]),
    "dates": np.zeros(3, "M8[s]"),
    "complex": GOOD.astype(np.complex64),
    "empty": np.zeros((0, 3), np.float32),
    "complex number": 1j,
    "bytes": b"ab",
    "bytearray": bytearray(4),
    "memoryview": memoryview(b"ab"),
    "set": {1},
    "iterator": iter([1]),
    "object of no class of the user's": object(),
    "module": np,
}
WIDE = {"int64": GOOD.astype(np.int64), "uint64": GOOD.astype(np.uint64)}
PLAIN = {
    "number": 1.5,
    "large number": 2**80,
    "not a number": float("nan"),
    "numpy scalar": np.float64(2),
    "numpy bool": np.bool_(True),
    "text": "x",
    "None": None,
    "dict": {"a": GOOD, 1: (GOOD, 2)},
    "range": range(3),
    "dtype": np.float32,
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_come_in_and_out_with_shape_and_dtype(kind):
    given = ARRAYS[kind]
    for _ in range(3):  # compiled, checked, replayed
        got = copied(given)
        assert got.dtype == given.dtype and got.shape == (given.shape or (1,))
        assert np.array_equal(got, given.reshape(got.shape))


@pytest.mark.parametrize("kind", REFUSED)
def test_what_a_kernel_cannot_take_is_refused_by_name(kind):
    for kernel, arguments, name in ((copied, (), "x"), (beside, (GOOD,), "y")):
        with pytest.raises(NkiError) as refused:
            kernel(*arguments, REFUSED[kind])
        (found,) = refused.value.diagnostics
        assert found.code == "NKI-L024" and f"argument '{name}'" in found.message and found.help


@pytest.mark.api("0.6")
@pytest.mark.parametrize("kind", WIDE)
def test_integers_of_64_bits_are_refused_before_level_0_7(kind):
    with pytest.raises(NkiError) as refused:
        copied(WIDE[kind])
    (found,) = refused.value.diagnostics
    assert found.code == "NKI-L024" and "argument 'x'" in found.message and "int32" in found.help


@pytest.mark.api("0.7")
@pytest.mark.parametrize("kind", WIDE)
def test_integers_of_64_bits_are_copied_at_level_0_7(kind):
    got = copied(WIDE[kind])
    assert got.dtype == WIDE[kind].dtype and np.array_equal(got, WIDE[kind])


def test_each_list_is_refused_by_name():
    """As the vendor's migration guide says of list arguments; a tuple is taken."""
    with pytest.raises(NkiError) as refused:
        beside(GOOD, [1.0, [2, None]])
    found = refused.value.diagnostics[0]
    assert found.code == "NKI-L024" and "argument 'y'" in found.message and "tuple" in found.help
    assert np.array_equal(beside(GOOD, (1.0, (2, None))), GOOD)


@pytest.mark.parametrize("kind", PLAIN)
def test_plain_values_come_in_as_they_are(kind):
    assert np.array_equal(beside(GOOD, PLAIN[kind]), GOOD)


def test_the_conversion_that_is_named_is_accepted():
    for given in (REFUSED["byte-swapped"], REFUSED["float64"], *WIDE.values()):
        assert copied(given.astype(np.float32)).dtype == np.float32
    assert np.array_equal(copied(REFUSED["masked"].filled(0.0)), np.where(GOOD > 2, 0, GOOD))
