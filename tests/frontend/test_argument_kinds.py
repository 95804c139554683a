"""Every public callable with wrong kinds, counts and names of arguments: each is refused as the user's slip.

A default run takes a sample; the whole product of callables and values is marked slow.
"""

import inspect
import itertools
import random
from types import FunctionType

import numpy as np
import pytest

import nki.collectives as collectives
import nki.isa as nisa
import nki.language as nl
from nki import levels
from nki.compiler.specializer.recorder import Recorder, recording
from nki_isa.diagnostics import NkiError
from nki_isa.ir.instruction import REGISTRY
from nki_isa.machine.operators import OPERATORS, Operator
from nki_isa.machine.targets import TRN3
from nki_isa.ops.samples import sample
from nki_isa.tensor.storage import VirtualRegister
from nki_isa.tensor.tensor import NkiTensor
from nki_sim.cores.device import execute_all
from nki_sim.execution.replay import can_replay, is_static
from nki_sim.placement.fit_in_memory import fit


class Nothing:
    """An object that nothing knows."""


def tile(shape=(32, 32), dtype="float32", buffer=None):
    return nl.ndarray(shape, dtype, nl.sbuf if buffer is None else buffer)


#: No parameter takes one of these, whatever it is for.
ALIENS = {
    "object": Nothing,
    "dict": lambda: {"a": 1},
    "set": lambda: {1, 2},
    "bytes": lambda: b"text",
    "complex": lambda: 1j,
    "generator": lambda: (i for i in (1, 2)),
    "module": lambda: np,
}
#: Each of these is right for some parameter; where it is not, it is refused, and where it is, it works.
STRANGERS = {
    "None": lambda: None,
    "text": lambda: "text",
    "empty text": lambda: "",
    "float": lambda: 1.5,
    "NaN": lambda: float("nan"),
    "infinity": lambda: float("inf"),
    "True": lambda: True,
    "negative": lambda: -1,
    "zero": lambda: 0,
    "wide": lambda: 1 << 40,
    "huge": lambda: 10**400,
    "numpy int": lambda: np.int64(1),
    "numpy float": lambda: np.float32(1),
    "list": lambda: [1, "a"],
    "empty list": lambda: [],
    "nested list": lambda: [[1, 2, 3]],
    "tuple": lambda: (1, 2),
    "array": lambda: np.ones((2, 2)),
    "dtype": lambda: nl.bfloat16,
    "numpy dtype": lambda: np.int64,
    "operator": lambda: nl.add,
    "numpy function": lambda: np.add,
    "function": lambda: lambda i: None,
    "type": lambda: int,
    "region": lambda: nl.psum,
    "engine": lambda: nisa.engine.vector,
    "slice": lambda: slice(0, 1),
    "tensor": lambda: tile((32, 1)),
    "HBM tensor": lambda: tile((4, 4), buffer=nl.shared_hbm),
    "register": lambda: nisa.register_alloc(0),
    "tensors": lambda: [tile(), tile()],
}

#: A right value by parameter name, where the annotation or the default does not say.
BY_NAME = {
    "x": tile, "y": tile, "w": tile, "condition": tile, "value": tile, "data": tile, "rate": lambda: 0.5,
    "src": lambda: tile(buffer=nl.shared_hbm), "dst": lambda: tile(buffer=nl.shared_hbm),
    "indices": lambda: tile(dtype="uint32"), "tensor": tile, "axis": lambda: 1, "shape": lambda: (32, 32),
    "dtype": lambda: nl.float32, "buffer": lambda: nl.sbuf, "fill_value": lambda: 1.0, "n": lambda: 32,
    "start": lambda: 0, "stop": lambda: 4, "lower": lambda: 0, "upper": lambda: 4, "size": lambda: 4,
    "body_fun": lambda: lambda i: None, "init": lambda: nisa.register_alloc(0), "print_prefix": lambda: "t",
    "constant": lambda: np.ones((4, 4), np.float32), "seed": lambda: tile((1, 1), "int32"),
    "transpose_x": lambda: True, "dim": lambda: 1, "step": lambda: 1, "end": lambda: 4, "index": lambda: 0,
    "source": tile, "tile_shape": lambda: (16, 16), "block_shape": lambda: (2, 2),
    "element_shape": lambda: (32, 32),
    "dims": lambda: (0, 1), "start_dim": lambda: 1, "end_dim": lambda: 1, "offset": lambda: 0,
    "vector_offset": lambda: None, "pattern": lambda: [[32, 32], [1, 32]],
    "src_pattern": lambda: ("p", "f"), "dst_pattern": lambda: ("p", "f"),
}  # fmt: skip
BY_CALLABLE = {
    ("nl.shared_identity_matrix", "dst"): tile,
    ("nl.matmul", "transpose_x"): lambda: True,
    ("nl.while_loop", "body_fun"): lambda: lambda i: i,
    ("nl.rms_norm", "w"): lambda: tile((32, 32)),
    ("nl.blocks", "tile_shape"): lambda: (16, 16),
    ("nl.tiles", "tile_shape"): lambda: (16, 16),
    ("nisa.scalar_load", "src"): lambda: tile((1, 1), "int32", nl.shared_hbm),
    ("nisa.scalar_store", "dst"): lambda: tile((1, 1), "int32"),
    ("nisa.scalar_store", "value"): lambda: nisa.scalar_load(tile((1, 1), "int32", nl.shared_hbm)),
    ("t.squeeze_dim", "dim"): lambda: 2,
    ("t.broadcast", "dim"): lambda: 2,
    ("t.broadcast", "size"): lambda: 1,
    ("t.reshape_dim", "shape"): lambda: (4, 8),
    ("t.indirect", "index"): lambda: tile((32, 2), "int32"),
    ("t.vector_select", "vector_offset"): lambda: tile((32, 1), "int32"),
    ("t.vector_select", "dim"): lambda: 0,
}


def legal(name, parameters):
    """Makers of the arguments that have no default."""
    found = {}
    for key, parameter in parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        operator = OPERATORS.get(name.removeprefix("nl."))
        if operator is not None and "bitvec" in operator.kinds and key in ("x", "y"):
            found[key] = lambda: tile(dtype="int32")
        elif parameter.default is parameter.empty or (name, key) in BY_CALLABLE:
            found[key] = BY_CALLABLE.get((name, key)) or BY_NAME.get(key, lambda: None)
    return found


def of_isa(opcode):
    """The arguments of a sample of an instruction, its tensors allocated anew."""
    example = sample(opcode)

    def again(value):
        if isinstance(value, NkiTensor):
            return nl.ndarray(value.shape, value.dtype, value.buffer)
        if isinstance(value, VirtualRegister):
            return nisa.register_alloc(0)
        return [again(v) for v in value] if isinstance(value, list) else value

    given = {
        k: v for k, v in vars(example).items() if k in example.fields and v is not example.fields[k].default
    }
    return {key: (lambda value=value: again(value)) for key, value in given.items()}


def callables():
    """Every public callable: its name, the function, makers of right arguments, its parameters."""
    for name in nl.__all__:
        function = getattr(nl, name, None)
        if isinstance(function, (FunctionType, Operator)) and callable(function):
            parameters = dict(inspect.signature(function).parameters)
            yield f"nl.{name}", function, legal(f"nl.{name}", parameters), tuple(parameters)
    for name in nisa.__all__:
        function = getattr(nisa, name, None)
        if isinstance(function, FunctionType):
            parameters = dict(inspect.signature(function).parameters)
            is_instruction = name in REGISTRY and REGISTRY[name].namespace == "nki.isa"
            right = of_isa(name) if is_instruction and levels.form_of("nki.isa", name) is None else {}
            right = {key: right[key] for key in right if key in parameters}
            yield f"nisa.{name}", function, right or legal(f"nisa.{name}", parameters), tuple(parameters)
    for name, function in collectives.OPERATIONS.items():
        parameters = dict(inspect.signature(function).parameters)
        yield f"collectives.{name}", function, legal(name, parameters), tuple(parameters)
    for name, method in inspect.getmembers(NkiTensor, inspect.isfunction):
        if not name.startswith("_"):
            parameters = dict(list(inspect.signature(method).parameters.items())[1:])

            def call(*args, _name=name, **kwargs):
                shape = (32, 32, 1) if _name in ("squeeze_dim", "broadcast") else (32, 32)
                view = tile(shape, buffer=nl.shared_hbm if _name == "vector_select" else nl.sbuf)
                return getattr(view, _name)(*args, **kwargs)

            yield f"t.{name}", call, legal(f"t.{name}", parameters), tuple(parameters)


def outcome(function, arguments, more=()):
    """The codes that refuse the call; none if it is accepted, and then what it emitted runs."""
    recorder = Recorder("fuzz", TRN3)
    try:
        with recording(recorder):
            function(*more, **{key: make() for key, make in arguments.items()})
            recorder.finish()
        recorder.collector.raise_errors()
        fitted = fit(recorder.program, TRN3)
        if is_static(fitted.program) and can_replay(fitted.program):
            execute_all([fitted.program], [fitted.placement.addresses], [])
    except NkiError as refused:
        return [d.code for d in refused.diagnostics]
    return []


def attempts():
    """(callable, what is wrong, call) for everything to try."""
    for name, function, right, parameters in callables():
        for parameter, (kind, make) in itertools.product(parameters, [*ALIENS.items(), *STRANGERS.items()]):
            yield name, f"{parameter}={kind}", function, {**right, parameter: make}, (), kind in ALIENS
        yield name, "unknown name", function, {**right, "no_such_parameter": lambda: 1}, (), True
        yield name, "too many", function, {}, (None,) * (len(parameters) + 1), True
        for missing in right:
            given = {key: make for key, make in right.items() if key != missing}
            yield name, f"without {missing}", function, given, (), False


def check(level, tried):
    bad = []
    for name, wrong, function, arguments, more, is_alien in tried:
        try:
            codes = outcome(function, arguments, more)
        except Exception as failed:  # what a user would see as a bare error of Python
            bad.append(f"{level} {name} {wrong}: {type(failed).__name__}: {failed}"[:200])
            continue
        if any(code.startswith("NKI-I") for code in codes):
            bad.append(f"{level} {name} {wrong}: {codes}")
        if is_alien and not codes and not name.startswith("nl.is_"):
            bad.append(f"{level} {name} {wrong}: accepted")
    assert not bad, f"{len(bad)} bad:\n" + "\n".join(bad[:400])


def test_right_arguments_are_accepted():
    """Else the wrong ones would be refused for another reason."""
    refused = {name: outcome(f, right) for name, f, right, _ in callables() if not name.startswith("coll")}
    never = {"nl.divide", "nl.mod", "nl.fmod"}
    assert not {name: codes for name, codes in refused.items() if codes and name not in never}


def test_a_sample_of_wrong_arguments_is_refused():
    tried = list(attempts())
    check("newest", random.Random(7).sample(tried, len(tried) // 12))


@pytest.mark.slow
@pytest.mark.parametrize("level", levels.LEVELS)
def test_every_wrong_argument_is_refused(level):
    before = levels.use(level)
    try:
        check(level, attempts())
    finally:
        levels.use(before)
