"""What numpy, torch and math write: each is refused with the line to write, and that line is accepted."""

import importlib.util
import math
import re

import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki import runtime
from nki.compiler import specialize
from nki_isa.diagnostics import NkiError, Severity
from nki_isa.tensor.idioms import IDIOMS

KERNEL = """
import nki
import nki.isa as nisa
import nki.language as nl


@nki.jit
def {name}(x, bits):
    t = nl.load(x)
    other = nl.load(x)
    {mask}
    row = nl.load(x[0:1, :])
    column = nl.ndarray((128, 1), dtype=x.dtype, buffer=nl.sbuf)
    whole = nl.ndarray((128, 256), dtype=x.dtype, buffer=nl.sbuf)
    best = nl.ndarray((128, 8), dtype=x.dtype, buffer=nl.sbuf)
    at = nl.ndarray((128, 8), dtype=nl.uint32, buffer=nl.sbuf)
    places = nl.ndarray((128, 128), dtype=nl.uint32, buffer=nl.sbuf)
    a = nl.load(x)
    b = nl.load(x)
    product = nl.ndarray((128, 128), dtype=nl.float32, buffer=nl.psum)
    {line}
    return x
"""
BITS = re.compile(r"bitwise|_shift|invert")
REMARKED = re.compile(r"nisa\.\w+\(dst=(?:other|column).*\)")
LINES = {line for line, _ in IDIOMS.values()} | {
    found for _, remark in IDIOMS.values() for found in REMARKED.findall(remark)
}
X, BITS_OF = np.ones((128, 128), np.float32), np.ones((128, 128), np.int32)


def module_of(tmp_path, text):
    """A kernel's source text as a module."""
    (tmp_path / "kernels.py").write_text(text)
    spec = importlib.util.spec_from_file_location("kernels", tmp_path / "kernels.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_line_of_the_table_is_accepted(tmp_path):
    text = ""
    for k, line in enumerate(sorted(LINES)):
        statements = line.replace("; ", "\n    ")
        mask = "mask = nl.greater(t, 0.0)"
        if BITS.search(line):
            mask = "t, other = nl.load(bits), nl.load(bits)"
        text += KERNEL.format(name=f"k{k}", line=statements, mask=mask)
    module = module_of(tmp_path, text)
    refused = {}
    for k, line in enumerate(sorted(LINES)):
        try:
            specialize(getattr(module, f"k{k}"), X, BITS_OF)
        except NkiError as found:
            refused[line] = str(found)
    assert not refused


def told(line, **names):
    """The diagnostics of a kernel that does `line`, an expression of the tile `t`."""
    with pytest.raises(NkiError) as found:
        specialize(nki.jit(line), X)
    return found.value.diagnostics


def exp(x):
    return np.exp(nl.load(x))


def total(x):
    return np.sum(nl.load(x), axis=1)


def added(x):
    return np.ones(3) + nl.load(x)


def joined(x):
    return np.concatenate([nl.load(x), nl.load(x)])


def turned(x):
    return nl.load(x).T


def cast(x):
    return nl.load(x).astype(nl.bfloat16)


def to(x):
    return nl.load(x).to(nl.bfloat16)


def method(x):
    return nl.load(x).sum(axis=1)


def unsqueezed(x):
    return nl.load(x).unsqueeze(1)


def root(x):
    return math.sqrt(nl.load(x))


def newaxis(x):
    return nl.load(x)[:, None, :]


def branch(x):
    t = nl.load(x)
    if t[0, 0] > 0:
        return t
    return x


def dot(x):
    return nl.dot(nl.load(x), nl.load(x))


def sizes(x):
    return nl.load(x).size()


def array(x):
    return np.array(nl.load(x))


def number(x):
    return np.float32(nl.load(x))


def reshaped(x):
    return np.reshape(nl.load(x), (64, 256))


def sine(x):
    return math.sin(nl.load(x))


def rounded(x):
    return round(nl.load(x))


def divided(x):
    return divmod(nl.load(x), 2)


def formatted(x):
    return f"{nl.load(x):.2f}"


def larger(x):
    return max(nl.load(x), nl.load(x))


def summed(x):
    return sum(nl.load(x))


def zeroed(x):
    return nl.load(x).zero_()


@pytest.mark.parametrize(
    "line, words",
    [
        (array, ["nl.copy(t, dtype="]),
        (number, ["nisa.tensor_copy"]),
        (reshaped, ["t.reshape("]),
        (sine, ["nl.sin(t)"]),
        (rounded, ["nl.floor(nl.add(t, 0.5))"]),
        (divided, ["nisa.reciprocal"]),
        (formatted, ["nl.device_print"]),
        (larger, ["nl.maximum"]),
        (summed, ["nl.sum(t, axis=1)"]),
        (zeroed, ["nisa.memset(dst=t, value=0.0)"]),
        (exp, ["nl.exp(t)"]),
        (total, ["nl.sum(t, axis=1)", "nisa.tensor_reduce"]),
        (added, ["nl.add(t, other)"]),
        (joined, ["nisa.tensor_copy(dst=whole"]),
        (turned, ["nl.transpose(t)", "nisa.dma_transpose"]),
        (cast, ["nl.copy(t, dtype="]),
        (to, ["nl.copy(t, dtype=", "nisa.tensor_copy"]),
        (method, ["nl.sum(t, axis=1)"]),
        (unsqueezed, ["t.expand_dim(1)"]),
        (root, ["nl.sqrt(t)"]),
        (newaxis, ["t.expand_dim(1)"]),
        (branch, ["nl.where", "nisa.register_load"]),
        (dot, ["nisa.nc_matmul"]),
        (sizes, ["t.shape"]),
    ],
)
def test_the_line_to_write_is_named(line, words):
    help = told(line)[0].help
    assert all(word in help for word in words), help


def test_an_array_never_equals_a_tensor():
    @nki.jit
    def kernel(x):
        assert (np.float32(1.0) == x) is False
        assert (np.float32(1.0) != x) is True
        return x

    specialize(kernel, X)


def test_a_comparison_with_a_number_is_warned_of():
    @nki.jit
    def kernel(x):
        t = nl.load(x)
        assert t != 0 and t != 1.0 and t not in (2, 3) and t is not None
        return x

    with runtime.session() as ran:
        kernel(X)
    found = [d for d in ran.launches[0].diagnostics if d.code == "NKI-V031"]
    assert [re.findall("comparison with (.*), which is False", d.message)[0] for d in found] == [
        "0",
        "1.0",
        "2",
    ]
    assert all(d.severity is Severity.warning and "op=nl.equal" in d.help for d in found)


def test_a_tensor_in_text_is_its_name_and_shape():
    @nki.jit
    def kernel(x):
        tile = nl.load(x)
        assert f"{tile}" == str(tile) and "[128, 128]" in f"{tile}"
        return x

    specialize(kernel, X)


@pytest.mark.parametrize(
    "written, meant",
    [
        ("nl.float64", "nl.float32"),
        ("nl.half", "nl.float16"),
        ("nl.bf16", "nl.bfloat16"),
        ("nl.empty((4, 8))", "nl.ndarray(shape"),
        ("nl.pi", "math.pi"),
        ("nl.inf", "float('inf')"),
        ("nl.dram", "nl.shared_hbm"),
        ("nl.reshape(t, (64, 256))", "t.reshape("),
        ("nisa.dma_start(t, x)", "nisa.dma_copy"),
        ("nisa.transpose(t, t)", "nisa.nc_transpose"),
        ("nisa.engine.pool", "nisa.engine.gpsimd"),
        ("nisa.engine.PE", "nisa.engine.tensor"),
        ("nl.copy(t, dtype=np.float64)", "nl.float32"),
        ("nl.copy(t, dtype='fp16')", "nl.float16"),
        ("nl.copy(t, t)", "return their result"),
        ("nl.ndarray(128, 512, nl.float32)", "in parentheses"),
        ("t.dtype.name", "str(t.dtype)"),
    ],
)
def test_names_of_elsewhere(tmp_path, written, meant):
    head = "import numpy as np\nimport nki\nimport nki.isa as nisa\nimport nki.language as nl\n\n\n"
    text = f"{head}@nki.jit\ndef kernel(x):\n    t = nl.load(x)\n    other = {written}\n    return x\n"
    with pytest.raises(NkiError) as found:
        specialize(module_of(tmp_path, text).kernel, X)
    assert meant in found.value.diagnostics[0].help


def test_functions_of_torch():
    torch = pytest.importorskip("torch")

    def kernel(x):
        return torch.exp(nl.load(x))

    assert "nl.exp(t)" in told(kernel)[0].help


# --- instructions: what one slips into, and what the help says to write


def operators(x):
    t = nl.load(x)
    nisa.tensor_scalar(dst=t, data=t, op0=nl.exp, operand0=1.0)
    return x


def one_row(x):
    t = nl.load(x)
    nisa.tensor_tensor(dst=t, data1=t, data2=nl.load(x[0:1, :]), op=nl.add)
    return x


def exchanged(x):
    out = nl.ndarray((64, 128), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(dst=out, stationary=nl.load(x), moving=nl.load(x[:, 0:64]))
    return x


def added_by_activation(x):
    t = nl.load(x)
    nisa.activation(dst=t, op=nl.add, data=t)
    return x


def bank(x):
    nl.ndarray((4, 8), dtype=nl.float32, buffer=nl.psum, address=(0, 8 * 2048))
    return x


def third(x):
    return nl.load(x).reshape((128, 128 // 3, 3))


@pytest.mark.parametrize(
    "line, word",
    [
        (operators, "nisa.activation(dst=..., op=nl.exp, data=...)"),
        (one_row, "nl.broadcast_to(data2, shape)"),
        (exchanged, "exchange stationary and moving"),
        (third, "product is 16384"),
        (added_by_activation, "nisa.tensor_tensor(dst=..., data1=..., data2=..., op=nl.add)"),
    ],
)
def test_a_slip_in_an_instruction(line, word):
    assert word in told(line)[0].help


def right(x):
    t = nl.load(x)
    nisa.activation(dst=t, op=nl.exp, data=t)
    nisa.tensor_tensor(dst=t, data1=t, data2=nl.broadcast_to(nl.load(x[0:1, :]), t.shape), op=nl.add)
    out = nl.ndarray((64, 128), dtype=nl.float32, buffer=nl.psum, address=(0, 14336))
    nisa.nc_matmul(dst=out, stationary=nl.load(x[:, 0:64]), moving=nl.load(x))
    row = nl.ndarray((128, 128), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=row, src=x[0:1, :].broadcast(0, 128))
    return x


def test_what_these_helps_say_is_accepted():
    specialize(nki.jit(right), X)


def test_the_last_bank_is_named():
    with pytest.raises(NkiError) as found:
        nki.jit(bank)(X)
    assert "byte 14336" in found.value.diagnostics[0].help


@pytest.mark.api("0.6")
@pytest.mark.parametrize(
    "given, wanted", [(np.int64, "np.int32"), (np.uint64, "np.uint32"), (np.float64, "np.float32")]
)
def test_wide_arrays(given, wanted):
    with pytest.raises(NkiError) as found:
        nki.jit(bank)(np.zeros((4, 8), given))
    assert f"x.astype({wanted})" in found.value.diagnostics[0].help
