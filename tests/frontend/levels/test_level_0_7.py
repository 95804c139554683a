"""What NKI 0.7 added, changed and removed: each rule with a case that keeps to it and one that does not.

The rules that no page states are in :data:`nki.levels.INFERRED`, each with the name of its test.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from both_front_ends import front_end
from level_0_7 import (
    AddressRotation,
    CompileConfig,
    SpecializationConfig,
    X,
    inside,
    int64,
    refused,
    uint64,
)

import nki
import nki.isa as nisa
import nki.language as nl
from nki import levels
from nki.compiler import specialize
from nki.compiler.language.frontends import FrontEnd
from nki.runtime import session
from nki_isa.diagnostics import NkiError

pytestmark = pytest.mark.usefixtures("at_0_7")

before = levels.use("0.7")  # kernels are defined at it while the tests are read


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
    files = Path(__file__).parent.glob("test_*_0_7.py")
    names = {
        name for file in files for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)
    }
    assert {test for _, test in levels.INFERRED} <= names
    page = (Path(__file__).parents[3] / "docs" / "migration.md").read_text()
    assert all(rule in page for rule, _ in levels.INFERRED)


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
    monkeypatch.setenv("NEURON_LOGICAL_NC_CONFIG", "1")
    with session(target="trn2", timing=True) as seen:
        moves(X)
    assert seen.launches[0].cores[0].timeline.target.logical_cores == 1


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
