"""The reference page is the classes: complete, with a source for every rule and cost."""

import inspect
import re

import pytest

from nki_cli.docs.isa_page import page
from nki_cli.instruction_facts import PARTS, as_dict, costs_of
from nki_isa.ir.instruction import REGISTRY, Instruction
from nki_isa.machine.targets import TARGETS, since
from nki_isa.ops.samples import sample


def test_page_names_every_instruction_once():
    lines = page().splitlines()
    assert all(lines.count(f"### {name}") == 1 for name in REGISTRY)


@pytest.mark.parametrize("opcode", sorted(REGISTRY))
def test_an_instruction_states_everything(opcode):
    cls = REGISTRY[opcode]
    assert cls.source.startswith("nki/") and cls.engines and since(cls.needs) in (2, 3, 4)
    assert len((inspect.getdoc(cls) or "").splitlines()[0]) > 20
    assert cls.cost is not Instruction.cost
    assert cls.synchronises or cls.compute is not Instruction.compute
    for rule in cls.constraints:
        assert "documented" not in rule.rule  # says which, not that it is written elsewhere
        assert rule.rule.endswith(".") and rule.help and rule.source.startswith("nki/"), rule.rule


#: Codes that every instruction may give, for an operand left out, an engine and a generation.
EVERYWHERE = {100, 106, 108}


@pytest.mark.parametrize("opcode", sorted(REGISTRY))
def test_a_docstring_has_shapes_errors_and_source(opcode):
    """The errors are those of the rules: a range counts as all between."""
    text = inspect.getdoc(REGISTRY[opcode]) or ""
    assert all(f"{section}:" in text for section in ("Shapes", "Errors", "Source"))
    errors = text[text.index("Errors:") : text.index("Source:")]
    named = {int(code) for code in re.findall(r"V(\d{3})\b", errors)}
    for first, last in re.findall(r"V(\d{3}) to V(\d{3})", errors):
        named.update(range(int(first), int(last) + 1))
    rules = {int(rule.code[-3:]) for rule in REGISTRY[opcode].constraints if "-V" in rule.code}
    assert rules - EVERYWHERE <= named


@pytest.mark.parametrize("opcode", sorted(REGISTRY))
def test_an_instruction_has_a_cost_with_a_source_on_each_generation(opcode):
    cls = REGISTRY[opcode]
    costs = {c["target"]: c for c in costs_of(cls)}
    if cls.is_free:
        assert not costs
        return
    assert set(costs) == {t.name for t in TARGETS.values() if t.has(cls.needs)}
    for found in costs.values():
        assert 0 <= found["busy_ns"] <= found["latency_ns"] and found["latency_ns"] > 0
        known = [found[part] for part in PARTS if found[part] is not None]
        assert found["fixed"] in known and all(part["source"] for part in known)
        assert all(part["evidence"] == "assumed" for part in known) or not cls.assumed
        scalars = ("scalar_load", "scalar_store", "scalar_compute")
        registers = ("register_move", "register_load", "register_store", "rank_id", *scalars)
        streams = opcode not in (*registers, "core_barrier") and not opcode.endswith(
            ("processing_rank_id", "_prepare")
        )
        assert (found["throughput"] is not None) == streams


def test_published_rates_of_trn3_count_as_such():
    """What its architecture guide states: the rates of its engines and of the instructions it brought."""
    own = ("nc_matmul_mx", "exponential", "quantize_mx", "rand2")
    for opcode in (*own, "nc_matmul", "activation", "iota", "topk", "dma_copy"):
        (found,) = (c for c in costs_of(REGISTRY[opcode]) if c["target"] == "trn3")
        assert found["throughput"]["evidence"] == "published", opcode


@pytest.mark.parametrize("opcode", sorted(REGISTRY))
def test_docstrings_say_what_is_assumed(opcode):
    text = " ".join((inspect.getdoc(REGISTRY[opcode]) or "").split())
    assert ("No cost is published" in text) == bool(REGISTRY[opcode].assumed)


def test_facts_are_plain_values():
    facts = as_dict(REGISTRY["nc_matmul"], TARGETS["trn2"])
    assert facts["parameters"][0] == {
        "name": "dst", "role": "read_write", "kind": "tensor", "default": None, "required": True,
    }  # fmt: skip
    assert set(sample("nc_matmul").parameters) == {p["name"] for p in facts["parameters"]}
