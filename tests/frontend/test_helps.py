"""Every help text is tried: what it says to write does not give the same code again."""

import ast
import re
import sys
from pathlib import Path

import pytest

from nki.compiler.language import frontends
from nki_cli.docs.code_pages import ExampleKind, pages
from nki_isa.diagnostics import NkiError

pytestmark = pytest.mark.api("0.6")  # the newest level whose language is the parser's

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "corpus"))
from helps import BY_CHECK, BY_RUN, found, of_text  # noqa: E402

PAIRS = [(command, pair) for command, pairs in (("check", BY_CHECK), ("run", BY_RUN)) for pair in pairs]

#: Helps that no text provokes here, by their first words, and why.
UNTRIED = {
    # tried where the level is 0.7
    "use an int32 scalar, loaded with nisa.scalar_load from": "test_scalars_0_7",
    "make it int32 (on the host: x.astype(np.int32)); dma_copy": "test_level_0_7",
    "give both the same compile_config, or the outer one": "test_level_0_7",
    "give it an address of its own: tensors that share bytes": "test_level_0_7",
    "compare int32 scalars, or store it with": "test_scalars_0_7",
    "write nisa.memset(dst, value) for a constant": "test_scalars_0_7",
    "allocate dst with dtype=nl.": "test_scalars_0_7",
    "write =nki.compiler.(...)": "test_level_0_7",
    "leave it out: tensors in HBM have an address from": "test_level_0_7",
    "write g[i, j], g[i, :] or g[:, j0:j1]": "test_grids_0_7",
    "make one with nl.tiles": "test_grids_0_7",
    "call nl.tiles, nl.blocks, nl.alloc_tiles or": "test_grids_0_7",
    "take .data of fewer cells: of one tile, or of tiles": "test_grids_0_7",
    "load the bound with nisa.scalar_load from an int32 tensor": "test_scalars_0_7",
    "write nl.fori_loop(lower, upper, body), the loop's body": "test_scalars_0_7",
    "set it to 1 or 2, the cores of a logical core": "test_level_0_7",
    "write (...), or set =": "test_level_0_7",
    # tried where kernels run on several ranks
    "pad to equal counts and write all_to_all": "test_collectives_v",
    "check rows 0 and 1 of metadata_tensor": "test_collectives_v",
    "receive in a tensor of its own, or in two in turn": "test_exchanges",
    "prepare again before each trigger": "test_collectives_v",
    "prepare and trigger in the same turn of a loop": "test_collectives_v",
    "write nki.collectives.": "test_collectives_v",
    "write (nki.collectives.": "test_collectives_v",
    "write nki.simulate(kernel, ranks=2)": "test_collectives",
    "pass a list with the arguments of each rank, or a function": "test_collectives",
    "leave NKI_PRECISE_FP unset for launches over ranks": "test_collectives",
    "put every rank of the launch in a group": "test_collectives",
    "let every rank of a group, and every core of it": "test_collectives",
    # tried where a framework or several cores are at hand
    "pass .cpu()": "a tensor on a device that is not there: test_frameworks",
    "pass .to_dense()": "torch: test_frameworks",
    "convert one kind, for example torch.from_dlpack(x)": "torch and JAX: test_frameworks",
    "return a view of its bytes, out.view(nl.uint8), or call": "torch: test_frameworks",
    # tried by the tests of a command or of the environment
    "give the path of a Python file": "test_commands",
    "call it with arrays at the end of the file, or check the file": "test_reached",
    "name a file in a folder that can be written": "test_commands",
    "pip install": "an extra that is not installed: test_commands",
    "the mechanisms are ": "an option of the command: test_mechanisms",
    "write one of ": "an option of the command and an environment variable: below",
    "set it to a positive number": "an environment variable: test_memory_and_files",
    "the checks are all, none, ": "an environment variable: test_sanitize_command",
    "run the file again, or reload its module": "a file that changed while it ran: test_specialize",
    "remove it; in a string, write it as an escape": "text that is not Python source: test_syntax_errors",
    "name the inner parts of a long expression in statements": "text of hundreds of levels: test_deep_text",
    "pass flat lists, tuples and dicts": "arguments of hundreds of levels: test_arguments",
    "check the shape of that tensor; split it over several": "gigabytes of HBM: test_refusals",
    "write import nki, import nki.language as nl, import nki.isa": "an import that fails: test_beta1",
    "give the index more columns, or pass num_elem": "test_machine",
    "call it by the name it has in its module": "a kernel hidden in an object: test_kernels_go",
    "use handles that this launch of the kernel got": "two launches: test_scheduling",
    "return the value, or pass an object in and set its": "a second file: test_specialize",
    "pass accumulate=False for a new sum, or accumulate=True to": "trn3: test_sanitize_corpus",
    "give each core its own part, by nl.program_id(0), or let": "two writes of equal bytes: test_device",
    "use larger tiles, or a loop that runs on the device": "a program of millions of instructions",
    # tried where ranks run on workers
    "make one before: client =": "test_ranks_on_workers",
    "pass , or a client of Dask": "test_ranks_on_workers",
    "start some: dask worker": "test_ranks_on_workers",
    "start a worker in its place and launch again, or": "test_ranks_on_workers",
    # tried where kernels are swept
    "the names of a sweep are": "test_sweep",
    "give it values as well:": "test_sweep",
    "name a field of a dataclass, a named tuple or a dict": "test_sweep",
    "name a file that a sweep made, or a new one": "test_sweep",
    "pass a backend of joblib: loky, dask with a": "test_sweep",
    "run it again with the same store, which has the finished": "test_sweep",
    "let the name end in": "test_sweep",
    "write --set tile=128,256": "test_sweep_command",
    "write --set NAME=VALUE,..., --shape NAME=128x512,... or": "test_sweep_command",
    "write start:stop:step as in range": "test_sweep_command",
    "write numbers, names of columns, + - * / // %, comparisons": "test_sweep_command",
    "the kernels it calls are:": "test_sweep_command",
    # said of what cannot be told apart by one text
    "see the names of ": "where no name is near",
    "report it with the kernel and this traceback": "a fault of ours",
    "check the arguments of this call; please report it": "a fault of ours",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn2")
    monkeypatch.setenv("NKI_PRECISE_FP", "1")


@pytest.mark.parametrize("command, pair", PAIRS)
def test_what_a_help_says_is_accepted(command, pair):
    wrong, right = pair
    codes = {code for code, _, advice in of_text(wrong, command) if advice}
    after = of_text(right, command)
    assert codes and not codes & {code for code, _, _ in after}
    assert not [code for code, severity, _ in after if severity == "error"]


def test_the_front_ends_that_the_help_names():
    with pytest.raises(NkiError) as refused:
        frontends.read("parse")
    names = refused.value.diagnostics[0].help.removeprefix("write one of ").split(", ")
    assert {frontends.read(name) for name in names} == {*frontends.FrontEnd}


def templates():
    """The help texts of the source, as patterns with ``.*`` where a value stands, and where each is."""
    for root in ("isa", "frontend/nki", "nki_sim", "frontend/nki_cli"):
        for path in sorted((ROOT / root).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call) and not _is_of_command_line(node.func):
                    for keyword in node.keywords:
                        if keyword.arg in ("help", "instead"):
                            for pattern in _patterns(keyword.value):
                                yield pattern, f"{path.relative_to(ROOT)}:{keyword.value.lineno}"


def _is_of_command_line(function):
    return isinstance(function, ast.Attribute) and function.attr in ("Option", "Argument", "Typer", "command")


def _patterns(node):
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [re.escape(node.value)]
    if isinstance(node, ast.JoinedStr):
        return ["".join(re.escape(v.value) if isinstance(v, ast.Constant) else ".*" for v in node.values)]
    if isinstance(node, ast.IfExp):
        return [*_patterns(node.body), *_patterns(node.orelse)]
    return []  # a name or a call, whose texts stand elsewhere


def told():
    """Every help that the wrong examples of the pages and of the corpus get."""
    for command, (wrong, _) in PAIRS:
        yield from (advice for _, _, advice in of_text(wrong, command))
    for page in pages().values():
        for snippet in page.examples(ExampleKind.wrong):
            if snippet.language == "python":
                command, *options = snippet.command()
                yield from (advice for _, _, advice in found(snippet.source(), command, *options))


def test_every_help_of_the_source_is_tried():
    """By an example of a page, or a pair of tests/corpus/helps.py; if neither can be, UNTRIED says why."""
    tried = set(told())
    missing = []
    for pattern, place in templates():
        plain = re.sub(r"\\(.)", r"\1", pattern.replace(".*", ""))
        if not any(re.fullmatch(pattern, advice, re.DOTALL) for advice in tried) and not any(
            plain.startswith(start) for start in UNTRIED
        ):
            missing.append(f"{place}: {plain}")
    assert not missing, "\n".join(["add a pair to tests/corpus/helps.py for", *missing])
