"""Each command on small kernels: what it prints, as text and as JSON, and how it ends."""

import json
import re
import sys
from pathlib import Path

import pytest

from nki_isa.diagnostics.codes import CODES
from nki_isa.ir.instruction import REGISTRY
from nki_isa.machine.target import FIGURES, EvidenceKind
from nki_isa.machine.targets import TARGETS

DATA = Path(__file__).parent / "data"
RUNNING = ("run", "profile", "ir", "sbuf")
COMMANDS = [
    ("run", "add.py"),
    ("run", "--time", "add.py"),
    ("profile", "add.py"),
    ("profile", "--no-data", "add.py"),
    ("ir", "add.py"),
    ("sbuf", "add.py"),
    ("check", "add.py"),
    ("check", "wrong_shapes.py"),
    ("isa",),
    ("isa", "tensor_tensor"),
    ("isa", "--coverage"),
    ("explain", "NKI-V103"),
    ("targets",),
    ("targets", "--target", "trn1"),
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_twice_the_same(nki_sim, words):
    assert nki_sim(*words) == nki_sim(*words)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_json_is_one_object_and_nothing_else(nki_sim, words):
    assert isinstance(nki_sim(*words, "--format", "json").json, dict)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_no_color_means_no_escape(nki_sim, words):
    coloured = {"FORCE_COLOR": "1", "TERM": "xterm-256color"}
    assert "\x1b[" not in nki_sim(*words, "--no-color", environment=coloured).out
    assert "\x1b[" not in nki_sim(*words, environment={**coloured, "NO_COLOR": "1"}).out


def test_colours_are_used_where_wanted(nki_sim):
    coloured = {"FORCE_COLOR": "1", "TERM": "xterm-256color"}
    assert "\x1b[" in nki_sim("check", "wrong_shapes.py", environment=coloured).out


# --- run


def test_run_shows_the_scripts_own_output_and_a_line_per_launch(nki_sim, snapshot):
    shown = nki_sim("run", "add.py")
    assert shown.status == 0
    assert shown.out == "sum is 2.0\nsum is 2.0\n"
    assert shown.err == snapshot


def test_run_json_keeps_standard_output_for_the_object(nki_sim):
    shown = nki_sim("run", "add.py", "--format", "json")
    assert shown.err == "sum is 2.0\nsum is 2.0\n"
    assert [launch["kernel"] for launch in shown.json["launches"]] == ["add", "add"]
    assert shown.json["launches"][1]["inputs"][0] == {"name": "a", "dtype": "float32", "shape": [128, 256]}
    assert shown.json["launches"][0]["time_ns"] is None


def test_headings_are_not_broken_into_lines(nki_sim):
    lines = nki_sim("sbuf", "matmul.py", environment={"COLUMNS": "40"}).out.splitlines()
    assert lines[0] == "matmul(a bfloat16[128, 128], b bfloat16[128, 512]) -> float32[128, 512]  on trn2"


def test_run_time(nki_sim):
    launches = nki_sim("run", "--time", "add.py", "--format", "json").json["launches"]
    assert 0 < launches[0]["time_ns"] < launches[1]["time_ns"]


def test_arguments_after_two_dashes_reach_the_script(nki_sim):
    shown = nki_sim("run", "arguments.py", "--", "--columns", "96", "two words")
    assert shown.out == "['arguments.py', '--columns', '96', 'two words']\n"
    assert "float32[128, 96]" in shown.err


def test_the_script_sees_the_process_it_expects_and_leaves_it_as_it_was(nki_sim):
    import os

    before = list(sys.argv), list(sys.path), os.environ.get("NEURON_PLATFORM_TARGET_OVERRIDE")
    assert "sees trn1 2" in nki_sim("run", "environment.py", "--target", "inf2").out
    assert (list(sys.argv), list(sys.path), os.environ.get("NEURON_PLATFORM_TARGET_OVERRIDE")) == before


def test_a_script_may_change_its_working_directory(nki_sim, tmp_path, monkeypatch):
    text = (DATA / "wrong_shapes.py").read_text()
    (tmp_path / "moves.py").write_text(
        text.replace("import numpy", "import os\nos.chdir('/')\nimport numpy", 1)
    )
    monkeypatch.chdir(tmp_path)
    assert "nisa.nc_matmul(" in nki_sim("run", "moves.py").err


@pytest.mark.parametrize("status, expected", [("3", 3), ("0", 0), ("text", 1)])
def test_the_status_a_script_exits_with_is_the_commands(nki_sim, status, expected):
    shown = nki_sim("run", "exits.py", "--", status)
    assert shown.status == expected
    assert "add(" in shown.err


def test_a_python_error_shows_the_users_frames_only(nki_sim):
    shown = nki_sim("run", "script_error.py")
    assert shown.status == 1
    assert 'script_error.py", line 12, in <module>' in shown.err
    assert 'script_error.py", line 8, in average' in shown.err
    assert "ZeroDivisionError" in shown.err
    assert "nki_cli" not in shown.err
    assert "nki_cli" in nki_sim("run", "--traceback", "script_error.py").err


def test_a_python_error_as_json_and_lines(nki_sim):
    found = nki_sim("run", "script_error.py", "--format", "json").json["diagnostics"]
    assert [(d["code"], d["span"]["line"]) for d in found] == [("NKI-L031", 8)]
    assert nki_sim("run", "script_error.py", "--format", "lines").out.startswith("script_error.py:8:")


@pytest.mark.parametrize("command", RUNNING)
def test_a_refused_kernel_is_told_with_its_line_and_ends_with_1(nki_sim, command):
    shown = nki_sim(command, "wrong_shapes.py")
    assert shown.status == 1
    assert "error[NKI-V103]" in shown.err
    assert "11 |     nisa.nc_matmul(" in shown.err
    assert "called from wrong_shapes at wrong_shapes.py:25" in shown.err


def test_a_wrong_call_is_shown_at_the_call(nki_sim):
    shown = nki_sim("run", "wrong_call.py")
    assert shown.status == 1
    assert "6 | add(np.ones((128, 64), np.float32))" in shown.err


# --- files that cannot be run


@pytest.mark.parametrize("command", [*RUNNING, "check"])
@pytest.mark.parametrize(
    "name, word", [("missing.py", "not exist"), ("", "directory"), ("text.rst", "Python")]
)
def test_a_file_that_cannot_be_run_is_wrong_use(nki_sim, tmp_path, command, name, word):
    (tmp_path / "text.rst").write_text("words")
    path = tmp_path / name
    shown = nki_sim(command, path)
    assert shown.status == 2
    assert "NKI-L026" in shown.err and word in shown.err
    assert nki_sim(command, path, "--format", "json").json["diagnostics"][0]["code"] == "NKI-L026"


def test_bytes_that_are_no_text(nki_sim, tmp_path):
    (tmp_path / "binary.py").write_bytes(b"\x7fELF\xff\xfe")
    shown = nki_sim("run", tmp_path / "binary.py")
    assert shown.status == 2
    assert "not UTF-8" in shown.err


@pytest.mark.parametrize("command", RUNNING)
def test_no_kernel_call(nki_sim, command):
    shown = nki_sim(command, "no_kernel.py")
    assert shown.status == 2
    assert "NKI-L027" in shown.err


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_file_python_cannot_read(nki_sim, tmp_path, command):
    (tmp_path / "syntax.py").write_text('"""Text."""\nx = (1,\n')
    shown = nki_sim(command, tmp_path / "syntax.py")
    assert shown.status == 1
    assert "error[NKI-L0" in shown.out + shown.err
    assert "2 | x = (1," in shown.out + shown.err


@pytest.mark.parametrize(
    "words", [("run",), ("nothing",), ("run", "add.py", "--wrong"), ("check", "--format", "x", "f")]
)
def test_wrong_use_ends_with_2(nki_sim, words):
    assert nki_sim(*words).status == 2


@pytest.mark.parametrize("command", [*RUNNING, "check"])
def test_an_unknown_target_is_wrong_use(nki_sim, command):
    shown = nki_sim(command, "add.py", "--target", "trn9")
    assert shown.status == 2
    assert "NKI-V116" in shown.err


def test_the_option_goes_before_the_variable(nki_sim):
    environment = {"NEURON_PLATFORM_TARGET_OVERRIDE": "trn3"}
    assert " on trn3" in nki_sim("run", "add.py", environment=environment).err
    assert " on trn1" in nki_sim("run", "add.py", "--target", "gen2", environment=environment).err


# --- check


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 knows lines, not columns")
def test_check_reports_every_error_of_a_kernel(nki_sim, snapshot):
    shown = nki_sim("check", "wrong_shapes.py")
    assert shown.status == 1
    assert shown.err.startswith("What the file does after the refused call was not checked.\n")
    assert shown.err.endswith("See `nki-sim explain NKI-V103`\n")
    assert shown.out == snapshot


def test_check_as_json_has_the_same_errors(nki_sim):
    found = nki_sim("check", "wrong_shapes.py", "--format", "json").json
    assert (found["errors"], found["warnings"], found["launches"]) == (3, 0, 0)
    assert {d["code"] for d in found["diagnostics"]} == {"NKI-V103"}
    assert [d["span"]["line"] for d in found["diagnostics"]] == [22, 11, 26]


def test_check_as_lines_for_an_editor(nki_sim):
    lines = nki_sim("check", "wrong_shapes.py", "--format", "lines").out.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("wrong_shapes.py:") and ": error[NKI-V103]: " in line for line in lines)


def test_check_reports_what_does_not_fit(nki_sim):
    shown = nki_sim("check", "overflow.py")
    assert shown.status == 1
    assert "NKI-M003" in shown.out and "13 |" in shown.out


def test_check_of_a_right_file(nki_sim):
    shown = nki_sim("check", "add.py")
    assert shown.status == 0
    assert shown.out == "no errors in add.py (2 kernel calls checked for trn2)\n"


def test_static_check_runs_nothing(nki_sim, tmp_path):
    (tmp_path / "writes.py").write_text("import pathlib\npathlib.Path('ran').touch()\n")
    assert nki_sim("check", "--static", tmp_path / "writes.py").status == 0
    assert not list(tmp_path.glob("**/ran"))


@pytest.mark.parametrize("command", [("profile", "--no-data"), ("ir",), ("sbuf",), ("check",)])
def test_an_assertion_on_zeros_says_nothing(nki_sim, command):
    """The script goes on after what compares results; where it uses what the comparison gives, it ends."""
    shown = nki_sim(*command, "own_assertion.py")
    assert shown.status == 0
    assert "NKI-L030" not in shown.out + shown.err
    assert nki_sim("run", "own_assertion.py").status == 0


@pytest.mark.parametrize("command", [("profile", "--no-data"), ("ir",), ("sbuf",), ("check",)])
def test_an_assertion_that_ends_a_script_on_zeros_is_a_note(nki_sim, tmp_path, command):
    text = (DATA / "own_assertion.py").read_text().replace("np.testing", "equal = np.testing")
    (tmp_path / "uses.py").write_text(text)
    (tmp_path / "add.py").write_text((DATA / "add.py").read_text())
    shown = nki_sim(*command, tmp_path / "uses.py")
    assert shown.status == 0
    assert "note[NKI-L030]" in shown.out + shown.err
    assert "8 | equal = np.testing.assert_allclose" in shown.out + shown.err


@pytest.mark.parametrize("command", [("profile", "--no-data"), ("ir",), ("sbuf",), ("check",)])
def test_a_script_that_ends_on_zeros_is_a_warning(nki_sim, command):
    shown = nki_sim(*command, "stops_on_zeros.py")
    assert shown.status == 0
    assert "warning[NKI-L030]" in shown.out + shown.err
    assert "ValueError: add is not addition" in shown.out + shown.err
    assert nki_sim("run", "stops_on_zeros.py").status == 0


def test_the_status_a_script_exits_with_on_zeros_does_not_count(nki_sim, tmp_path):
    script = tmp_path / "exits.py"
    script.write_text(
        (DATA / "exits.py").read_text().replace("int(sys.argv[1])", "3").replace("sys.argv[1]", "'3'")
    )
    (tmp_path / "add.py").write_text((DATA / "add.py").read_text())
    assert nki_sim("run", script).status == 3
    assert nki_sim("ir", script).status == 0


@pytest.mark.parametrize("command", [*RUNNING, "check"])
def test_assertions_of_kernels_are_kept_without_data(nki_sim, command):
    shown = nki_sim(command, "kernel_assertion.py")
    assert shown.status == 1
    assert "error[NKI-L020]: a has 64 columns, not 32" in shown.out + shown.err


def test_an_assertion_on_real_results_is_an_error(nki_sim):
    shown = nki_sim("run", "failed_assertion.py")
    assert shown.status == 1
    assert "AssertionError: 1 + 1 is not 3" in shown.err


# --- ir, sbuf


def test_ir_parses_back(nki_sim):
    from nki_isa.text.parser import parse_program
    from nki_isa.text.printer import format_program

    launches = nki_sim("ir", "add.py", "--format", "json").json["launches"]
    texts = [core["ir"] for launch in launches for core in launch["cores"]]
    for text in texts:
        assert format_program(parse_program(text)) == text
    assert nki_sim("ir", "add.py").out == "\n".join(texts)


def test_sbuf_table(nki_sim, snapshot):
    assert nki_sim("sbuf", "add.py").out == snapshot


def test_sbuf_json_is_the_placements_report(nki_sim):
    launches = nki_sim("sbuf", "add.py", "--format", "json").json["launches"]
    first, second = (launch["cores"][0] for launch in launches)
    assert first["memory"]["sbuf"]["peak_kib"] == 0.5
    assert second["memory"]["sbuf"]["peak_kib"] == 2.0
    assert second["memory"]["psum"]["banks_at_peak"] == 0


def test_sbuf_shows_what_does_not_fit(nki_sim, tmp_path):
    (tmp_path / "full.py").write_text(FULL)
    html = tmp_path / "full.html"
    told = nki_sim("sbuf", str(tmp_path / "full.py"), "--no-spill", "--html", str(html))
    assert told.status == 1 and "NKI-M001" in told.err
    assert "SBUF            240 KiB   208 KiB   115.4 %" in told.out and "tile and 29 more" in told.out
    assert "full.py:8" in html.read_text()
    found = nki_sim("sbuf", str(tmp_path / "full.py"), "--no-spill", "--format", "json").json
    assert found["launches"] == [] and [d["code"] for d in found["diagnostics"]] == ["NKI-M001"]
    assert found["overfull"][0]["cores"][0]["memory"]["sbuf"]["peak_kib"] == 240


@pytest.mark.parametrize("command", ["run", "check", "profile", "sbuf"])
def test_what_does_not_fit_runs_with_spills_and_is_refused_if_asked(nki_sim, tmp_path, command):
    (tmp_path / "full.py").write_text(FULL)
    told = nki_sim(command, str(tmp_path / "full.py"))
    assert told.status == 0 and "warning[NKI-M009]" in told.out + told.err
    told = nki_sim(command, str(tmp_path / "full.py"), "--no-spill")
    assert told.status == 1 and "error[NKI-M001]" in told.out + told.err


FULL = """import numpy as np
import nki, nki.language as nl, nki.isa as nisa

@nki.jit
def full(x):
    tiles = []
    for k in range(30):
        tile = nl.ndarray((128, 2048), dtype=nl.float32, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x)
        tiles.append(tile)
    for tile in tiles:
        nisa.dma_copy(dst=x, src=tile)
    return x

full(np.zeros((128, 2048), np.float32))
"""


# --- profile


def test_profile_tables(nki_sim, snapshot):
    """The layout; figures are the timing tests' business."""
    shown = nki_sim("profile", "matmul.py")
    assert shown.status == 0
    assert re.sub(r"[\d.]+ (ns|us|%)", "#", re.sub(r" +|─+", " ", shown.out)) == snapshot


def test_profile_without_data_has_the_same_times(nki_sim):
    def timed(*words):
        launches = nki_sim("profile", *words, "--format", "json").json["launches"]
        return [core["profile"] for launch in launches for core in launch["cores"]]

    assert timed("matmul.py") == timed("--no-data", "matmul.py")


def test_profile_json_has_the_figures(nki_sim):
    launch = nki_sim("profile", "matmul.py", "--format", "json").json["launches"][0]
    (found,) = launch["cores"]
    figures = found["profile"]
    assert launch["time_ns"] == found["time_ns"]
    assert figures["total_ns"] == found["time_ns"] > figures["duration_ns"] > 0
    assert set(figures["engines"]) == {"tensor", "vector", "scalar", "gpsimd", "sync"}
    assert figures["flops"] == 2 * 128 * 128 * 512
    assert figures["hbm_read_bytes"] == 128 * 128 * 2 + 128 * 512 * 2
    assert figures["hbm_write_bytes"] == 128 * 512 * 4
    assert figures["dma"]["transfers"] == 3
    assert found["memory"]["psum"]["banks_at_peak"] == 1


def test_profile_writes_a_trace(nki_sim, tmp_path):
    path = tmp_path / "out.json"
    shown = nki_sim("profile", "matmul.py", "--trace", path)
    assert shown.status == 0
    assert f"{path} written" in shown.err
    slices = [e for e in json.loads(path.read_text())["traceEvents"] if e["ph"] == "X"]
    names = [e["name"] for e in slices if e["cat"] != "critical path"]
    assert sorted(names) == ["dma_copy", "dma_copy", "dma_copy", "nc_matmul", "tensor_copy"]
    assert any(e["cat"] == "critical path" and e["name"] == "DMA" for e in slices)


def test_a_trace_that_cannot_be_written_is_wrong_use(nki_sim, tmp_path):
    words = ("profile", "matmul.py", "--trace", tmp_path / "missing" / "out.json")
    shown = nki_sim(*words)
    assert shown.status == 2
    assert "NKI-L033" in shown.err and "No such file" in shown.err
    assert nki_sim(*words, "--format", "json").json["diagnostics"][0]["code"] == "NKI-L033"


def test_profile_writes_a_page(nki_sim, tmp_path):
    shown = nki_sim("profile", "--no-data", "matmul.py", "--html", tmp_path / "out.html")
    assert shown.status == 0
    assert "out.html written" in shown.err
    assert "matmul(a bfloat16[128, 128]" in (tmp_path / "out.html").read_text()


def test_a_refused_kernel_leaves_an_old_trace(nki_sim, tmp_path):
    path = tmp_path / "out.json"
    path.write_text("old")
    assert nki_sim("profile", "wrong_shapes.py", "--trace", path).status == 1
    assert path.read_text() == "old"


# --- several cores


def test_each_core_is_shown(nki_sim, tmp_path):
    shown = nki_sim("run", "two_cores.py")
    assert shown.status == 0, shown.err
    assert "on trn2, 2 cores" in shown.err
    assert nki_sim("sbuf", "two_cores.py").out.count(", core ") == 2
    assert nki_sim("ir", "two_cores.py").out.count("program halves") == 2
    path = tmp_path / "out.json"
    text = nki_sim("profile", "two_cores.py", "--trace", path).out
    assert "core 0 of 2" in text and "core 1 of 2" in text
    events = json.loads(path.read_text())["traceEvents"]
    names = [e["args"]["name"] for e in events if e["name"] == "process_name"]
    assert names == ["halves on trn2 (launch 1, core 0)", "halves on trn2 (launch 1, core 1)"]
    assert min(e["ts"] for e in events if e["ph"] == "X" and e["pid"] == 2) == 0
    (launch,) = nki_sim("profile", "two_cores.py", "--format", "json").json["launches"]
    assert launch["time_ns"] == max(core["time_ns"] for core in launch["cores"])


# --- isa, explain, targets


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_isa_of_every_instruction(nki_sim, name):
    found = nki_sim("isa", name, "--format", "json").json
    assert [p["name"] for p in found["parameters"]] == list(REGISTRY[name].parameters)
    assert len(found["constraints"]) == len(REGISTRY[name].constraints)
    assert all(c["source"] for c in found["constraints"])
    assert all(f["source"] for f in found["figures"])
    assert all(c["fixed"]["source"] and c["fixed"]["evidence"] for c in found["costs"])
    text = nki_sim("isa", f"nisa.{name}").out
    assert f"{REGISTRY[name].namespace}.{name}(" in text


def test_isa_lists_all(nki_sim):
    assert [i["name"] for i in nki_sim("isa", "--format", "json").json["instructions"]] == sorted(REGISTRY)


def test_isa_coverage_counts(nki_sim):
    found = nki_sim("isa", "--coverage", "--format", "json").json
    assert found["instructions"] == len(REGISTRY)
    assert found["with_numerics"] <= found["instructions"]
    assert sum(found["by_engine"].values()) >= found["instructions"]
    assert found["constraints_with_a_source"] == found["constraints"] > 700
    for target, known in found["costs"].items():
        has = sum(TARGETS[target].has(cls.needs) and not cls.is_free for cls in REGISTRY.values())
        assert sum(known["fixed"].values()) == has >= sum(known["throughput"].values())
    assert found["costs"]["trn2"]["fixed"]["fitted"] >= 20
    assert found["costs"]["trn3"]["throughput"]["published"] >= 10
    shown = nki_sim("isa", "--coverage").out
    assert all(kind.value in shown for kind in EvidenceKind)


def test_isa_of_an_unknown_name_suggests(nki_sim):
    shown = nki_sim("isa", "nc_matmull")
    assert shown.status == 2
    assert "did you mean nc_matmul" in shown.err


@pytest.mark.parametrize("code", sorted(CODES))
def test_explain_every_code(nki_sim, code):
    shown = nki_sim("explain", code.removeprefix("NKI-").lower())
    assert shown.status == 0
    assert CODES[code].rule in " ".join(shown.out.split())


def test_explain_an_unknown_code_suggests(nki_sim):
    shown = nki_sim("explain", "NKI-V999")
    assert shown.status == 2
    assert "did you mean NKI-V" in shown.err


def test_targets_lists_every_figure_with_its_source(nki_sim):
    found = nki_sim("targets", "--format", "json").json
    assert list(found) == list(TARGETS)
    for name, target in TARGETS.items():
        assert list(found[name]) == [*FIGURES, "features", "machines"]
        figures = [
            figure for machine in found[name]["machines"].values() for figure in machine["links"].values()
        ]
        assert figures and all(figure["evidence"] and figure["source"] for figure in figures)
        assert all(found[name][figure]["source"] for figure in FIGURES)
        assert found[name]["sbuf_partition_bytes"]["value"] == target.sbuf_partition_bytes
    assert found["trn2"]["tensor_ghz"]["unit"] == "GHz"
    assert found["trn2"]["dma_bytes_per_ns"]["unit"] == "GB/s"
    assert found["trn2"]["psum_banks"]["unit"] == ""


def test_every_word_of_help_fits(nki_sim):
    assert "Exit status" in nki_sim("--help").out
    for words in COMMANDS:
        assert nki_sim(words[0], "--help").status == 0


def test_json_objects_of_diagnostics_are_those_of_the_error(nki_sim):
    found = nki_sim("run", "overflow.py", "--format", "json").json["diagnostics"][0]
    assert list(found) == [
        "code", "severity", "category", "title", "message", "span", "rule", "source", "help",
        "notes", "labels", "stack", "fix",
    ]  # fmt: skip
    json.dumps(found)


def test_a_module_of_a_package_keeps_its_relative_imports(nki_sim, tmp_path):
    """As under ``python -m``: what is checked is the kernel, not the way it was started."""
    package = tmp_path / "outer" / "inner"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").write_text("")
    (package.parent / "sizes.py").write_text("ROWS = 128\n")
    (package / "kernel.py").write_text(
        "import nki\nimport nki.language as nl\nimport nki.isa as nisa\nimport numpy as np\n"
        "from ..sizes import ROWS\n\n\n@nki.jit\ndef kernel(x):\n"
        "    tile = nl.ndarray((ROWS, 4), dtype=x.dtype, buffer=nl.sbuf)\n"
        "    nisa.dma_copy(dst=tile, src=x)\n    nisa.dma_copy(dst=x, src=tile)\n    return x\n\n\n"
        "kernel(np.zeros((128, 4), np.float32))\n"
    )
    shown = nki_sim("check", str(package / "kernel.py"))
    assert shown.status == 0, shown.err
    assert "1 kernel call checked" in shown.out


COUNTED = """
import numpy as np
import nki
import nki.isa as nisa
import nki.language as nl


@nki.jit
def counted(x, n):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    count = nisa.register_alloc()
    turns = nl.ndarray((1, 1), dtype=nl.int32, buffer=nl.sbuf)
    nisa.dma_copy(dst=turns, src=n)
    nisa.register_load(count, turns)
    nisa.dma_copy(dst=tile, src=x)
    for _ in nl.dynamic_range(count):
        nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=2.0)
    nisa.dma_copy(dst=out, src=tile)
    return out


counted(np.ones((4, 8), np.float32), np.array([[3]], np.int32))
"""


@pytest.mark.api("0.6")
def test_turns_of_a_loop_that_data_bound_are_said_and_asked_for(nki_sim, tmp_path):
    (tmp_path / "counted.py").write_text(COUNTED)

    def profiled(*words):
        found = nki_sim("profile", *words, tmp_path / "counted.py", "--format", "json")
        assert found.status == 0
        (core,) = found.json["launches"][0]["cores"]
        return core["profile"]["events"], " ".join(core["profile"]["notes"])

    with_data, told = profiled()
    assert told == ""
    one, told = profiled("--no-data")
    assert one == with_data - 2 and "timed for one turn; --trips N takes N" in told
    three, told = profiled("--no-data", "--trips", "3")
    assert three == with_data and "timed for 3 turns, as asked" in told
    assert nki_sim("profile", "--no-data", "--trips", "-1", tmp_path / "counted.py").status == 2
