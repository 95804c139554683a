"""Each change between API levels on both of its sides: what works there, and what the error says here."""

from functools import partial

import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
import nki.tensor as ntensor
from nki import levels
from nki.compiler.checker.check import check, check_text
from nki.compiler.specializer.specialize import specialize_call
from nki.levels import LEVELS, NAMES, NEWEST, NOTICES, TENSOR, TILE_SIZE, WHILE
from nki_isa.diagnostics import NkiError, Severity
from nki_isa.machine.targets import as_target

HEAD = "import nki\nimport nki.isa as nisa\nimport nki.language as nl\n\n@nki.jit\ndef kernel(x):\n"
X = np.arange(1, 17, dtype=np.float32).reshape(4, 4)


@pytest.fixture
def at():
    yield levels.use
    levels.use(NEWEST)


def told(level, line):
    """What the checker says of `line` at `level`."""
    levels.use(level)
    return [(d.code, d.message, d.help) for d in check_text(f"{HEAD}    {line}\n", "kernel.py")]


def refused(level, call):
    """The first diagnostic of `call` at `level`."""
    levels.use(level)
    with pytest.raises(NkiError) as found:
        call()
    return found.value.diagnostics[0]


@nki.jit
def sum_in_old_order(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_compute(out, [x, x], [1.0, 1.0], nl.add)
    return out


@nki.jit
def sum_in_new_order(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_compute(out, [x, x], nl.add, [1.0, 1.0])
    return out


def test_arguments_of_dma_compute(at):
    for level in LEVELS:
        works, fails = sum_in_old_order, sum_in_new_order
        if level != "0.2":
            works, fails = fails, works
        at(level)
        np.testing.assert_array_equal(works(X), 2 * X)
        found = refused(level, partial(fails, X))
        assert found.code == "NKI-V107"
        assert any(note.startswith(f"at API level {level} ") for note in found.notes)
        assert any("scales, reduce_op" in note for note in found.notes)
        assert any("reduce_op, scales" in note for note in found.notes)


def test_unique_indices_and_oob_mode_of_dma_compute(at):
    line = "nisa.dma_compute(x, [x, x], reduce_op=nl.add, scales=None, {}=None)"
    for keyword, since, before in (("unique_indices", "0.3", "0.2"), ("oob_mode", "0.4", "0.3")):
        ((code, message, help),) = told(before, line.format(keyword))
        assert code == "NKI-L050" and f"after {before}; the API level is {before}" in message
        assert help == f"leave {keyword}= out"
        assert told(since, line.format(keyword)) == []


def test_read_modify_write_of_dma_copy(at):
    @nki.jit
    def kernel(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(dst=out, src=x)
        nisa.dma_copy(dst=out, src=x, dst_rmw_op=nl.add)
        return out

    at("0.2")
    np.testing.assert_array_equal(kernel(X), 2 * X)
    found = refused("0.3", lambda: kernel(X))
    assert (found.code, found.help) == ("NKI-L050", "call nisa.dma_compute(dst, [dst, src], reduce_op=...)")
    assert "'dst_rmw_op' up to 0.2; the API level is 0.3" in found.message


def test_source_of_register_move(at):
    @nki.jit
    def by_imm():
        register = nisa.register_alloc()
        nisa.register_move(register, imm=42)
        return stored(register)

    @nki.jit
    def by_src():
        register, other = nisa.register_alloc(41), nisa.register_alloc()
        nisa.register_move(other, src=register)
        return stored(other)

    def stored(register):
        tile = nl.ndarray((1, 1), dtype=nl.int32, buffer=nl.sbuf)
        nisa.register_store(tile, register)
        out = nl.ndarray((1, 1), dtype=nl.int32, buffer=nl.shared_hbm)
        nisa.dma_copy(out, tile)
        return out

    at("0.2")
    assert by_imm() == 42
    assert refused("0.2", by_src).message.startswith("register_move has the parameter 'src' after 0.2")
    at("0.3")
    assert by_src() == 41
    found = refused("0.3", by_imm)
    assert (found.code, found.help) == ("NKI-L050", "write src=")
    assert len(told("0.3", "nisa.register_move(x, imm=1)")) == 1  # not also that src is missing


@nki.jit
def select_in_old_order(x):
    tile, out = loaded(x), nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.affine_select(out, [[1, 4]], -2, 1, tile, 0.0, nl.greater_equal)
    return stored(out)


@nki.jit
def select_in_new_order(x):
    tile, out = loaded(x), nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.affine_select(out, [[1, 4]], 1, tile, 0.0, nl.greater_equal, -2)
    return stored(out)


def loaded(x):
    tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(tile, x)
    return tile


def stored(tile):
    out = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(out, tile)
    return out


def test_offset_of_affine_select(at):
    kept = np.arange(4)[:, None] + np.arange(4) >= 2
    for level, works, fails in (
        ("0.2", select_in_old_order, select_in_new_order),
        ("0.3", select_in_new_order, select_in_old_order),
    ):
        at(level)
        np.testing.assert_array_equal(works(X), np.where(kept, X, 0))
        found = refused(level, partial(fails, X))
        assert any(note.startswith(f"at API level {level} the parameters") for note in found.notes)
        assert any("on_false_value, cmp_op, offset" in note for note in found.notes)


@nki.jit
def selected_by_keywords(x):
    tile = loaded(x)
    nisa.affine_select(
        dst=tile,
        pattern=[[1, 4]],
        channel_multiplier=-1,
        cmp_op=nl.equal,
        on_true_tile=tile,
        on_false_value=0.0,
    )
    return stored(tile)


@nki.jit
def selected_from_nothing(x):
    tile = loaded(x)
    nisa.affine_select(dst=tile, pattern=[[1, 4]], channel_multiplier=-1, on_false_value=0.0)
    return stored(tile)


@pytest.mark.parametrize("level", LEVELS)
def test_affine_select_without_an_offset(at, level):
    """The stub of 0.2 has no default; the kernel library of that release leaves the offset out."""
    at(level)
    np.testing.assert_array_equal(selected_by_keywords(X), X * np.eye(4))
    with pytest.raises(NkiError) as caught:
        selected_from_nothing(X)
    assert caught.value.diagnostics[0].code == "NKI-L012"
    assert "missing required argument on_true_tile" in caught.value.diagnostics[0].message


@nki.jit
def numbers_without_an_offset():
    tile = nl.ndarray((4, 8), dtype=nl.int32, buffer=nl.sbuf)
    nisa.iota(tile, [[1, 8]])
    return stored(tile)


@nki.jit
def numbers_from_three():
    tile = nl.ndarray((4, 8), dtype=nl.int32, buffer=nl.sbuf)
    nisa.iota(tile, [[1, 8]], 3)
    return stored(tile)


def test_offset_of_iota(at):
    """The stub of 0.2 has no default; the kernel library of that release leaves the offset out."""
    for level in LEVELS:
        at(level)
        np.testing.assert_array_equal(numbers_from_three()[0], np.arange(3, 11))
        np.testing.assert_array_equal(numbers_without_an_offset()[0], np.arange(8))


@nki.jit
def sums(x, axis, kept):
    tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(tile, x)
    result = nl.ndarray((x.shape[0], kept), dtype=x.dtype, buffer=nl.sbuf)
    nisa.tensor_reduce(result, nl.add, tile, axis)
    return stored(result)


CUBE = np.arange(24, dtype=np.float32).reshape(4, 2, 3)


LAST, ALL = CUBE.sum(2), CUBE.sum((1, 2))[:, None]


@pytest.mark.parametrize(
    ("axis", "expected"),
    [(1, LAST), ([1], LAST), ([4], LAST), (2, LAST), ([1, 2], ALL), ([3, 4], ALL), ((1, 2), ALL)],
)
def test_axes_of_a_reduction_at_0_2_are_the_last_ones(at, axis, expected):
    at("0.2")
    np.testing.assert_array_equal(sums(CUBE, axis, expected.shape[1]), expected)


@pytest.mark.parametrize("axis", [1, (4,), (3, 4)])
def test_axes_of_a_reduction_count_the_dimensions_from_0_3_on(at, axis):
    assert refused("0.3", partial(sums, CUBE, axis, 2)).code == "NKI-V111"
    at("0.3")
    np.testing.assert_array_equal(sums(CUBE, 2, 2), LAST)


@nki.jit
def copied_from_a_place(x, place):
    tile, register = loaded(x), nisa.register_alloc()
    nisa.register_load(register, loaded(place))
    out = nl.ndarray((4, 2), dtype=x.dtype, buffer=nl.sbuf)
    part = tile.ap([[4, 4], [1, 2]], scalar_offset=register, indirect_dim=1)
    nisa.tensor_copy_dynamic_src(dst=out, src=part)
    back = nl.ndarray((4, 4), dtype=x.dtype, buffer=nl.sbuf)
    nisa.memset(back, 0.0)
    nisa.tensor_copy_dynamic_dst(back.ap([[4, 4], [1, 2]], scalar_offset=register, indirect_dim=1), out)
    return stored(back)


@pytest.mark.parametrize("level", LEVELS)
def test_copies_at_a_run_time_place(at, level):
    place = np.array([[1]], np.int32)
    if level in ("0.2", "0.3"):
        at(level)
        expected = X.copy()
        expected[:, [0, 3]] = 0
        np.testing.assert_array_equal(copied_from_a_place(X, place), expected)
        return
    found = refused(level, lambda: copied_from_a_place(X, place))
    assert found.code == "NKI-L050"
    assert f"exists from 0.2 to 0.3; the API level is {level}" in found.message
    assert found.help == "write nisa.tensor_copy with a view t.ap(pattern=..., scalar_offset=register)"


def test_the_copy_that_replaces_them(at):
    @nki.jit
    def kernel(x, place):
        tile, register = loaded(x), nisa.register_alloc()
        nisa.register_load(register, loaded(place))
        out = nl.ndarray((4, 2), dtype=x.dtype, buffer=nl.sbuf)
        nisa.tensor_copy(out, tile.ap([[4, 4], [1, 2]], scalar_offset=register, indirect_dim=1))
        return stored(out)

    for level in LEVELS:
        at(level)
        np.testing.assert_array_equal(kernel(X, np.array([[1]], np.int32)), X[:, 1:3])


@nki.jit
def constants_of_0_2():
    identity = nl.shared_constant(ntensor.identity(4, dtype=nl.int8))
    numbers = nl.shared_constant(ntensor.arange(0, 8, 2, dtype=nl.int32), dtype=nl.float32)
    ones = nl.shared_constant(ntensor.zeros((2, 3), dtype=nl.int8) + 1, dtype=nl.int16)
    return identity, numbers, ones


def test_arrays_of_nki_tensor(at):
    at("0.2")
    identity, numbers, ones = constants_of_0_2()
    np.testing.assert_array_equal(identity, np.eye(4, dtype=np.int8), strict=True)
    np.testing.assert_array_equal(numbers, np.float32([0, 2, 4, 6]), strict=True)
    np.testing.assert_array_equal(ones, np.ones((2, 3), np.int16), strict=True)
    assert refused("0.3", constants_of_0_2).code == "NKI-L050"


def test_dtype_of_shared_constant(at):
    @nki.jit
    def kernel():
        return nl.shared_constant(np.full((2, 2), 1.5, np.float32), dtype=nl.bfloat16)

    at("0.2")
    assert str(kernel().dtype) == "bfloat16" and (kernel() == 1.5).all()
    found = refused("0.3", kernel)
    assert (found.code, found.help) == ("NKI-L050", "convert the array first: constant.astype(...)")


def test_default_buffers_and_ids_are_the_same_on_both_sides(at):
    @nki.jit
    def kernel(x):
        tile = nl.ndarray(x.shape, x.dtype)
        nisa.dma_copy(tile, x)
        return tile.buffer == nl.sbuf, nl.program_id(0), nl.num_programs(), stored(tile)

    for level in LEVELS:
        at(level)
        assert kernel(X)[:3] == (True, 0, 1)
    ((code, _, _),) = told("0.2", "nl.program_id()")
    assert code == "NKI-L012"
    assert told("0.3", "nl.program_id()") == []


# --- members of classes

MEMBERS = [row for row in NAMES if row.module in (TILE_SIZE, TENSOR)]
USES = {
    "data": "hbm.data",
    "slice": "t.slice(2, 0, 2)",
    "select": "t.select(1, 0)",
    "permute": "t.permute((0, 2, 1))",
    "broadcast": "t.broadcast(1, 2)",
    "expand_dim": "t.expand_dim(1)",
    "squeeze_dim": "t.squeeze_dim(1)",
    "reshape_dim": "t.reshape_dim(2, (2, 2))",
    "flatten_dims": "t.flatten_dims(1, 2)",
    "rearrange": "t.rearrange(('p', 'a', 'b'), ('p', 'b', 'a'))",
    "vector_select": "hbm.vector_select(0, rows)",
    "indirect": "t.indirect(rows)",
    "is_contiguous": "t.is_contiguous()",
    "is_indirect": "t.is_indirect()",
}
KERNEL = """
import nki
import nki.language as nl

@nki.jit
def kernel(x):
    t = nl.ndarray((16, 1, 4), dtype=nl.float32, buffer=nl.sbuf)
    hbm = nl.ndarray((16, 4), dtype=nl.float32, buffer=nl.private_hbm)
    rows = nl.ndarray((16, 1), dtype=nl.uint32, buffer=nl.sbuf)
    found = {}
"""


def a_kernel(expression, tmp_path):
    path = tmp_path / "uses.py"
    text = KERNEL.format(expression)
    path.write_text(text)
    names = {"__name__": "uses", "__file__": str(path)}
    exec(compile(text, str(path), "exec"), names)
    return names["kernel"]


def test_the_table_names_members_that_exist():
    assert {row.name for row in MEMBERS if row.module == TENSOR} == set(USES)
    assert all(hasattr(nl.NkiTensor, name) for name in USES)
    assert all(isinstance(getattr(nl.tile_size, row.name), int) for row in MEMBERS if row.module == TILE_SIZE)


@pytest.mark.parametrize("row", MEMBERS, ids=lambda row: row.name)
def test_members_of_later_levels(at, row, tmp_path, monkeypatch):
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn3")
    kernel = a_kernel(USES.get(row.name, f"nl.tile_size.{row.name}"), tmp_path)
    before = list(LEVELS)[list(LEVELS).index(row.since) - 1]
    found = refused(before, lambda: kernel(X))
    assert (found.code, found.help) == ("NKI-L050", row.instead)
    assert f"exists from {row.since} on; the API level is {before}" in found.message
    assert found.span.line == 10
    at(row.since)
    kernel(X)


def test_what_stands_for_sizes_is_the_same_number(at):
    size = nl.tile_size
    assert size.psum_fmax == size.psum_bank_fmax and size.psum_bank_fmax_bytes == 2048
    assert size.total_available_sbuf_size == size.sbuf_fmax_bytes == 4 * size.sbuf_fmax
    assert size.sbuf_size_bytes % 128 == 0 and size.sbuf_size_bytes // 128 >= size.sbuf_fmax_bytes
    assert size.psum_num_banks == 8


def test_this_project_uses_all_members_at_every_level(at):
    """What nl.* functions are made of is not kernel code."""

    @nki.jit
    def kernel(x):
        tile = nl.load(x)
        return nl.store(nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm), nl.softmax(tile, axis=1))

    at("0.3")
    np.testing.assert_allclose(kernel(X).sum(1), 1, rtol=1e-5)


# --- deprecated names


NAMED = [row for row in NOTICES if row.name not in (None, WHILE)]


@pytest.mark.parametrize("row", NAMED, ids=lambda row: row.name[1])
def test_deprecated_names_are_noted_from_their_level_on(at, row):
    module, name = row.name
    short = {TILE_SIZE: "nl.tile_size", "nki.language": "nl", "nki.isa": "nisa"}[module]
    line = f"{short}.{name}" if module == TILE_SIZE else f"{short}.{name}(x, x)"
    before = list(LEVELS)[list(LEVELS).index(row.level) - 1]
    assert told(before, f"a = {line}") == []
    ((code, message, help),) = told(row.level, f"a = {line}")
    assert (code, help) == ("NKI-L056", f"write {row.instead}")
    assert f"deprecated since {row.level}" in message


def test_a_deprecated_name_stops_nothing(at):
    @nki.jit
    def kernel(x):
        assert nl.tile_size.psum_fmax == 512
        return x

    kernel(X)
    (found,) = check_text(f"{HEAD}    a = nl.tile_size.psum_fmax\n", "kernel.py")
    assert found.severity is Severity.note


RANGES = "affine_range", "sequential_range", "static_range", "dynamic_range"


@pytest.mark.parametrize("name", RANGES)
def test_a_deprecated_loop_is_a_warning(name, at):
    at("0.6")
    lines = f"    for i in nl.{name}(4):\n        pass\n    for i in nl.{name}(2):\n        pass\n"
    found = check_text(HEAD + lines, "kernel.py")
    assert [(d.code, d.severity) for d in found] == [("NKI-L056", Severity.warning)] * 2


@nki.jit
def counts_down(x):
    for _ in range(2):
        left = nisa.register_alloc(2)
        count = nl.zeros((1, 1), dtype=nl.int32, buffer=nl.sbuf)
        while left:
            nisa.register_load(left, count)
    return x


def test_a_while_on_a_register_is_a_warning_once_from_0_6_on(at):
    def told():
        return [
            (d.code, d.severity, d.span.line)
            for d in specialize_call(counts_down, (X,), {}, target=as_target("trn2")).diagnostics
        ]

    line = counts_down.function.__code__.co_firstlineno + 5
    at("0.6")
    assert told() == [("NKI-L056", Severity.warning, line)]
    at("0.5")
    assert told() == []


@nki.jit
def halves_in_hbm(x):
    """Each core writes its half of a result allocated as nl.hbm."""
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.hbm)
    mine = nl.ds(nl.program_id(0) * 4, 4)
    tile = nl.ndarray((4, 8), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(tile, x[mine, :])
    nisa.dma_copy(result[mine, :], tile)
    return result


def test_results_in_hbm_belong_to_both_cores_at_0_2(at):
    x = np.arange(64, dtype=np.float32).reshape(8, 8)
    at("0.2")
    np.testing.assert_array_equal(halves_in_hbm[2](x), x)


@nki.jit
def argument_in(x, region):
    """Compares where an argument is."""
    assert x.buffer == region
    return x


def test_arguments_are_in_hbm_at_0_2(at):
    at("0.2")
    argument_in(X, nl.hbm)
    at("0.3")
    argument_in(X, nl.shared_hbm)


def keywords(x, *, twice):
    return x if twice is None else [x, x]


@nki.jit
def kernel_of_keywords(x):
    return keywords(x, twice=True)


def test_keyword_only_parameters_left_the_language_at_0_3(at):
    at("0.2")
    assert len(kernel_of_keywords(X)) == 2
    assert check(kernel_of_keywords, "strict") == []
    assert refused("0.3", partial(kernel_of_keywords, X)).code == "NKI-L005"
    assert {d.code for d in check(kernel_of_keywords, "strict")} == {"NKI-L005"}
