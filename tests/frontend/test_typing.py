"""``nki.typing``: annotated shapes are checked when a kernel is called; ``nki.collectives`` can be named."""

import numpy as np
import pytest

import nki
import nki.collectives as nccl
import nki.isa as nisa
import nki.language as nl
import nki.typing as nt
from nki_isa.diagnostics import NkiError


def kernel(
    x: nt.tensor[4, 8], y: "nt.tensor[8]" = None, z: nt.tensor = None, n: int = 3, t: nt.mutable_tensor = None
):
    return x


ANNOTATED = nki.jit(kernel)
X = np.ones((4, 8), np.float32)


@pytest.mark.parametrize(
    "arguments", [{"y": np.ones(8, np.float32)}, {"y": np.ones(8, np.int32), "z": X, "t": X, "n": 4}]
)
def test_shapes_that_fit(arguments):
    np.testing.assert_array_equal(ANNOTATED(X, **arguments), X)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"x": X.T, "y": X[0]}, r"'x' is annotated tensor\[4, 8\] and got an array of shape \(8, 4\)"),
        ({"x": X, "y": X}, r"'y' is annotated tensor\[8\] and got an array of shape \(4, 8\)"),
        ({"x": X, "y": None}, "'y'.*a NoneType"),
        ({"x": 3, "y": X[0]}, "'x'.*a int"),
    ],
)
def test_shapes_that_do_not(arguments, message):
    with pytest.raises(NkiError, match=f"NKI-L053.*{message}"):
        ANNOTATED(**arguments)


@pytest.mark.parametrize("shape", [0, -1, "n", 2.0, (4, None)])
def test_sizes_are_numbers(shape):
    with pytest.raises(NkiError, match="NKI-L052"):
        nt.tensor[shape]


def test_annotations_compare_and_show():
    assert nt.tensor[4, 8] == nt.tensor[(4, 8)] and nt.tensor[4] != nt.tensor[8]
    assert repr(nt.tensor[4, 8]) == "tensor[4, 8]" and len({nt.tensor[4], nt.tensor[4]}) == 1


def test_annotations_that_cannot_be_evaluated_state_nothing():
    def local(x: "missing.tensor[9]"):  # noqa: F821
        return x

    np.testing.assert_array_equal(nki.jit(local)(X), X)


def test_a_tensor_is_an_instance():
    @nki.jit
    def inside(x):
        assert isinstance(x, nt.tensor)
        return x

    np.testing.assert_array_equal(inside(X), X)


# --- collectives


def test_replica_groups():
    assert nccl.ReplicaGroup([[0, 1], [2, 3]]).groups == [[0, 1], [2, 3]]
    for groups in ([[0, 1], [1, 2]], [[-1]], [["a"]]):
        with pytest.raises(NkiError, match="NKI-V142"):
            nccl.ReplicaGroup(groups)


@nki.jit
def communicating(x, ranks):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    if ranks > 1:
        sent = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name="sent")
        received = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name="received")
        nisa.dma_copy(dst=sent, src=x)
        nccl.all_reduce(srcs=[sent], dsts=[received], replica_group=nccl.ReplicaGroup([[0, 1]]), op=nl.add)
        nisa.dma_copy(dst=out, src=received)
    else:
        nl.store(out, nl.load(x))
    return out


def test_a_kernel_that_does_not_communicate_runs():
    np.testing.assert_array_equal(communicating(X, 1), X)


def test_communication_needs_ranks():
    with pytest.raises(NkiError, match=r"NKI-U012.*all_reduce.*one rank"):
        communicating(X, 2)
