"""The list of checks: one class each, from which options, pages and warm calls take what they know."""

from __future__ import annotations

import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki.runtime import session
from nki_isa.diagnostics import Severity
from nki_isa.diagnostics.codes import CODES
from nki_sim.sanitize import CHECKS, DATA_CODES, DEFAULT, Check, all_checks
from nki_sim.sanitize import check as room


def test_each_check_states_all_of_itself():
    checks = all_checks()
    assert [check.listed for check in checks] == list(range(len(checks)))
    assert list(CHECKS) == [check.name for check in checks]
    told = [code for check in checks for code in check.codes]
    assert len(set(told)) == len(told) and set(told) <= {code.code for code in CODES.values()}
    for check in checks:
        assert all(code[-4:] in check.finds or code in check.finds for code in check.codes[:1])
        assert (check.name in DEFAULT) == check.default
        assert set(check.codes) <= DATA_CODES or not check.needs_data


@pytest.mark.parametrize("needs_data", [True, False])
def test_a_check_is_one_class_and_those_that_need_data_look_at_warm_calls_too(monkeypatch, needs_data):
    monkeypatch.setattr(room, "_CHECKS", list(room._CHECKS))
    looked = []

    class Large(Check):
        name = "large"
        finds = "large results (NKI-N003)"
        codes = ("NKI-N003",)
        listed = 99

        def judge(self, result, again, strict):
            looked.append(float(result.outputs[0].max()))
            if looked[-1] > 100:
                message = f"a result is {looked[-1]}"
                self.scene.findings.add("large", "NKI-N003", message, stack=(), severity=Severity.note)

    Large.needs_data = needs_data

    @nki.jit
    def doubled(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x)
        nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=2.0)
        nisa.dma_copy(dst=out, src=tile)
        return out

    x = np.ones((4, 8), np.float32)
    with session(check=frozenset({"large", "unused"})) as record:
        for factor in (1, 2, 100):
            assert doubled(factor * x).max() == 2 * factor
    assert looked == ([2, 4, 200] if needs_data else [2])
    assert [d.code for launch in record.launches for d in launch.diagnostics] == ["NKI-N003"] * needs_data
