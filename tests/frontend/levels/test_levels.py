"""API levels: each one's names, parameters and refusals."""

import inspect
import os
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

import nki
import nki.collectives
import nki.isa as nisa
import nki.language as nl
from nki import levels
from nki.compiler.checker.check import check_text
from nki.levels import FORMS, LEVELS, NAMES, NEWEST
from nki_isa.diagnostics import NkiError
from nki_isa.tensor.tensor import NkiTensor

HEAD = "import nki\nimport nki.isa as nisa\nimport nki.language as nl\n\n@nki.jit\ndef kernel(x):\n"


@pytest.fixture
def at():
    yield levels.use
    levels.use(NEWEST)


def codes(body):
    return [(d.code, d.message, d.help) for d in check_text(HEAD + body, "kernel.py")]


@pytest.mark.parametrize(
    "text, level", [("0.3", "0.3"), ("0.3.0", "0.3"), ("2.29", "0.3"), ("2.32.0", "0.6"), ("2.33", "0.7")]
)
def test_spellings(text, level):
    assert levels.read_level(text) == level


@pytest.mark.parametrize("text", ["", "0.1", "0.8", "2.27", "newest"])
def test_other_levels_are_refused(text):
    with pytest.raises(NkiError, match=r"NKI-L051.*0\.2 \(Neuron 2\.28\)"):
        levels.read_level(text)


def test_the_newest_is_the_default():
    assert levels.current() == NEWEST == list(LEVELS)[-1]


@pytest.mark.parametrize("level", LEVELS)
def test_modules_have_the_names_of_the_level(at, level):
    at(level)
    for row in NAMES:
        if row.module in sys.modules:  # members of classes: test_level_changes
            assert (row.name in vars(sys.modules[row.module])) is row.at(level), row
        assert bool(levels.refusal(row.module, row.name)) is not row.at(level), row


def test_names_return_with_their_level(at):
    def names():
        holders = {"nki.language.tile_size": type(nl.tile_size), "nki.language.NkiTensor": NkiTensor}
        return {row: vars(holders.get(row.module) or sys.modules[row.module]).get(row.name) for row in NAMES}

    before = names()
    for level in LEVELS:
        at(level)
    assert names() == before


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f"{f.name}-{f.until}")
def test_signatures_follow_the_level(at, form):
    function = getattr(sys.modules[form.module], form.name)
    newest = inspect.signature(function)
    at(form.until)
    assert inspect.signature(function) == form.signature
    following = list(LEVELS)[list(LEVELS).index(form.until) + 1]
    at(following)
    if form.name != "tensor_reduce":  # the parameters stayed, the numbers of axes changed
        assert newest != form.signature != inspect.signature(function)
    at(NEWEST)
    assert inspect.signature(function) == newest


@pytest.mark.parametrize(
    "form", [f for f in FORMS if f.module == "nki.isa"], ids=lambda f: f"{f.name}-{f.until}"
)
def test_every_old_form_translates_to_parameters_that_exist(at, form):
    newest = inspect.signature(getattr(nisa, form.name)).parameters
    at(form.until)
    given = {name: p.default for name, p in form.signature.parameters.items() if p.default is not p.empty}
    required = {n for n, p in newest.items() if p.default is p.empty}
    given |= {name: object() for name in form.signature.parameters if name not in given or name in required}
    name, args, keywords = levels.translated("nki.isa", form.name, (), given)
    assert name == form.name and args == () and set(keywords) <= set(newest)
    assert required <= set(keywords)


def test_a_name_of_a_later_level(at):
    at("0.3")
    body = "    def body(i):\n        nl.load(x)\n    nl.fori_loop(0, 4, body)\n"
    ((code, message, help),) = codes(body)
    assert code == "NKI-L050" and "from 0.6 on" in message and "the API level is 0.3" in message
    assert "nl.dynamic_range" in help
    at(NEWEST)
    assert codes(body) == []


def test_a_name_of_an_earlier_level():
    ((code, message, help),) = codes("    nisa.tensor_copy_dynamic_src(x, x)\n")
    assert code == "NKI-L050" and "from 0.2 to 0.3" in message and "scalar_offset" in help
    ((code, message, _),) = codes("    t = nl.ndarray((nl.par_dim(128), 4), nl.float32)\n")
    assert code == "NKI-L050" and "at 0.2" in message


def test_a_parameter_of_another_level(at):
    ((code, message, help),) = codes("    nisa.dma_copy(dst=x, src=x, dst_rmw_op=nl.add)\n")
    assert code == "NKI-L050" and "up to 0.2" in message and "nisa.dma_compute" in help
    at("0.2")
    assert codes("    nisa.dma_copy(dst=x, src=x, dst_rmw_op=nl.add)\n") == []
    ((code, message, _),) = codes("    nisa.dma_copy(dst=x, src=x, priority=1)\n")
    assert code == "NKI-L050" and "after 0.2" in message


# --- kernels written for 0.2


@nki.jit
def kernel_of_0_2(x):
    tile = nl.ndarray((nl.par_dim(8), 16), dtype=nl.float32, buffer="sbuf")
    nisa.dma_copy(tile, x, oob_mode=0, dge_mode=3)
    nisa.dma_copy(tile, x, dst_rmw_op=nl.add)  # x + x
    masked = nl.ndarray((8, 16), dtype=nl.float32)
    nisa.affine_select(masked, [[1, 16]], -2, 1, tile, 0.0, nl.greater_equal)  # p + i - 2 >= 0
    index = nl.ndarray((8, 16), dtype=nl.int32)
    nisa.iota(index, [[1, 16]], 5)
    register = nisa.register_alloc()
    nisa.register_move(register, imm=42)
    one = nl.ndarray((1, 1), dtype=nl.int32)
    nisa.register_store(one, register)
    outs = []
    for made in (masked, index, one):
        out = nl.ndarray(made.shape, dtype=made.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(out, made)
        outs.append(out)
    return outs, nl.num_programs(), nl.program_id(0)


@nki.jit
def kernel_with_numbers(x, oob):
    tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(tile, x, dge_mode=3)
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(out, tile, oob_mode=0 if oob else nisa.oob_mode.error)
    return out


@pytest.mark.parametrize(
    ("level", "oob", "legal"),
    [
        ("0.2", True, True),
        ("0.3", False, True),
        ("0.3", True, False),
        ("0.4", False, False),
        (NEWEST, False, False),
    ],
)
def test_numbers_for_enumerations(at, level, oob, legal):
    """Refused from 0.3 on, but for the DGE mode, which the kernel library of 0.3 gives as a number."""
    at(level)
    x = np.ones((8, 16), np.float32)
    if legal:
        assert np.array_equal(kernel_with_numbers(x, oob), x)
    else:
        with pytest.raises(NkiError, match="NKI-V100.*_mode is int"):
            kernel_with_numbers(x, oob)


def test_a_kernel_of_0_2(at):
    at("0.2")
    x = np.arange(1, 129, dtype=np.float32).reshape(8, 16)
    (masked, index, one), programs, program = kernel_of_0_2(x)
    place = np.arange(8)[:, None] + np.arange(16)
    np.testing.assert_array_equal(masked, np.where(place >= 2, 2 * x, 0))
    np.testing.assert_array_equal(index, np.arange(5, 21) + 0 * index)
    assert (one[0, 0], programs, program) == (42, 1, 0)


def test_the_same_kernel_at_the_newest_level():
    with pytest.raises(NkiError) as refused:
        kernel_of_0_2(np.ones((8, 16), np.float32))
    found = {d.code for d in refused.value.diagnostics}
    assert "NKI-L050" in found


def test_programs_of_levels_are_kept_apart(at):
    @nki.jit
    def kernel(x):
        out = nl.ndarray((4, 4), dtype=nl.float32, buffer=nl.shared_hbm)
        tile = nl.ndarray((4, 4), dtype=nl.float32)
        nisa.dma_copy(tile, x)
        nisa.dma_copy(out, tile)
        return out

    x = np.ones((4, 4), np.float32)
    kernel(x)
    at("0.3")
    np.testing.assert_array_equal(kernel(x), x)


def test_comparisons_give_bool_at_0_2(at):
    @nki.jit
    def kernel(x):
        tile = nl.ndarray((4, 4), dtype=nl.float32)
        nisa.dma_copy(tile, x)
        found = nl.greater(tile, 0.0)
        out = nl.ndarray((4, 4), dtype=found.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(out, found)
        return out

    x = np.array([[-1, 0, 1, 2]] * 4, np.float32)
    assert kernel(x).dtype == np.float32
    at("0.2")
    result = kernel(x)
    assert result.dtype == np.bool_
    np.testing.assert_array_equal(result, x > 0)


@nki.jit
def transposed_statically(x, dst_shape):
    tile = nl.ndarray(dst_shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_transpose(tile, x.reshape((8, 1, 1, 4)), dge_mode=nisa.dge_mode.none)
    out = nl.ndarray(dst_shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(out, tile)
    return out


def test_a_transpose_leaves_out_sizes_of_1_before_0_4(at):
    x = np.arange(32, dtype=np.float32).reshape(8, 4)
    at("0.3")
    np.testing.assert_array_equal(transposed_statically(x, (4, 8)), x.T)
    at("0.4")
    with pytest.raises(NkiError) as refused:
        transposed_statically(x, (4, 8))
    assert {d.code for d in refused.value.diagnostics} == {"NKI-V103", "NKI-V113"}


@nki.jit
def quantized(x):
    tile = nl.ndarray((32, 4), dtype=nl.bfloat16, buffer=nl.sbuf)
    nisa.dma_copy(tile, x)
    codes = nl.ndarray((32, 1), dtype=nl.float8_e4m3fn_x4, buffer=nl.sbuf)
    scales = nl.ndarray((4, 1), dtype=nl.uint8, buffer=nl.sbuf)
    nisa.quantize_mx(codes, tile, scales)
    outs = []
    for made in (codes.view(nl.uint8), scales):
        out = nl.ndarray(made.shape, dtype=made.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(out, made)
        outs.append(out)
    return outs


@pytest.mark.parametrize(
    "level, code, value", [("0.3", 127 - 8, 256), ("0.5", 127 - 8, 256), ("0.6", 120, 128)]
)
def test_mx_scales_are_twice_as_large_from_0_6_on(at, monkeypatch, level, code, value):
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn3")
    at(level)
    codes, scales = quantized(np.ones((32, 4), ml_dtypes.bfloat16))
    assert (scales == code).all()
    assert (codes.view(ml_dtypes.float8_e4m3fn).astype(np.float32) == value).all()


def test_names_of_memories_are_no_texts_from_0_3_on():
    @nki.jit
    def kernel(x):
        nl.ndarray((4, 4), dtype=nl.float32, buffer="sbuf")

    with pytest.raises(NkiError, match=r"NKI-V122.*write nl\.sbuf"):
        kernel(np.ones((4, 4), np.float32))


def test_platform_target(at):
    def kernel(x):
        return x

    with pytest.raises(NkiError, match="NKI-L050.*platform_target.*NEURON_PLATFORM_TARGET_OVERRIDE"):
        nki.jit(kernel, platform_target="trn2")
    at("0.2")
    assert nki.jit(kernel, platform_target="trn2", mode="trace")


def test_arguments_that_do_not_fit_the_form(at):
    at("0.2")
    with pytest.raises(NkiError, match=r"NKI-L012.*at API level 0\.2 is register_move\(dst, imm\)"):
        levels.translated("nki.isa", "register_move", (1,), {})


def test_the_environment_chooses():
    code = "import nki, nki.language as nl; print(nki.levels.current(), hasattr(nl, 'load'))"
    environment = {**os.environ, "NKI_SIM_API": "2.28"}
    shown = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert shown.stdout == "0.2 False\n"
