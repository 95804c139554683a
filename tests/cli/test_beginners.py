"""Wrong kernels of the kind beginners write, and the whole of what they are told."""

from pathlib import Path

import pytest

KERNELS = sorted((Path(__file__).parent / "data" / "beginners").glob("*.py"))


@pytest.mark.api("0.6")
@pytest.mark.parametrize("file", KERNELS, ids=lambda file: file.stem)
def test_what_a_beginner_is_told(file, nki_sim, snapshot):
    shown = nki_sim("check", f"beginners/{file.name}")
    assert shown.status == 1
    errors = shown.out.count("error[")
    assert errors == shown.out.count("= help:") > 0
    assert shown.out == snapshot
