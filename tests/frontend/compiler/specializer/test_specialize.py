"""Meta-programs mean what they mean to Python; arguments are copied in; kernels compose."""

from __future__ import annotations

import functools
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import metacode
import ml_dtypes
import numpy as np
import pytest
from metacode import FUNCTIONS, Key, Loose, Mode, Point, host_values_are_copied

import nki
import nki.isa as nisa
import nki.language as nl
from nki import levels
from nki.compiler import specialize
from nki.compiler.specializer.specialize import Specialized, specialize_call
from nki_isa.diagnostics import NkiError
from nki_isa.ir.form import Forms
from nki_isa.ir.program import programs_equal
from nki_isa.machine.targets import as_target

TRN2 = as_target("trn2")
A = np.ones((2, 4), np.float32)


def run(function: Any, *args: Any, **kwargs: Any) -> Any:
    """What the meta-program returns."""
    return call(function, *args, **kwargs).result


def call(function: Any, *args: Any, **kwargs: Any) -> Specialized:
    return specialize_call(nki.jit(function), args, kwargs, target=TRN2)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_means_what_python_means(function: Any) -> None:
    assert run(function) == function()


def test_results_have_the_types_of_python() -> None:
    def types(values: Any) -> Any:
        return [types(v) for v in values] if isinstance(values, (list, tuple)) else type(values)

    for function in (metacode.numbers, metacode.comparisons, metacode.tuples):
        assert types(run(function)) == types(function())


def test_module_values_stay_as_they_were() -> None:
    assert run(host_values_are_copied)[-1] == 99
    assert metacode.TABLE == {"a": 1, "b": [2, 3]}


# --- classes


@dataclass
class WithoutDefaults(nl.NKIObject):
    x: int
    y: bool


class Plain(nl.NKIObject):
    x: int
    y: bool


def missing_in_both():
    a, b = WithoutDefaults(1), Plain(1)
    return [a.x, a.y, b.x, b.y]


@pytest.mark.api("0.6")
def test_fields_not_given_are_none_with_and_without_dataclass() -> None:
    assert run(missing_in_both) == [1, None, 1, None]


def dataclass_default_is_of_the_kernels_class(holder=Key("outer")):  # noqa: B008
    inner = Holder()
    return [
        isinstance(inner.key, Key),
        inner.key == Key("default"),
        isinstance(holder, Key),
        len(Holder().many),
        Holder.LIMIT,
    ]


@dataclass
class Holder(nl.NKIObject):
    key: Key = Key("default")  # noqa: RUF009
    many: tuple = (1, 2)
    LIMIT = 7


def test_defaults_that_are_objects() -> None:
    assert run(dataclass_default_is_of_the_kernels_class) == [True, True, True, 2, 7]


def changes_frozen(key):
    key.name = "other"


def adds_to_frozen(key):
    key.unknown = "other"


@pytest.mark.parametrize("function", [changes_frozen, adds_to_frozen])
def test_frozen_dataclasses_stay_frozen(function: Any) -> None:
    with pytest.raises(NkiError, match="FrozenInstanceError: cannot assign to field"):
        run(function, Key("a"))


class Base(nl.NKIObject):
    a: int = 1
    b: int = 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Base(1, 2, 3), "Base has 2 fields but got 3 values"),
        (lambda: Base(1, a=2), "Base got 'a' twice"),
    ],
)
def test_initializer_refuses(make: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make()


@pytest.mark.api("0.6")
def test_objects_are_equal_by_structure_on_the_host_too() -> None:
    assert Base(1) == Base(a=1) and Base(1) != Base(2) and Base() != 1
    assert repr(Base(5)) == "Base(a=5, b=2)"
    assert Base(1, c=3).c == 3  # type: ignore[attr-defined]


class Pair(NamedTuple):
    left: int
    right: Any = 2


Old = namedtuple("Old", "left right")


def named_tuples(pair, old):
    left, right = pair
    made = Pair(5)
    return [
        pair.left,
        pair.right,
        left,
        right,
        made.right,
        isinstance(pair, Pair),
        isinstance(old, Old),
        old[1],
        pair == Pair(1, 3),
    ]


def test_named_tuples() -> None:
    assert run(named_tuples, Pair(1, 3), Old(7, 8)) == [1, 3, 1, 3, 2, True, True, 8, True]


class Color(Enum):
    red = 1

    def described(self):
        return f"{self.name}={self.value}"


def enum_methods(color):
    return [color.described(), color == Color.red, isinstance(color, Color)]


def test_enums_with_methods() -> None:
    assert run(enum_methods, Color.red) == ["red=1", True, True]


# --- arguments


def mutates(items, table, point, loose, key):
    items.append(4)
    items[0][0] = "changed"
    table["new"] = 1
    table["list"].append(2)
    point.x = 100
    point.tags.append("t")
    loose.fresh = True
    return [
        items,
        table,
        point.x,
        point.moved(1).x,
        key.name,
        key.mode == Mode.fast,
        isinstance(point, Point),
    ]


@pytest.fixture
def takes_lists() -> Iterator[None]:
    """A level whose compiler took lists as arguments."""
    before = levels.use("0.2")
    yield
    levels.use(before)


@pytest.mark.usefixtures("takes_lists")
def test_objects_are_copied_in() -> None:
    items, table, point, loose = [[1], 2], {"list": [1]}, Point(1, tags=[]), Loose(1)
    result = run(mutates, items, table, point, loose, Key("k"))
    assert result == [[["changed"], 2, 4], {"list": [1, 2], "new": 1}, 100, 101, "k", True, True]
    assert (items, table, point.x, point.tags, vars(loose)) == (
        [[1], 2],
        {"list": [1]},
        1,
        [],
        {"first": 1, "second": "two"},
    )


def shares(pair, items, same_items):
    pair[0].x = 9
    items.append(1)
    return [pair[1].x, same_items, same_items[0] == 1]


@pytest.mark.usefixtures("takes_lists")
def test_one_object_passed_twice_is_one() -> None:
    point, items = Point(1), []  # type: ignore[var-annotated]
    assert run(shares, [point, point], items, items) == [9, [1], True]


def arrays_inside(tensors, table, pair, holder):
    return [
        tensors[1].shape,
        table["w"].dtype == nl.bfloat16,
        pair.left.shape,
        holder.x.shape,
        holder.tags[0].shape,
    ]


@pytest.mark.usefixtures("takes_lists")
def test_arrays_inside_containers_and_objects_become_inputs() -> None:
    small, wide = np.zeros((1, 3), np.float32), np.zeros((2, 2), ml_dtypes.bfloat16)
    made = call(arrays_inside, [A, small], {"w": wide}, Pair(A), Holding(small, [wide]))
    assert made.result == [(1, 3), True, (2, 4), (1, 3), (2, 2)]
    assert [t.name for t in made.program.inputs] == [
        "tensors_0",
        "tensors_1",
        "table_w",
        "pair_0",
        "holder_x",
        "holder_tags_0",
    ]
    assert [x is y for x, y in zip(made.inputs, [A, small, wide, A, small, wide])] == [True] * 6


class Holding(nl.NKIObject):
    x: Any
    tags: list


def scalars(a, b, c, d, dtype, function, mode):
    return [
        a + 1,
        b,
        c,
        d,
        dtype == nl.float32,
        function(2),
        mode.value,
        isinstance(a, int),
        isinstance(b, float),
    ]


def test_scalars_dtypes_functions_and_enums() -> None:
    result = run(scalars, np.int64(3), np.float32(0.5), "s", None, nl.float32, metacode.double, Mode.slow)
    assert result == [4, 0.5, "s", None, True, 4, "s", True, True]


def test_numpy_and_ml_dtypes_scalars_are_numbers() -> None:
    def kernel(x):
        return x * 2

    assert run(kernel, ml_dtypes.bfloat16(1.5)) == 3.0
    assert run(kernel, np.float64(1.5)) == 3.0


@pytest.mark.parametrize("zero_d", [np.array(2.0, np.float32), np.array([2.0], np.float32)])
def test_an_array_without_dimensions_has_one(zero_d: Any) -> None:
    def kernel(x):
        return x.shape

    assert run(kernel, zero_d) == (1,)


# --- functions and kernels


@nki.jit
def doubled(x, out):
    tile = nl.ndarray(x.shape, x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=2.0)
    nisa.dma_copy(dst=out, src=tile)


@nki.jit
def calls_a_kernel(x):
    out = nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)
    doubled(x, out)
    doubled(x=out, out=out)
    return out


def test_a_kernel_calls_a_kernel() -> None:
    program = specialize(calls_a_kernel, A, target="trn2")
    assert [i.opcode for i in program.walk()] == ["dma_copy", "tensor_scalar", "dma_copy"] * 2
    assert [frame.function for frame in next(program.walk()).stack] == ["calls_a_kernel", "doubled"]
    np.testing.assert_array_equal(calls_a_kernel(A), 4 * A)


@pytest.mark.parametrize("wrap", [lambda f: f, nki.jit, nki.jit(mode="trace"), nki.jit()])
def test_plain_functions_and_jitted_ones_specialize(wrap: Any) -> None:
    program = specialize(wrap(calls_a_kernel.function), A)
    assert program.name == "calls_a_kernel"


def make_kernel(scale: float, helper: Any) -> Any:
    @nki.jit
    def made(x):
        out = nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)
        tile = nl.ndarray(x.shape, x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x)
        nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=helper(scale))
        nisa.dma_copy(dst=out, src=tile)
        return out

    return made


def test_kernels_made_by_functions_keep_their_closures_apart() -> None:
    two, nine = make_kernel(1.0, metacode.double), make_kernel(9.0, lambda_free)
    np.testing.assert_array_equal(two(A), 2 * A)
    np.testing.assert_array_equal(nine(A), 9 * A)


def lambda_free(x):
    return x


def tiled(x, tile_fn):
    out = nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray(x.shape, x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    tile_fn(dst=tile, src=tile)
    nisa.dma_copy(dst=out, src=tile)
    return out


def relu(dst, src):
    nisa.activation(dst=dst, data=src, op=nl.relu)


def scaled(factor, dst, src):
    nisa.tensor_scalar(dst=dst, data=src, op0=nl.multiply, operand0=factor)


def test_functions_as_arguments() -> None:
    np.testing.assert_array_equal(nki.jit(tiled)(-A, relu), 0 * A)
    np.testing.assert_array_equal(nki.jit(tiled)(A, functools.partial(scaled, 3.0)), 3 * A)
    np.testing.assert_array_equal(nki.jit(tiled)(A, Scaler(5.0).apply), 5 * A)


class Scaler(nl.NKIObject):
    factor: float

    def apply(self, dst, src):
        nisa.tensor_scalar(dst=dst, data=src, op0=nl.multiply, operand0=self.factor)


@functools.lru_cache
def remembered(x):
    return x + 1


def uses_cached_function():
    return remembered_value(3)


remembered_value = remembered


def test_private_names_of_classes() -> None:
    assert run(metacode.classes)[11] == 5  # Counter keeps its step in self.__step


# --- output on the way


def talks(x):
    print("adding tensors of type", x.dtype, "and shape", x.shape)
    print(f"{x.ndim=}", nl.bfloat16, Mode.fast, [1, "a"])


def test_print_prints_at_specialization(capsys: pytest.CaptureFixture[str]) -> None:
    specialize(nki.jit(talks), A)
    assert capsys.readouterr().out == (
        "adding tensors of type float32 and shape (2, 4)\nx.ndim=2 bfloat16 Mode.fast [1, 'a']\n"
    )


# --- results


def returns(x, what):
    out = nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=x)
    choices = {
        "one": out,
        "tuple": (out, out[0:1, :]),
        "list": [out],
        "dict": {"a": out, "n": 3},
        "none": None,
        "input": x,
    }
    return choices[what]


@pytest.mark.parametrize("what", ["one", "tuple", "list", "dict", "none", "input"])
def test_results_keep_their_structure(what: str) -> None:
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    result = nki.jit(returns)(x, what)
    expected = {
        "one": x,
        "tuple": (x, x[0:1]),
        "list": [x],
        "dict": {"a": x, "n": 3},
        "none": None,
        "input": x,
    }[what]
    assert type(result) is type(expected)
    np.testing.assert_equal(result, expected)


def test_outputs_need_not_be_written() -> None:
    def kernel(x):
        return nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)

    assert specialize(kernel, A).outputs[0].shape == A.shape


# --- Programs


def test_the_same_call_gives_the_same_program() -> None:
    from nki_isa.text.printer import format_program

    assert format_program(specialize(calls_a_kernel, A)) == format_program(specialize(calls_a_kernel, A + 1))


@pytest.mark.parametrize("name", ["trn1", "trn2", "trn3"])
def test_targets(name: str) -> None:
    def kernel():
        return [nisa.get_nc_version().value, nl.tile_size.pmax]

    made = specialize_call(nki.jit(kernel), (), {}, target=as_target(name))
    assert made.result == [{"trn1": 2, "trn2": 3, "trn3": 4}[name], 128]


def test_checks_are_not_repeated_but_never_skipped() -> None:
    """The second of two instructions that differ in one thing is still refused."""

    def kernel(x):
        tile = nl.ndarray((128, 64), nl.float32, buffer=nl.sbuf)
        small = nl.ndarray((128, 32), nl.float32, buffer=nl.sbuf)
        for _ in range(3):
            nisa.tensor_copy(dst=tile, src=tile)
            nisa.tensor_copy(dst=tile[:, 0:32], src=small)
        nisa.tensor_copy(dst=tile, src=small)
        nisa.tensor_copy(dst=tile[0:64, :], src=tile[65:128, :])

    with pytest.raises(NkiError) as refused:
        specialize(kernel, A)
    lines = {d.span.line for d in refused.value.diagnostics if d.span}
    first = kernel.__code__.co_firstlineno
    assert lines == {first + 6, first + 7}


def test_instructions_of_a_loop_are_those_that_each_call_makes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matmuls that start and go on, slices that move, numbers and names that change, one in a device loop."""

    def kernel(x, y):
        out = nl.ndarray((128, 512), x.dtype, buffer=nl.shared_hbm)
        for i in range(4):
            total = nl.ndarray((128, 128), nl.float32, buffer=nl.psum)
            for k in range(3):
                part = nl.ndarray((128, 128), x.dtype, buffer=nl.sbuf)
                nisa.dma_copy(dst=part, src=x[:, nl.ds(128 * i, 128)], name=f"load_{i}_{k}")
                nisa.nc_matmul(total[:, 0 : 128 // (1 + k)], part, moving=part[:, 0 : 128 // (1 + k)])
                nisa.tensor_scalar(part, part, nl.add, float(k - 1), op1=nl.multiply, operand1=-0.0)
            done = nl.ndarray((128, 128), x.dtype, buffer=nl.sbuf)
            nisa.tensor_copy(dst=done, src=total, engine=nisa.scalar_engine if i % 2 else nisa.vector_engine)
            nisa.dma_copy(dst=out[:, 128 * i : 128 * i + 128], src=done)
        for j in nl.sequential_range(2):
            nisa.dma_copy(dst=out[:, nl.ds(j, 128)], src=y)
        return out

    x, y = np.ones((128, 512), np.float32), np.ones((128, 128), np.float32)
    together = call(kernel, x, y).program
    monkeypatch.setattr(Forms, "made", lambda *_: None)
    alone = call(kernel, x, y).program
    assert programs_equal(together, alone)
    assert [i.form.sample.opcode for i in together.walk()] == [i.form.sample.opcode for i in alone.walk()]


def test_an_instruction_that_is_refused_in_a_later_turn_is_told_at_its_line() -> None:
    def kernel(x):
        tile = nl.ndarray((128, 64), nl.float32, buffer=nl.sbuf)
        for i in range(4):
            nisa.tensor_copy(dst=tile[:, 0:32], src=tile.ap(pattern=[[64, 128], [1, 32]], offset=12 * i))
            nisa.tensor_copy(dst=tile[:, 0:32], src=tile.ap(pattern=[[64, 128], [1, 32]], offset=8 * i))

    with pytest.raises(NkiError) as refused:
        specialize(kernel, A)
    (found,) = refused.value.diagnostics
    assert (found.code, found.span and found.span.line) == ("NKI-V023", kernel.__code__.co_firstlineno + 3)
