"""Reads of registers nobody set: what is told beyond the corpus."""

import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki import runtime
from nki_isa.diagnostics import NkiError
from nki_isa.machine.targets import TRN2, TRN3

X = np.ones((128, 512), np.float32)
RESET, REDUCE, IDLE = nisa.reduce_cmd.reset_reduce, nisa.reduce_cmd.reduce, nisa.reduce_cmd.idle


def found(kernel, *arguments, target=TRN2, **options):
    """(code, severity, message) of everything said about a run."""
    with runtime.session(target=target, **options) as session:
        try:
            kernel(*arguments)
        except NkiError as refused:
            told = refused.diagnostics
        else:
            told = session.launches[0].diagnostics
    return [(d.code, d.severity.value, d.message) for d in told if d.code != "NKI-L056"]


@nki.jit
def stored_over(x):
    number = nl.ndarray((1, 1), dtype=nl.int32, buffer=nl.sbuf)
    register = nisa.register_alloc()
    nisa.register_store(dst=number, src=register)
    nisa.memset(dst=number, value=0)
    result = nl.ndarray((1, 1), dtype=nl.int32, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=result, src=number)
    return result


def test_a_value_no_result_depends_on_is_a_note():
    message = "register_store reads register 0, which nothing has set"
    assert found(stored_over, X) == [("NKI-H013", "note", message)]
    assert found(stored_over, X, warnings_as_errors=True) == [("NKI-H013", "error", message)]
    assert found(stored_over, X, check="psum,overlap") == []


@nki.jit
def set_in_the_loop(x, is_set):
    """One register ends the loop and sets another; which that is depends on `is_set`."""
    zero = nl.ndarray((1, 1), dtype=nl.int32, buffer=nl.sbuf)
    nisa.memset(dst=zero, value=0)
    going = nisa.register_alloc(1 if is_set else None)
    last = nisa.register_alloc()
    while going:
        nisa.register_move(dst=last, src=going)
        nisa.register_load(dst=going, src=zero)
    result = nl.ndarray((1, 1), dtype=nl.int32, buffer=nl.shared_hbm)
    nisa.register_store(dst=result, src=last)
    return result


def test_loops_read_their_condition_and_count_as_run():
    assert found(set_in_the_loop, X, True) == []
    ((code, severity, message), *_) = found(set_in_the_loop, X, False)
    assert (code, severity) == ("NKI-H013", "error")
    assert message.startswith("the condition of a device loop reads register 0")


@nki.jit
def bounded(x, is_set):
    stop = nisa.register_alloc()
    if is_set:
        nisa.register_move(dst=stop, src=4)
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)

    def body(_):
        nisa.tensor_scalar(dst=tile, data=tile, op0=nl.add, operand0=1.0)

    nl.fori_loop(0, stop, body)
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=result, src=tile)
    return result


def test_loops_read_their_bounds():
    assert found(bounded, X, True) == []
    ((code, severity, message),) = found(bounded, X, False)
    assert (code, severity) == ("NKI-H013", "error") and message.startswith("the stop of a device loop")


@nki.jit
def summed(x, first, second, partitions):
    """Two reductions on the scalar engine, of the first `partitions` partitions, then of all."""
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    out = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    total = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)
    result = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=tile, src=x)
    part, out_part = tile[:partitions], out[:partitions]
    nisa.activation(dst=out_part, op=nl.copy, data=part, reduce_op=nl.add, reduce_cmd=first)
    nisa.activation(dst=out, op=nl.copy, data=tile, reduce_op=nl.add, reduce_res=total, reduce_cmd=second)
    nisa.dma_copy(dst=result, src=total)
    return result


@pytest.mark.parametrize(
    "first, second, partitions, reads",
    [
        (RESET, REDUCE, 128, None),
        (RESET, IDLE, 128, None),
        (IDLE, RESET, 128, None),
        (RESET, REDUCE, 64, "registers 64 to 127 of the scalar engine"),
        (IDLE, REDUCE, 128, "registers of the scalar engine, which nothing has reset"),
        (IDLE, IDLE, 128, "registers of the scalar engine, which nothing has reset"),
        (REDUCE, REDUCE, 128, "registers of the scalar engine, which nothing has reset"),
    ],
)
def test_accumulator_registers(first, second, partitions, reads):
    told = [(s, m) for code, s, m in found(summed, X, first, second, partitions) if code == "NKI-H013"]
    if reads is None:
        assert told == []
    else:
        ((severity, message),) = told
        assert severity == "error" and reads in message


@nki.jit
def interrupted(x, command):
    """An exponential between the two halves of a maximum on the vector engine."""
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    out = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    total = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)
    result = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=tile, src=x)
    nisa.exponential(dst=out, src=tile, reduce_cmd=RESET)
    nisa.exponential(dst=out, src=tile, reduce_cmd=command)
    nisa.exponential(dst=out, src=tile, reduce_cmd=REDUCE, reduce_res=total)
    nisa.dma_copy(dst=result, src=total)
    return result


def test_idle_on_the_vector_engine_leaves_nothing_known():
    """SDK page nki.isa.exponential: with idle the state of the accumulators is unknown."""
    assert "NKI-H013" not in [code for code, _, _ in found(interrupted, X, REDUCE, target=TRN3)]
    told = [f for f in found(interrupted, X, IDLE, target=TRN3) if f[0] == "NKI-H013"]
    ((_, severity, message),) = told
    assert severity == "error" and message.endswith("of the vector engine, whose values are unknown")
