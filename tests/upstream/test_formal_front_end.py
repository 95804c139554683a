"""Agreement with the public formal front end (leanprover/KLR) on its own test kernels.

    KLR=/path/to/KLR make test-upstream

Its suite (``interop/test``) runs from the checkout, unmodified, with our front end in
the place of its own. Only the checkout is read. Every disagreement is listed here with
its reason, and a test fails if the list is wrong in either direction.
"""

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

KLR = os.environ.get("KLR")
pytestmark = [
    pytest.mark.upstream,
    pytest.mark.skipif(not KLR, reason="set KLR to a checkout of leanprover/KLR"),
]

_LISTS = "the guide says lists work as in Python; there they give no default and ignore nothing missing"
_DICTS = "the guide says dicts are like Python's; there views are not lists and a missing key is an error"
DISAGREEMENTS = {
    "test_class::test_succeed[overload2]": "__req__ and its like are not methods of Python",
    "test_dict::test_succeed[expr_dict]": "it asserts an empty dict, which is false in Python",
    "test_dict::test_succeed[items]": _DICTS,
    "test_dict::test_succeed[keys]": _DICTS,
    "test_dict::test_succeed[values]": _DICTS,
    "test_dict::test_succeed[pop]": _DICTS,
    "test_dict::test_succeed[dict_len]": _DICTS,
    "test_list::test_succeed[count]": _LISTS,
    "test_list::test_succeed[index]": _LISTS,
    "test_list::test_succeed[remove]": _LISTS,
    "test_list::test_succeed[expr_list]": "the suite calls it without its parameter",
    "test_dyn_ap::test_dynamic_ap": "a kernel that pytest collects as a test, and calls outside of one",
    "test_dyn_ap::test_dyn_ap_fail": "a kernel that pytest collects as a test, and calls outside of one",
    "test_dyn_ap::test_succeed[test_dynamic_ap]": "it offsets partitions at run time, against the API page",
}


def test_agreement(tmp_path):
    suite = Path(KLR) / "interop" / "test"
    report = tmp_path / "report.xml"
    paths = [str(Path(__file__).parent / "formal"), str(suite), *sys.path]
    command = ["pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-c", os.devnull, "-o", "addopts="]
    done = subprocess.run(
        [sys.executable, "-m", *command, "--import-mode=importlib", f"--junitxml={report}", str(suite)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    cases = ElementTree.parse(report).getroot().iter("testcase")
    results = {
        f"{case.get('classname').rpartition('.')[2]}::{case.get('name')}": case.find("failure") is not None
        for case in cases
    }
    assert len(results) > 100, done.stdout
    assert {name for name, failed in results.items() if failed} == set(DISAGREEMENTS), done.stdout
