"""The parser and the tracer make the same Program of every kernel that both take."""

import importlib.util
import runpy
import sys
from pathlib import Path

import pytest
from both_front_ends import comparing

from nki.runtime import session
from nkilib.registry import rows

TESTS = Path(__file__).parents[3]


def module(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    made = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


cases = module("corpus_cases", TESTS / "corpus" / "cases.py")
legal_kernels = module("random_legal_kernels", TESTS / "trust" / "legal_kernels.py")
FOLDER = TESTS.parent / "examples"
EXAMPLES = sorted(
    p for p in FOLDER.glob("*.py") if p.stem not in ("broken", "decoder_attention")
)  # a part of two


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples(path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setattr(sys, "argv", [str(path)])
    with comparing() as names:
        runpy.run_path(str(path), run_name="__main__")
    assert names


def _rows():
    """The first example of every row; the others are slow tests."""
    for row in rows().values():
        for first, example in zip([True, *[False] * len(row.examples)], row.examples):
            marks = [] if first and not example.slow else [pytest.mark.slow]
            yield pytest.param(row, example, id=f"{row.name}-{example.name}", marks=marks)


@pytest.mark.parametrize("row, example", list(_rows()))
def test_kernel_library(row, example):
    with comparing() as names:
        row.run(example.arguments(), example.lnc[-1], example.targets[-1], data=False)
    assert names


@pytest.mark.parametrize("name", cases.MODULES)
def test_corpus(name):
    """Kernels with a planted defect, and their look-alikes."""
    found = [case for case in cases.cases() if case.module == name]
    with comparing() as names, session(data=False, check="none"):
        for case in found:
            case.kernel(*case.arguments())
    assert len(names) == len(found) > 0


@pytest.mark.api("0.6")
@pytest.mark.parametrize("count", [8, pytest.param(400, marks=pytest.mark.slow)])
def test_legal_kernels(count, tmp_path):
    """Kernels made at random."""
    with comparing() as names, session(data=False, check="none"):
        for seed in range(count):
            case = legal_kernels.legal(seed)
            path = tmp_path / f"kernel{seed}.py"
            path.write_text(case.text)
            module(f"kernel{seed}", path).k(*case.inputs)
    assert len(names) == count
