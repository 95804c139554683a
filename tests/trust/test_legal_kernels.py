"""Random legal kernels compute what numpy says and draw no error; planted defects are all found.

On every generation, at the oldest and the newest level of the API; a sample by default, all with ``-m slow``.
"""

import importlib.util
import sys

import legal_kernels
import numpy as np
import pytest

from nki import levels, runtime
from nki_isa.diagnostics import NkiError, Severity
from nki_isa.machine.targets import as_target

TARGETS, LEVELS = ("trn1", "trn2", "trn3"), ("0.2", "0.6")
PLACES = [(target, level) for target in TARGETS for level in LEVELS]


def some(sample, all_of_it):
    return [sample, pytest.param(all_of_it, marks=pytest.mark.slow)]


@pytest.fixture(params=PLACES, ids=lambda place: "-".join(place))
def place(request):
    """A generation, with a level of the API in force."""
    target, level = request.param
    before = levels.current()
    levels.use(level)
    yield target
    levels.use(before)


def kernel_of(text, path):
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("legal_kernel", path)
    module = sys.modules["legal_kernel"] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules["legal_kernel"]
    return module.k


def run(case, target, path):
    """What a kernel returns, and what was told."""
    with runtime.session(target=as_target(target)) as session:
        result = kernel_of(case.text, path)(*case.inputs)
    return result, session.launches[-1].diagnostics


@pytest.mark.parametrize("count", some(8, 2_000))
def test_legal_kernels_are_right_and_draw_no_error(place, count, tmp_path, monkeypatch):
    monkeypatch.setenv("NKI_SIM_CACHE", "off")
    wrong = []
    for seed in (
        range(PLACES.index((place, levels.current())), count, len(PLACES)) if count > 8 else range(count)
    ):
        case = legal_kernels.legal(seed)
        try:
            result, told = run(case, place, tmp_path / f"kernel{seed}.py")
        except NkiError as refused:
            wrong.append((seed, str(refused)))
            continue
        # A result nobody reads is random here, and said; and loops of any level. Nothing else is.
        expected = ("NKI-H010", "NKI-L056")
        unexpected = [d for d in told if d.severity is not Severity.note and d.code not in expected]
        if unexpected:
            wrong.append((seed, unexpected))
        a, b = result.astype(np.float32), case.expected.astype(np.float32)
        bound = case.tolerance * float(np.max(np.abs(b), initial=1.0, where=np.isfinite(b)))
        if result.dtype != case.expected.dtype or not np.allclose(a, b, rtol=0, atol=bound, equal_nan=True):
            wrong.append((seed, a, b, case.text))
    assert wrong == []


@pytest.mark.api("0.6")
@pytest.mark.parametrize("count", some(len(legal_kernels.DEFECTS), 200))
def test_planted_defects_are_all_found(count, tmp_path, monkeypatch):
    monkeypatch.setenv("NKI_SIM_CACHE", "off")
    monkeypatch.setenv("NKI_SIM_MAX_STEPS", "100_000")
    missed = []
    for seed in range(count):
        name, case = legal_kernels.defective(seed)
        target = TARGETS[seed // len(legal_kernels.DEFECTS) % len(TARGETS)]
        try:
            _, told = run(case, target, tmp_path / f"kernel{seed}.py")
        except NkiError as refused:
            told = refused.diagnostics
        if not case.codes & {d.code for d in told}:
            missed.append((seed, name, target, [(d.code, d.message) for d in told]))
    assert missed == []
