"""Our namespaces against the published names and parameters."""

import enum
import inspect

import api_names
import pytest

import nki
import nki.collectives
import nki.isa
import nki.language
import nki.typing
from nki import levels
from nki_isa.machine.operators import Operator

MODULES = {"language": nki.language, "isa": nki.isa, "collectives": nki.collectives}

# Where we write a default otherwise than the page does; the same value, or one that cannot change.
OTHER_DEFAULTS = {
    ("range_select", "on_false_value"): "...",  # the page leaves it out; its text says FP32_MIN
    ("collective_permute_implicit", "channel_ids"): "[0]",
    ("collective_permute_implicit_reduce", "channel_ids"): "[0]",
}


@pytest.fixture(autouse=True)
def _level():
    """The published names here are those of 0.6; tests of a level name those that it adds or lacks."""
    before = levels.use("0.6")
    yield
    levels.use(before)


def rows(kind):
    return [(m, name) for m in MODULES for name in getattr(api_names, f"{m.upper()}_{kind}")]


def written(value):
    """A default as the page writes it."""
    if isinstance(value, Operator):
        return value.name
    if isinstance(value, nki.language.MemoryRegion):
        return value.value
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__.lower()}.{value.name}"
    return str(value) if isinstance(value, nki.language.DType) else repr(value).replace(" ", "")


@pytest.mark.parametrize("module, name", rows("FUNCTIONS"))
def test_functions(module, name):
    function = getattr(MODULES[module], name)
    expected = getattr(api_names, f"{module.upper()}_FUNCTIONS")[name].split()
    found = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.default is parameter.empty:
            found.append(parameter.name)
        else:
            default = OTHER_DEFAULTS.get((name, parameter.name), written(parameter.default))
            found.append(f"{parameter.name}={default}")
    assert found == expected


@pytest.mark.parametrize("module, name", rows("VALUES"))
def test_values(module, name):
    assert hasattr(MODULES[module], name)
    assert name in MODULES[module].__all__


@pytest.mark.parametrize("module, name", rows("CLASSES"))
def test_classes_and_their_members(module, name):
    found = nki.language.tile_size if name == "_TileSize" else getattr(MODULES[module], name)
    for member in getattr(api_names, f"{module.upper()}_CLASSES")[name].split():
        assert hasattr(found, member) or member in getattr(found, "__annotations__", ()), member


@pytest.mark.parametrize("module", MODULES)
def test_what_is_exported_exists(module):
    assert [name for name in MODULES[module].__all__ if not hasattr(MODULES[module], name)] == []


def test_typing():
    assert all(hasattr(nki.typing, name) for name in api_names.TYPING_VALUES)


def test_modules_that_published_kernels_import():
    import nki.builtin
    import nki.compiler
    import nki.dtype
    import nki.isa.constants
    import nki.tensor  # holds `identity` at level 0.2

    assert nki.dtype.float8_e4m3 is nki.language.float8_e4m3
    assert nki.isa.constants.oob_mode is nki.isa.oob_mode
    assert nki.language.bool is nki.language.bool_
    assert list(nki.language.range(3)) == [0, 1, 2]
