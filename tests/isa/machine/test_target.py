"""Every figure of every generation has a source, and names of targets resolve."""

from __future__ import annotations

import ast
import copy
import pickle
import re
from pathlib import Path

import pytest

from nki_isa.diagnostics import NkiValidationError
from nki_isa.machine.target import FIGURES, EvidenceKind
from nki_isa.machine.targets import TARGETS, TRN1, TRN2, TRN3, as_target, default_target, on_logical_cores


@pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))
def test_every_numeric_figure_has_a_source(target):
    assert set(FIGURES) == set(target.sources)
    for name in FIGURES:
        value = getattr(target, name)
        assert isinstance(value, (int, float)) and not isinstance(value, bool), name
        source = target.source(name)
        assert isinstance(source.evidence, EvidenceKind)
        assert len(source.reference) > 8, name


def test_generations_are_where_the_documentation_puts_them():
    assert [t.sbuf_partition_bytes >> 10 for t in (TRN1, TRN2, TRN3)] == [192, 224, 256]
    assert [t.hbm_bytes >> 20 for t in (TRN1, TRN2, TRN3)] == [32 << 10, 96 << 10, 144 << 10]
    assert [t.tensor_ghz for t in (TRN1, TRN2, TRN3)] == [2.8, 2.4, 2.4]
    assert [t.nc_version for t in (TRN1, TRN2, TRN3)] == [2, 3, 4]
    for target in TARGETS.values():
        assert target.psum_banks * target.psum_bank_bytes == target.psum_partition_bytes
        assert target.partitions == target.dma_engines * target.dma_partitions_per_engine
        assert target.ghz("vector") == target.vector_ghz
        # the peak is what 128 x 128 multiply-adds per cycle make
        assert target.peak_tflops_bf16 == pytest.approx(2 * 128 * 128 * target.tensor_ghz / 1e3, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "target"),
    [("trn1", TRN1), ("inf2", TRN1), ("gen2", TRN1), ("NC-v2", TRN1), ("trn2", TRN2), ("gen3", TRN2),
     (3, TRN2),
     ("nc-v4", TRN3), ("trn3", TRN3), ("gen4", TRN3), (TRN3, TRN3)],
)  # fmt: skip
def test_aliases(name, target):
    assert as_target(name) is target


def test_unknown_target_names_the_choices():
    with pytest.raises(NkiValidationError) as caught:
        as_target("trn9")
    found = caught.value.diagnostics[0]
    assert found.code == "NKI-V116"
    assert "trn9" in found.message
    assert all(name in (found.help or "") for name in TARGETS)


def test_default_target_reads_the_environment_at_each_call(monkeypatch):
    monkeypatch.delenv("NEURON_PLATFORM_TARGET_OVERRIDE", raising=False)
    monkeypatch.delenv("NKI_NC_VERSION", raising=False)
    assert default_target() is TRN2
    monkeypatch.setenv("NKI_NC_VERSION", "gen4")
    assert default_target() is TRN3
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "inf2")
    assert default_target() is TRN1
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trainium9")
    with pytest.raises(NkiValidationError):
        default_target()


def _names_read(text: str) -> tuple[set[str], list[str]]:
    """Names of attributes and strings in Python text, and patterns for the strings it puts together."""
    names, patterns = set(), []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)
        elif isinstance(node, ast.JoinedStr):
            parts = [re.escape(p.value) if isinstance(p, ast.Constant) else r"\w+" for p in node.values]
            patterns.append("".join(parts))
    return names, [p for p in patterns if re.search("[a-z]{3}", p)]


def test_every_figure_is_read_by_something():
    root = Path(__file__).parents[3]
    names, patterns = set(), []
    for path in [p for floor in ("isa", "nki_sim", "frontend") for p in (root / floor).rglob("*.py")]:
        if "targets" not in path.parts:
            found = _names_read(path.read_text())
            names |= found[0]
            patterns += found[1]
    unread = [f for f in FIGURES if f not in names and not any(re.fullmatch(p, f) for p in patterns)]
    assert not unread


@pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))
def test_a_generation_is_itself_after_pickle_and_copy(target):
    alone = on_logical_cores(target, 1)
    assert pickle.loads(pickle.dumps(alone)) is alone
    copies = (pickle.loads(pickle.dumps(target)), copy.copy(target), copy.deepcopy([target])[0])
    assert all(other is target for other in copies)
