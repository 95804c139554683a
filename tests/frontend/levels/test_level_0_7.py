"""What NKI 0.7 added, changed and removed: each rule with a case that keeps to it and one that does not.

The rules that no page states are in :data:`nki.levels.INFERRED`, each with the name of its test here.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from both_front_ends import front_end

import nki
import nki.isa as nisa
import nki.language as nl
from nki import levels
from nki.compiler import specialize
from nki.compiler.language.frontends import FrontEnd
from nki.compiler.specializer.specialize import specialize_call
from nki.runtime import session
from nki_isa.diagnostics import NkiError
from nki_isa.ir.program import Loop
from nki_isa.machine.targets import as_target
from nki_isa.text.parser import parse_program
from nki_isa.text.printer import format_program

before = levels.use("0.7")  # names below are taken from the modules while the tests are read
tiles, blocks, alloc_tiles, alloc_blocks = nl.tiles, nl.blocks, nl.alloc_tiles, nl.alloc_blocks
int64, uint64 = nl.int64, nl.uint64
scalar_load, scalar_store, NkiScalar = nisa.scalar_load, nisa.scalar_store, nisa.NkiScalar
CompileConfig, SpecializationConfig = nki.compiler.CompileConfig, nki.compiler.SpecializationConfig
AddressRotation = nki.compiler.AddressRotation

SOURCE = np.arange(300 * 600, dtype=np.float32).reshape(300, 600)
X = np.arange(8 * 64, dtype=np.float32).reshape(8, 64)


@pytest.fixture(autouse=True, params=["auto", "tracer"])
def at_0_7(request):
    level = levels.use("0.7")
    with front_end(request.param):
        yield
    levels.use(level)


def inside(body, *arrays):
    """What `body` returns while a kernel is specialized."""
    found = []

    @nki.jit
    def kernel(*tensors):
        found.append(body(*tensors))

    with front_end(FrontEnd.tracer):
        specialize(kernel, *arrays)
    return found[0]


def refused(code, body, *arrays, kind=NkiError):
    """The diagnostics of a kernel that is refused with `code`."""
    with pytest.raises(NkiError) as caught:
        inside(body, *arrays)
    assert {d.code for d in caught.value.diagnostics} == {code}
    assert all(d.help for d in caught.value.diagnostics)
    cause = caught.value.__cause__ or caught.value
    assert isinstance(cause, kind), type(cause)
    return caught.value.diagnostics


# --- the names


SIGNATURES = {
    "nl.tiles": "(source, *, tile_shape=None)",
    "nl.blocks": "(source, *, tile_shape=None, block_shape)",
    "nl.alloc_tiles": "(*, tile_shape, element_shape, buffer, dtype, address=None, name='')",
    "nl.alloc_blocks": "(*, tile_shape, block_shape, element_shape, buffer, dtype, address=None, name='')",
    "nl.NkiGrid": "(**kwargs)",
    "nl.NkiTileGrid": "(**kwargs)",
    "nl.NkiBlockGrid": "(**kwargs)",
    "nl.fori_loop": "(lower, upper, body_fun, step=1)",
    "nl.while_loop": "(init, body_fun)",
    "nisa.NkiScalar": "(state, dtype=None, is_comparison=False)",
    "nisa.scalar_load": "(src)",
    "nisa.scalar_store": "(dst, value)",
    "nki.collectives.all_to_all_v_prepare": "(srcs, dsts, replica_group, metadata_tensor, "
    "recv_counts_known=False, has_rdispls=False, priority=None, name=None)",
    "nki.collectives.all_gather_v_prepare": "(srcs, dsts, replica_group, metadata_tensor, "
    "recv_counts_known=False, has_rdispls=False, priority=None, name=None)",
    "nki.collectives.all_to_all_v_trigger": "(prepare_instr, name=None)",
    "nki.collectives.all_gather_v_trigger": "(prepare_instr, name=None)",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_names_and_their_signatures(name):
    found: Any = {"nl": nl, "nisa": nisa, "nki": nki}[name.split(".")[0]]
    for part in name.split(".")[1:]:
        found = getattr(found, part)
    signature = inspect.signature(found)
    plain = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    assert str(inspect.Signature(plain)) == SIGNATURES[name]


GONE = ["nl.tiles", "nl.int64", "nisa.NkiScalar", "nisa.scalar_load", "nki.compiler.CompileConfig"]


@pytest.mark.parametrize("name", GONE)
def test_older_levels_lack_them(name):
    levels.use("0.6")
    module, _, last = name.rpartition(".")
    module = {"nl": "nki.language", "nisa": "nki.isa"}.get(module, module)
    told = levels.refusal(module, last)
    assert told is not None and told.code == "NKI-L050" and told.help


def test_every_inferred_rule_has_its_test():
    names = set(globals())
    assert {test for _, test in levels.INFERRED} <= names
    page = (Path(__file__).parents[3] / "docs" / "migration.md").read_text()
    assert all(rule in page for rule, _ in levels.INFERRED)


# --- grids


def test_tiles_of_a_tensor():
    g = inside(lambda src: tiles(src, tile_shape=(128, 256)), SOURCE)
    assert (g.shape, g.tile_shape, g.element_shape) == ((3, 3), (128, 256), (300, 600))
    assert (g.index_step_elements, g.dtype, g.buffer) == ((128, 256), nl.float32, nl.shared_hbm)
    assert isinstance(g[0, :], type(g)) and g[0, :].shape == (3,) and g[0, 0].shape == ()


@pytest.mark.parametrize("size, cells", [(256, 2), (257, 3), (300, 3), (1, 1), (128, 1)])
def test_cells_are_counted_up(size, cells):
    source = np.zeros((size, 4), np.float32)
    assert inside(lambda src: tiles(src, tile_shape=(128, 4)).shape, source) == (cells, 1)


def test_boundary_cells_are_clamped():
    g = inside(lambda src: tiles(src, tile_shape=(128, 256)), SOURCE)
    assert g[2, 2].element_shape == (44, 88) and g[2, :].element_shape == (44, 600)
    assert g[2, 2].data.shape == (44, 88)


def test_remainder():
    g = inside(lambda src: tiles(src, tile_shape=(128, 256)), SOURCE)
    assert g.is_remainder and g[2, 2].is_remainder and g[:, 2].is_remainder
    assert not g[0, 0].is_remainder and not g[0:2, 0:2].is_remainder


def test_blocks_and_their_tiles():
    b = inside(lambda src: blocks(src, tile_shape=(128, 256), block_shape=(2, 2)), SOURCE)
    assert (b.shape, b.block_shape, b.tile_shape) == ((2, 2), (2, 2), (128, 256))
    assert b.index_step_elements == (256, 512) and b[0, 1].element_shape == (256, 88)
    inner = tiles(b[0, 1])
    assert inner.shape == (2, 1) and inner[1, 0].data.get_pattern() == [[600, 128], [1, 88]]
    assert inner[1, 0].data.offset == 128 * 600 + 512
    assert tiles(b[0, 0], tile_shape=(64, 64)).shape == (4, 8)


def test_slabs():
    source = np.zeros((4, 300, 600), np.float32)
    g = inside(lambda src: tiles(src, tile_shape=(128, 256)), source)
    assert g.shape == (4, 3, 3) and g[1, 0, 0].element_shape == (1, 128, 256)
    assert g[1, 0, 0].data.shape == (128, 256) and g[1, 0, 0].data.offset == 300 * 600
    assert g[1:3, 0, 0].data.shape == (2, 128, 256)


def packed(**options):
    given = {"tile_shape": (128, 256), "element_shape": (300, 600), "buffer": nl.sbuf, "dtype": nl.float32}
    return alloc_tiles(**{**given, **options})


def test_packed():
    s = inside(packed)
    assert (s.shape, s.tile_shape, s.element_shape) == ((3, 3), (128, 256), (300, 600))
    assert s[0, 0].data.storage.shape == (128, 9 * 256)
    assert s[1, 2].data.offset == 5 * 256 and s[2, 2].data.shape == (44, 88)
    assert s[1, :].data.shape == (128, 600) and s[1, 0:2].is_data_representable
    assert inside(lambda: packed(buffer=nl.shared_hbm)).data.shape == (300, 600)
    three = inside(lambda: packed(tile_shape=(128, 2, 64), element_shape=(300, 5, 64)))
    assert three.shape == (3, 3, 1) and three[0, 2, 0].data.shape == (128, 1, 64)
    assert three[1, :, 0].data.get_pattern() == [[9 * 128, 128], [64, 5], [1, 64]]


def test_no_one_pattern():
    s = inside(packed)
    assert not s[:, 0].is_data_representable and s[0:1, 0].is_data_representable
    refused("NKI-V152", lambda: packed()[:, 0].data)
    three = inside(lambda: packed(tile_shape=(128, 2, 64), element_shape=(128, 4, 128)))
    assert not three.is_data_representable


def test_blocks_are_stored_as_tiles():
    made = inside(
        lambda: alloc_blocks(
            tile_shape=(128, 256),
            block_shape=(2, 2),
            element_shape=(300, 600),
            buffer=nl.sbuf,
            dtype=nl.float32,
        )
    )
    assert made.shape == (2, 2) and tiles(made[1, 1]).shape == (1, 1)
    assert tiles(made[1, 1])[0, 0].data.offset == 8 * 256
    refused("NKI-V150", lambda: blocks(packed(), block_shape=(2,)), kind=ValueError)


def test_tiles_of_a_grid_keep_its_tile():
    assert inside(lambda: tiles(packed()).shape) == (3, 3)
    refused("NKI-V150", lambda: tiles(packed(), tile_shape=(64, 64)), kind=ValueError)


@pytest.mark.parametrize(
    "options, kind",
    [
        ({"tile_shape": [128, 256]}, TypeError),
        ({"tile_shape": (128, 256.0)}, TypeError),
        ({"tile_shape": (128, True)}, TypeError),
        ({"element_shape": 300}, TypeError),
        ({"buffer": "sbuf"}, TypeError),
        ({"tile_shape": (128, 0)}, ValueError),
        ({"element_shape": (300, -1)}, ValueError),
        ({"tile_shape": (128,)}, ValueError),
        ({"tile_shape": (1, 128, 256)}, ValueError),
    ],
)
def test_shapes_and_buffers_that_are_none(options, kind):
    refused("NKI-V150", lambda: packed(**options), kind=kind)


def test_index_rules():
    g = inside(lambda src: tiles(src, tile_shape=(128, 256)), SOURCE)
    assert g[-1, -1].element_shape == (44, 88) and g[1:, :2].shape == (2, 2)
    assert g[1].shape == (3,)
    for key in [(3, 0), (0, 0, 0), slice(0, 4), slice(0, 3, 2), slice(2, 2), ..., None, True, [0], 0.5]:
        refused("NKI-V151", lambda src, key=key: tiles(src, tile_shape=(128, 256))[key], SOURCE)
    refused("NKI-V151", lambda src: list(tiles(src, tile_shape=(128, 256))), SOURCE)


def test_grids_are_not_made_by_hand_and_not_written():
    refused("NKI-V150", lambda: nl.NkiTileGrid())
    with pytest.raises(AttributeError):
        inside(packed).shape = (1,)


def test_views_record_nothing():
    @nki.jit
    def kernel(src):
        return tiles(blocks(src, tile_shape=(128, 256), block_shape=(2, 2))[0, :])[0, 1].data.shape[0]

    assert not specialize(kernel, SOURCE).body and len(specialize(kernel, SOURCE).storages) == 1


def test_data_of_a_tensor():
    assert inside(lambda src: src.data is src, SOURCE)


def test_empty_like():
    made = inside(lambda: nl.empty_like(packed(), dtype=nl.bfloat16))
    assert made.shape == (3, 3) and made.dtype == nl.bfloat16 and made[2, 2].element_shape == (44, 88)
    assert inside(lambda: nl.empty_like(packed()[1:, :])).element_shape == (172, 600)


@nki.jit
def copies_by_tile(src):
    out = nl.ndarray(src.shape, dtype=src.dtype, buffer=nl.shared_hbm)
    g = tiles(src, tile_shape=(128, 256))
    o = tiles(out, tile_shape=(128, 256))
    s = alloc_tiles(tile_shape=(128, 256), element_shape=src.shape, buffer=nl.sbuf, dtype=src.dtype)
    for i in range(3):
        for j in range(3):
            nisa.dma_copy(dst=s[i, j].data, src=g[i, j].data)
        nisa.dma_copy(dst=o[i, :].data, src=s[i, :].data)
    return out


def test_a_kernel_of_grids():
    assert np.array_equal(copies_by_tile(SOURCE), SOURCE)


# --- scalars


def scalars(body, count=1, wide=False):
    """What `body` stores as one scalar, given `count` of 7, 3, ..."""
    dtype = np.int64 if wide else np.int32
    start = np.array([[7], [3]], dtype)[:count].reshape(count, 1)

    @nki.jit
    def kernel(given):
        out = nl.ndarray((1, 1), dtype=int64 if wide else nl.int32, buffer=nl.shared_hbm)
        loaded = [scalar_load(given[k : k + 1, :]) for k in range(count)]
        scalar_store(out, body(*loaded))
        return out

    with front_end(FrontEnd.tracer):
        return kernel(start).item()


@pytest.mark.parametrize(
    "body, expected",
    [
        (lambda s: s + 1, 8),
        (lambda s: 1 + s, 8),
        (lambda s: s - 10, -3),
        (lambda s: 10 - s, 3),
        (lambda s: -s, -7),
        (lambda s: +s, 7),
        (lambda s: s * s * s, 343),
        (lambda s: s * 2 + s * -3, -7),
        (lambda s: s - 7 + (2**31 - 1), 2**31 - 1),
    ],
)
@pytest.mark.parametrize("wide", [False, True])
def test_arithmetic(body, expected, wide):
    assert scalars(body, wide=wide) == expected


def test_int32_wraps_and_int64_does_not_so_soon():
    assert scalars(lambda s: (s * 0 + 100000) * 100000) == 1410065408
    assert scalars(lambda s: s - 7 + (2**31 - 1) + 1) == -(2**31)
    assert scalars(lambda s: (s * 0 + 100000) * 100000, wide=True) == 10**10
    assert scalars(lambda s: s * 0 + 2**40 - 1, wide=True) == 2**40 - 1
    assert scalars(lambda s: s * 0 + (2**63 - 1) + 1, wide=True) == -(2**63)


@pytest.mark.parametrize("operand", [1.5, "1", None, 2**31, np.float32(1)])
def test_other_operands_are_refused(operand):
    with pytest.raises(NkiError, match="NKI-V153"):
        scalars(lambda s: s + operand)


def test_scalars_of_two_widths_do_not_mix():
    def body(a, b):
        return scalar_load(a) + scalar_load(b)

    refused("NKI-V153", body, np.zeros((1, 1), np.int32), np.zeros((1, 1), np.int64))


@pytest.mark.parametrize(
    "how",
    [lambda s: s // 2, lambda s: s % 2, lambda s: s << 1, lambda s: s / 2, bool, int, range, lambda s: s & 1],
)
def test_operators_refused(how):
    with pytest.raises(NkiError, match="NKI-L022"):
        scalars(how)


def test_comparisons_are_recorded_and_not_used():
    one = np.zeros((1, 1), np.int32)
    made = inside(lambda a: scalar_load(a) < 3, one)
    assert made.is_comparison and isinstance(made, NkiScalar)
    refused("NKI-L022", lambda a: bool(scalar_load(a) == 3), one)
    refused("NKI-V153", lambda a: (scalar_load(a) < 3) + 1, one)
    refused("NKI-V153", lambda a: scalar_load(a) < 3, one.astype(np.int64))


def test_what_is_loaded():
    assert scalars(lambda s: s) == 7
    refused("NKI-V105", scalar_load, np.zeros((1, 1), np.uint32))
    refused("NKI-V103", scalar_load, np.zeros((2, 1), np.int32))
    refused("NKI-V101", lambda: scalar_load(nl.ndarray((1, 1), dtype=nl.int32, buffer=nl.psum)))


def test_what_is_stored():
    def wide(a):
        scalar_store(nl.ndarray((1, 1), dtype=int64, buffer=nl.sbuf), scalar_load(a))

    refused("NKI-V153", wide, np.zeros((1, 1), np.int32))
    (told,) = refused("NKI-V153", lambda a: scalar_store(a, 3), np.zeros((1, 1), np.int32))
    assert "memset" in told.help


@nki.jit
def selects(x, at):
    out = nl.ndarray((1, 64), dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray((1, 64), dtype=x.dtype, buffer=nl.sbuf)
    row = scalar_load(at) * 2 + 1
    nisa.dma_copy(dst=tile, src=x.ap(pattern=[[64, 1], [1, 64]], scalar_offset=row))
    nisa.dma_copy(dst=out, src=tile)
    return out


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_a_scalar_addresses_hbm(dtype):
    assert np.array_equal(selects(X, np.array([[2]], dtype))[0], X[5])


def test_an_int64_scalar_does_not_address_sbuf():
    def body(at):
        return nl.ndarray((128, 8), dtype=nl.float32, buffer=nl.sbuf).select(1, scalar_load(at))

    assert inside(body, np.zeros((1, 1), np.int32)).is_indirect()
    refused("NKI-V026", body, np.zeros((1, 1), np.int64))


def test_scalar_as_operand():
    @nki.jit
    def kernel(x, n):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x)
        nisa.register_move(nisa.register_alloc(0), scalar_load(n))
        nisa.dma_copy(dst=out, src=tile)
        return out

    assert np.array_equal(kernel(X, np.array([[3]], np.int32)), X)
    with pytest.raises(NkiError, match="NKI-V100"):
        kernel(X, np.array([[3]], np.int64))


# --- loops


@nki.jit
def loops(x, n, how):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=x)
    tile = nl.ndarray((1, 64), dtype=x.dtype, buffer=nl.sbuf)
    bound = how(n)

    def body(i):
        nisa.dma_copy(dst=tile, src=x.select(0, i))
        nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=2.0)
        nisa.dma_copy(dst=out.select(0, i), src=tile)

    nl.fori_loop(0, bound, body)
    return out


@pytest.mark.parametrize(
    "how",
    [lambda n: 5, scalar_load, lambda n: scalar_load(n) * 2 - 5, nisa.register_alloc],
)
def test_bounds_of_a_loop(how):
    doubled = X.copy()
    doubled[:5] *= 2
    with front_end(FrontEnd.tracer):
        if how is nisa.register_alloc:
            how = _loaded
        assert np.array_equal(loops(X, np.array([[5]], np.int32), how), doubled)


def _loaded(n):
    register = nisa.register_alloc()
    nisa.register_load(register, n)
    return register


def test_the_variable_of_a_loop():
    def kinds(n):
        found = []
        for bound in (4, scalar_load(n), _loaded(n)):
            nl.fori_loop(0, bound, lambda i: found.append(type(i).__name__))
        return found

    one = np.array([[5]], np.int32)
    assert inside(kinds, one) == ["NkiScalar", "NkiScalar", "VirtualRegister"]
    levels.use("0.6")
    seen = []
    inside(lambda: nl.fori_loop(0, 4, lambda i: seen.append(type(i).__name__)))
    assert seen == ["VirtualRegister"]


def test_bounds_that_are_refused():
    wide = np.array([[5]], np.int64)
    refused("NKI-V124", lambda n: nl.fori_loop(0, scalar_load(n), lambda i: None), wide)
    refused("NKI-V124", lambda: nl.fori_loop(0, 4, lambda i: None, step=0))
    refused("NKI-V124", lambda: nl.fori_loop(0, 4, lambda i: 1))


def test_while_takes_no_scalar():
    one = np.array([[5]], np.int32)
    refused("NKI-V124", lambda n: nl.while_loop(scalar_load(n), lambda r: r), one)
    inside(lambda n: nl.while_loop(_loaded(n), lambda r: r), one)


def test_a_loop_program_reads_back():
    @nki.jit
    def kernel(x):
        def body(i):
            nisa.dma_copy(dst=x.select(0, i * 2), src=x.select(0, i * 2 + 1))

        nl.fori_loop(0, 4, body)

    with front_end(FrontEnd.tracer):
        program = specialize(kernel, X)
    assert isinstance(program.body[0], Loop) and len(program.body[0].body) == 4
    assert format_program(parse_program(format_program(program))) == format_program(program)


@nki.jit
def dynamic(x):
    for _ in nl.dynamic_range(4):
        nisa.dma_copy(dst=x[0:1, :], src=x[1:2, :])


@pytest.mark.parametrize("name", ["dynamic", "while_register"])
def test_loops_that_were_removed(name):
    """The tracer refuses them, the parser warns; both say what to write."""
    kernel = globals()[name]
    with front_end(FrontEnd.tracer), pytest.raises(NkiError) as caught:
        specialize(kernel, X)
    with front_end(FrontEnd.parser):
        warnings = specialize_call(kernel, (X,), {}, target=as_target("trn2")).diagnostics
    assert [(d.code, d.severity.value) for d in warnings] == [("NKI-L056", "warning")]
    for told in (caught.value.diagnostics[0], warnings[0]):
        assert "fori_loop" in told.help or "while_loop" in told.help
    levels.use("0.6")
    with front_end(FrontEnd.tracer):
        if name == "dynamic":
            specialize(kernel, X)


@nki.jit
def while_register(x):
    register = nisa.register_alloc(1)
    while register:
        nisa.register_move(register, 0)


# --- classes


class Plain(nl.NKIObject):
    size: int = 1


@dataclass
class Data(nl.NKIObject):
    size: int = 1


@nki.jit
def equals(x):
    return Plain(size=2) == Plain(size=2), Data(2) == Data(2), Plain(size=1) != Plain(size=1)


def test_equality_is_pythons():
    def flags():
        with session():
            return [bool(int(flag)) for flag in equals(X)]

    assert flags() == [False, True, True]
    levels.use("0.6")
    with front_end(FrontEnd.parser):
        assert flags() == [True, True, False]


@dataclass
class Required(nl.NKIObject):
    size: int


@nki.jit
def leaves_a_field_out(x):
    assert Required().size is None


def test_fields_are_pythons():
    with pytest.raises(NkiError, match="missing 1 required"):
        specialize(leaves_a_field_out, X)
    levels.use("0.6")
    with front_end(FrontEnd.parser):
        specialize(leaves_a_field_out, X)


# --- configurations


def test_configurations():
    config = CompileConfig(address_rotation=AddressRotation.DISABLE, prefetch_auto=True, barrier_check=False)
    assert config.nki_alloc_fallback and CompileConfig() == CompileConfig()
    for wrong in ({"prefetch_auto": 1}, {"address_rotation": "auto"}):
        with pytest.raises(NkiError, match="NKI-V154"):
            CompileConfig(**wrong)
    with pytest.raises(TypeError):
        CompileConfig(unknown=True)


@nki.jit(compile_config=CompileConfig(prefetch_auto=True))
def configured(x):
    return x


def test_jit_takes_configurations():
    assert configured.config == (CompileConfig(prefetch_auto=True), None)
    with pytest.raises(NkiError, match="NKI-V154"):
        nki.jit(configured.function, compile_config=True)
    levels.use("0.6")
    with pytest.raises(NkiError, match="NKI-L050"):
        nki.jit(configured.function, compile_config=CompileConfig())


def test_nested_kernels_have_one_configuration():
    def outer(x):
        return configured(x)

    assert nki.jit(outer, compile_config=CompileConfig(prefetch_auto=True))(X) is not None
    with pytest.raises(NkiError, match="NKI-V154"):
        nki.jit(outer)(X)
    allowed = SpecializationConfig(allow_nested_config_override=True)
    with session() as record:
        nki.jit(outer, specialization_config=allowed)(X)
    assert [d.code for d in record.launches[0].diagnostics if d.code != "NKI-L057"] == ["NKI-V154"]


# --- addresses, cores, dtypes, collectives


def test_addresses_of_hbm():
    def at(address):
        return lambda: nl.ndarray((8, 8), dtype=nl.float32, buffer=nl.shared_hbm, address=address)

    assert inside(at((4096,))).storage.address == (0, 4096)
    refused("NKI-V123", at((0, 4096)))
    refused("NKI-V123", at((-1,)))
    refused("NKI-V123", lambda: nl.ndarray((8, 8), dtype=nl.float32, buffer=nl.sbuf, address=(0,)))
    refused("NKI-U011", lambda: (at((4096,))(), at((4100,))()))
    levels.use("0.6")
    refused("NKI-V123", at((4096,)))


@nki.jit
def cores(x):
    assert nl.num_programs(0) == CORES[0]
    return x


CORES = [1]


def test_lnc_unset(monkeypatch):
    monkeypatch.delenv("NEURON_LOGICAL_NC_CONFIG", raising=False)
    for count, kernel in ((1, cores), (2, cores[2])):
        CORES[0] = count
        with front_end(FrontEnd.tracer):
            kernel(X)


def test_the_environment_says_how_many_cores(monkeypatch):
    monkeypatch.setenv("NEURON_LOGICAL_NC_CONFIG", "2")
    CORES[0] = 2
    with front_end(FrontEnd.tracer):
        cores(X), cores[2](X)
    with pytest.raises(NkiError, match="NKI-U014") as caught:
        cores[1](X)
    assert "NEURON_LOGICAL_NC_CONFIG=1" in caught.value.diagnostics[0].help
    monkeypatch.setenv("NEURON_LOGICAL_NC_CONFIG", "3")
    with pytest.raises(NkiError, match="NKI-L032"):
        cores(X)


@nki.jit
def moves(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=x)
    return out


def test_int64_is_moved():
    wide = np.array([[2**40, -(2**63)]], np.int64)
    assert np.array_equal(moves(wide), wide)
    big = np.array([[2**63 + 5]], np.uint64)
    assert np.array_equal(moves(big), big) and uint64.bits == 64


def test_int64_is_not_computed_with():
    def body():
        a = nl.ndarray((128, 8), dtype=int64, buffer=nl.sbuf)
        nisa.tensor_copy(dst=a, src=a)

    def narrows(x):
        nisa.dma_copy(dst=nl.ndarray((1, 2), dtype=nl.int32, buffer=nl.sbuf), src=x)

    refused("NKI-V105", body)
    refused("NKI-V105", narrows, np.zeros((1, 2), np.int64))
    levels.use("0.6")
    with pytest.raises(NkiError, match="NKI-L024"):
        moves(np.zeros((1, 2), np.int64))


def test_unread_int64():
    @nki.jit
    def kernel(x, rows):
        return x

    with pytest.raises(NkiError, match="NKI-L024") as caught:
        kernel(X, np.arange(4))
    assert "int32" in caught.value.diagnostics[0].help


def test_traced_at_each_call():
    count = []

    @nki.jit
    def kernel(x):
        count.append(1)
        return x

    with front_end(FrontEnd.tracer):
        kernel(X), kernel(X)
    assert len(count) == 2


levels.use(before)
