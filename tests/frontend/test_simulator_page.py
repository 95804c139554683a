"""Each statement of the vendor's simulator page, as a test of ours.

Source: SDK page "NKI CPU Simulator" (nki/guides/nki_simulator). Where we give more than it promises
(compilation, capacity, time), the test says what.
"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki import runtime
from nki_isa.diagnostics import NkiError

pytestmark = pytest.mark.api("0.6")  # the newest level whose language is the parser's


@nki.jit
def add(a, b):
    total = nl.add(nl.load(a), nl.load(b))
    out = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
    nl.store(out, total)
    return out


A = np.random.default_rng(0).random((128, 64), np.float32)
B = np.random.default_rng(1).random((128, 64), np.float32)


def run_script(text, tmp_path, **environment):
    file = tmp_path / "my_script.py"
    file.write_text(textwrap.dedent(text))
    done = subprocess.run(
        [sys.executable, str(file)], env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


SCRIPT = """
    import ml_dtypes
    import numpy as np
    import nki
    import nki.language as nl

    @nki.jit
    def add(a, b):
        total = nl.add(nl.load(a), nl.load(b))
        out = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
        nl.store(out, total)
        return out

    a = np.full((4, 4), 1, ml_dtypes.bfloat16)
    b = np.full((4, 4), 2.0**-9, ml_dtypes.bfloat16)
    result = add(a, b)
    print(result.dtype, result[0, 0])
"""


# --- running the simulator


def test_existing_scripts_run_with_the_environment_variable(tmp_path):
    assert run_script(SCRIPT, tmp_path, NKI_SIMULATOR="1") == "bfloat16 1\n"


def test_and_without_it_since_there_is_no_other_device(tmp_path):
    assert run_script(SCRIPT, tmp_path) == "bfloat16 1\n"


FRAMEWORKS = {
    "torch": "import torch; a, b = torch.ones(4, 4), torch.full((4, 4), 2.0); kind = torch.Tensor",
    "jax": "import jax; a, b = jax.numpy.ones((4, 4)), jax.numpy.full((4, 4), 2.0); kind = jax.Array",
}


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_scripts_of_frameworks_run_without_changes(tmp_path, name):
    """The page leaves JAX out; here both work."""
    pytest.importorskip(name, reason=f"{name} is not installed: pip install nki-sim[{name}]")
    start, _ = SCRIPT.split("    a = np.full")
    use = f"    {FRAMEWORKS[name]}\n    out = add(a, b)\n    print(isinstance(out, kind), float(out[0, 0]))\n"
    assert run_script(start + use, tmp_path, NKI_SIMULATOR="1") == "True 3.0\n"


def test_explicit_api_with_numpy():
    np.testing.assert_array_equal(nki.simulate(add)(A, B), A + B)


def test_explicit_api_with_torch():
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install nki-sim[torch]")
    a, b = torch.from_numpy(A), torch.from_numpy(B)
    result = nki.simulate(add)(a, b)
    torch.testing.assert_close(result, a + b)
    torch.testing.assert_close(result, add(a, b), rtol=1e-2, atol=1e-5)  # the page's comparison


def test_a_plain_function_is_wrapped():
    np.testing.assert_array_equal(nki.simulate(add.function)(A, B), A + B)


def test_jit_with_and_without_parentheses():
    np.testing.assert_array_equal(nki.jit()(add.function)(A, B), A + B)
    assert nki.jit(add) is add


# --- target platform


@pytest.mark.parametrize(
    "value, name",
    [
        ("trn1", "trn1"),
        ("gen2", "trn1"),
        ("trn2", "trn2"),
        ("gen3", "trn2"),
        ("trn3", "trn3"),
        ("gen4", "trn3"),
    ],
)
def test_target_platform(monkeypatch, value, name):
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", value)
    with runtime.session() as session:
        add(A, B)
    assert session.launches[0].program.target == name


def test_without_it_the_target_is_trn2(monkeypatch):
    """The page has the chip of the machine it runs on, else trn3; here it is trn2, and said so."""
    monkeypatch.delenv("NEURON_PLATFORM_TARGET_OVERRIDE", raising=False)
    with runtime.session() as session:
        add(A, B)
    assert session.launches[0].program.target == "trn2"
    assert "trn2 is the default" in (Path(__file__).parents[2] / "README.md").read_text()


# --- precise floating-point mode


def test_precise_mode_is_the_default(tmp_path):
    assert run_script(SCRIPT, tmp_path, NKI_PRECISE_FP="1") == "bfloat16 1\n"


def test_low_precision_tensors_are_float32_without_it(tmp_path):
    assert run_script(SCRIPT, tmp_path, NKI_PRECISE_FP="0") == "float32 1.0019531\n"


@nki.jit
def chain(a, w):
    """Rounds on the way: a load, a sum, a product in PSUM, a copy."""
    left = nl.load(a)
    sums = nl.add(left, left)
    product = nl.matmul(sums, nl.load(w), transpose_x=True)
    tile = nl.ndarray(product.shape, dtype=a.dtype, buffer=nl.sbuf)
    nisa.tensor_copy(dst=tile, src=product)
    low = nl.multiply(tile, 0.1)
    out = nl.ndarray(low.shape, dtype=low.dtype, buffer=nl.shared_hbm)
    nl.store(out, low)
    return out


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3, ml_dtypes.float8_e5m2])
def test_accuracy_loss_is_that_of_downcasts(monkeypatch, dtype):
    a = (np.random.default_rng(2).random((64, 32)) + 0.5).astype(dtype)
    w = (np.random.default_rng(3).random((64, 48)) + 0.5).astype(dtype)
    exact = 0.2 * a.astype(np.float32).T @ w.astype(np.float32)
    rounded = chain(a, w)
    assert rounded.dtype == dtype
    monkeypatch.setenv("NKI_PRECISE_FP", "0")
    full = chain(a, w)
    assert full.dtype == np.float32
    np.testing.assert_allclose(full, exact, rtol=1e-5)
    assert np.abs(rounded.astype(np.float32) - exact).max() > 100 * np.abs(full - exact).max()


def test_other_dtypes_are_as_in_precise_mode(monkeypatch):
    monkeypatch.setenv("NKI_PRECISE_FP", "0")
    half = add(A.astype(np.float16), B.astype(np.float16))
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half, (A.astype(np.float16) + B.astype(np.float16)))


def test_bytes_read_as_another_dtype_are_refused_in_high_precision(monkeypatch):
    @nki.jit
    def kernel(x):
        tile = nl.load(x)
        out = nl.ndarray(x.shape, dtype=nl.uint16, buffer=nl.shared_hbm)
        nl.store(out, tile.view(nl.uint16))
        return out

    x = np.ones((4, 4), ml_dtypes.bfloat16)
    np.testing.assert_array_equal(kernel(x), x.view(np.uint16))
    monkeypatch.setenv("NKI_PRECISE_FP", "0")
    with pytest.raises(NkiError, match="NKI-U013.*bfloat16 is read as uint16.*NKI_PRECISE_FP=1"):
        kernel(x)


# --- debugging


def test_breakpoint_stops_in_the_kernel(tmp_path):
    script = """
        import numpy as np
        import nki
        import nki.language as nl

        @nki.jit
        def kernel(a):
            tile = nl.load(a)
            breakpoint()
            out = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
            nl.store(out, tile)
            return out

        print(kernel(np.ones((4, 4), np.float32)).sum())
    """
    file = tmp_path / "kernel.py"
    file.write_text(textwrap.dedent(script))
    done = subprocess.run(
        [sys.executable, str(file)],
        input="p tile.shape\nc\n",
        capture_output=True,
        text=True,
        env={**os.environ},
    )
    assert "(4, 4)" in done.stdout and "16.0" in done.stdout
    assert "nl.ndarray(a.shape" in done.stdout or "breakpoint()" in done.stdout


def test_device_print_prints_to_stdout(capsys):
    @nki.jit
    def kernel(a):
        nl.device_print("my tile", nl.load(a))

    kernel(np.full((2, 2), 3.0, np.float32))
    shown = capsys.readouterr().out
    assert "my tile" in shown and "3." in shown


def test_python_print_shows_any_object(capsys):
    @nki.jit
    def kernel(a):
        tile = nl.load(a)
        print(tile.shape, tile.dtype)

    kernel(np.full((2, 2), 3.0, np.float32))
    assert "(2, 2) float32" in capsys.readouterr().out


# --- how it works


def test_arrays_become_hbm_tensors_and_other_arguments_pass_through():
    @nki.jit
    def kernel(a, factor, names, flag=None):
        assert a.buffer == nl.shared_hbm or a.buffer == nl.hbm
        assert factor == 2.5 and names == ("x", "y") and flag is None
        out = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
        nl.store(out, nl.multiply(nl.load(a), factor))
        return out

    np.testing.assert_array_equal(kernel(A, 2.5, ("x", "y")), A * np.float32(2.5))


def test_inputs_are_updated_in_place():
    @nki.jit
    def kernel(a):
        nl.store(a, nl.add(nl.load(a), 1.0))

    mine = A.copy()
    kernel(mine)
    np.testing.assert_array_equal(mine, A + 1)


def test_two_programs_of_a_logical_core():
    @nki.jit
    def kernel(a):
        out = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
        first = nl.program_id(0) * 64
        assert nl.num_programs(0) == 2 and nl.program_ndim() == 1
        nl.store(out[first : first + 64], nl.add(nl.load(a[first : first + 64]), 1.0))
        return out

    np.testing.assert_array_equal(nki.simulate(kernel[2])(A), A + 1)
    np.testing.assert_array_equal(kernel[2](A), A + 1)


@nki.jit
def exchanged(a):
    """Each program sends its half to the other, meets it, and reads what it left in shared HBM."""
    program, half = nl.program_id(0), a.shape[0] // 2
    mine = nl.load(a[program * half : (program + 1) * half])
    theirs = nl.ndarray(mine.shape, dtype=a.dtype, buffer=nl.sbuf)
    nisa.sendrecv(src=mine, dst=theirs, send_to_rank=1 - program, recv_from_rank=1 - program, pipe_id=0)
    shared = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
    nl.store(shared[program * half : (program + 1) * half], theirs)
    nisa.core_barrier(data=shared, cores=(0, 1))
    other = nl.load(shared[(1 - program) * half : (2 - program) * half])
    out = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
    nl.store(out[program * half : (program + 1) * half], other)
    return shared, out


def test_programs_send_and_meet():
    shared, out = nki.simulate(exchanged[2])(A)
    np.testing.assert_array_equal(shared, np.roll(A, 64, axis=0))
    np.testing.assert_array_equal(out, A)


# --- uninitialized memory


def test_reads_of_unwritten_memory_are_told():
    """The page has sentinels in outputs; here the read itself is an error, at its line."""

    @nki.jit
    def kernel(a):
        tile = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile[:, 0:32], src=a[:, 0:32])
        out = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
        nl.store(out, nl.add(tile, tile))
        return out

    with pytest.raises(NkiError, match="NKI-H002"):
        kernel(A)


def test_sentinels_are_nan_and_4():
    @nki.jit
    def kernel(a):
        outs = []
        for dtype in (nl.float32, nl.int32):
            out = nl.ndarray((4, 4), dtype=dtype, buffer=nl.shared_hbm)
            nl.store(out, nl.copy(nl.ndarray((4, 4), dtype=dtype, buffer=nl.sbuf)))
            outs.append(out)
        return outs

    with runtime.session(check="none", fill="sentinels"):
        floats, integers = kernel(A)
    assert np.isnan(floats).all() and (integers == 4).all()


# --- hardware constraints


def test_constraints_raise_with_descriptive_messages():
    @nki.jit
    def bad_kernel(a):
        nl.ndarray((256, 512), dtype=nl.float32, buffer=nl.sbuf)

    with pytest.raises(NkiError, match="256 partitions; sbuf has 128"):
        nki.simulate(bad_kernel)(A)


@pytest.mark.parametrize(
    "operand, code",
    [("psum", "NKI-V101"), ("dtype", "NKI-V105"), ("engine", "NKI-V106"), ("generation", "NKI-V108")],
)
def test_buffers_dtypes_engines_and_generations_are_checked(operand, code):
    @nki.jit
    def kernel(a):
        tile = nl.load(a)
        if operand == "psum":
            nisa.dma_copy(dst=a, src=nl.transpose(tile))
        elif operand == "dtype":
            nisa.tensor_tensor(dst=tile, data1=tile, data2=tile, op=nl.bitwise_and)
        elif operand == "engine":
            nisa.tensor_scalar(dst=tile, data=tile, op0=nl.add, operand0=1.0, engine=nisa.engine.tensor)
        else:
            nisa.rand2(tile, 0.0, 1.0)

    with pytest.raises(NkiError, match=code):
        kernel(np.ones((64, 64), np.float32))


# --- where the page names limitations, ours go further


def test_python_that_is_not_nki_is_refused():
    @nki.jit
    def kernel(a):
        return [t for t in (a, a)]

    with pytest.raises(NkiError, match="NKI-L005.*list comprehension"):
        kernel(A)


def test_capacity_is_checked():
    @nki.jit
    def kernel(a):
        one, two = nl.zeros((128, 20 << 10), nl.float32), nl.zeros((128, 20 << 10), nl.float32)
        total = nl.add(one, two)  # 80 KiB of a partition each, all three at once
        nl.store(a, total[:, 0:64])

    with pytest.raises(NkiError, match="NKI-M00"):
        kernel(A)


def test_time_is_modelled():
    with runtime.session(timing=True) as session:
        add(A, B)
    assert session.launches[0].timeline.total > 0
