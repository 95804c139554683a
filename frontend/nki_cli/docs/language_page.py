"""Which Python kernels may use, ``docs/language.md``: from the tables of constructs and built-ins."""

from __future__ import annotations

from nki.compiler.language.constructs import CONSTRUCTS
from nki.compiler.language.profile import BUILTINS, PROFILES, Acceptance

_HEAD = """\
# The language of kernels

<!-- Printed by `python -m nki_cli.docs docs` from nki/compiler/language/{constructs,profile}.py. -->

This is the constrained language of the parser front end, the language of NKI 0.2 to 0.6. A kernel in it is
Python text that is compiled, not run. From level 0.7 on all of Python may be used: a kernel that needs more
is traced ([migration.md](migration.md#the-two-front-ends)); `--language strict` still refuses it.

Everything a kernel reaches by name is checked before the first instruction is emitted:
`nki-sim check file.py`, or `nki.compiler.checker.check(kernel)`.

Which Python is accepted depends on the language profile. Where kernels may not be traced, `nki-sim check` and
`nki-sim lsp` hold them to `strict`; everything else is held to `library`; `--language` chooses.

| what is known | `library` | `strict` |
|---|---|---|
| documented: the language guide states it, or the public formal front end takes it | accepted | accepted |
| used: public kernels that compile use it | accepted | refused |
| undocumented: no source takes it, none refuses it | warning | refused |
| refused: a source refuses it | refused | refused |

Sources: the *language guide*, *migration guide* and *simulator guide* are pages of the Neuron SDK
documentation; *KLR* is leanprover/KLR, the public formal front end; *nkilib* is the public kernel library.
"""

_FOOT = """\
## Where the sources disagree

- **Functions inside functions.** KLR refuses them; the migration guide 0.5 to 0.6 writes the bodies of
  `nl.fori_loop` and `nl.while_loop` as such functions. Accepted.
- **`is`.** The migration guide 0.2 to 0.3 says the compiler does not support it; KLR reads `is` as `==`,
  without a word for `is None` and with a warning otherwise. `is None` is accepted, the rest refused.
- **Classes without a base.** KLR takes them; the language guide asks for NKIObject. Refused.
- **Keyword-only parameters and `**kwargs`.** KLR takes the first and warns of the second; the migration
  guide 0.2 to 0.3 refuses the `*` separator, and a call with `**` is refused by both. Refused.
- **Unknown names.** KLR lets an unknown module pass until it is used; here every name of a kernel stands
  for something.
- **`t[i]` with the register of a loop.** The language guide says that registers index tensors; the API page
  of NkiTensor lists integers, slices, Ellipsis and `nl.ds`, and gives run-time positions to `select` and
  `nl.ds`. Refused (NKI-V012): write `t.select(dim, i)` or `nl.ds(i, size)`.
- **`for a, b in ...`.** Tuples are unpacked in assignments by all sources; KLR takes one name as a loop
  variable. Refused.
- **Instructions that return tensors.** Some of KLR's tests use Beta 1 (`x = nisa.activation(...)`); the
  migration guide 0.1 to 0.2 requires `dst`. Refused.
- **`view[...] = tile`.** The language guide says that instructions write tensors; the migration guide's own
  migrated code assigns, and the API page has `NkiTensor.__setitem__`. Accepted at every level: a copy, by DMA
  where one of the two is in HBM. A number is refused: `nisa.memset`.
- **Decorators above `nki.jit`.** KLR knows none; the release notes of NKI 0.2 unwrap them. Accepted: they
  run on the host.
- **Results in `nl.hbm`.** Tutorials allocate them so; the release notes of NKI 0.3 refuse it. A warning from
  0.3 on, in the strict profile an error.
- **`.buffer` of an input.** Deep-dive kernels assert that it is `nl.hbm`, others `nl.shared_hbm`. It equals
  both.
- **Where a run-time offset of `.ap` counts.** The guide multiplies by the sizes of the base tensor to the
  right of the dimension; the API page takes the stride of the dimension of the view. They are the same for a
  whole tensor; for a view it is the stride.
- **Negative strides of `.ap`.** An architecture guide gives a stride as int16, which has a sign; the API page
  compares `.ap` with `torch.as_strided`, which takes none, and no example has one. Refused (NKI-V021).
- **Where a fixed `offset` of `.ap` counts.** The guide and the deep dive count from the start of the storage,
  the API page adds it to the view's own. It counts from the storage, except where the pattern's first stride
  is that of the view's own shape instead of the storage's: then pattern and offset count in the view, with
  the warning NKI-V022, which the strict profile refuses.
- **Format specifiers in f-strings.** KLR refuses them; the guide says nothing. Refused.
- **Meaning of list and dict methods.** In KLR `list.count()` takes no argument, `list.index` of an absent
  value is None, and `dict.pop` of an absent key is None; the guide says they work as in Python, and here
  they do. In Python views of a dict are not lists, and an empty dict is false.
- **Reflected comparisons.** KLR calls `__req__` and its like; Python has no such methods. Not called.
- **Run-time offsets along partitions.** KLR takes `scalar_offset` on dimension 0 of an SBUF tensor; the API
  page excludes it for on-chip tensors. Refused.

Run on KLR's own test kernels the strict profile agrees with 95 of 109; the others are the points above and
two kernels that pytest takes for tests. `tests/upstream/test_formal_front_end.py` lists them one by one.
"""


def page() -> str:
    """The text of the page."""
    return "\n".join([_HEAD, _constructs(), _builtins(), _FOOT])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _in(profile: str, verdict: Acceptance) -> str:
    severity = PROFILES[profile][verdict]
    return "yes" if severity is None else "warning" if severity.value == "warning" else "no"


def _constructs() -> str:
    lines = [
        "## Constructs\n",
        "| construct | example | `library` | `strict` | source | why not | instead |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in CONSTRUCTS:
        example = row.example.replace("\n", " ⏎ ")
        verdict = (_in("library", row.verdict), _in("strict", row.verdict), row.source)
        cells = (row.title, f"`{example}`", *verdict, row.why, row.instead)
        lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    return "\n".join([*lines, ""])


def _builtins() -> str:
    lines = [
        "## Built-in names\n",
        "Built-ins that are not in the table are refused.\n",
        "| built-in | `library` | `strict` | source | instead |",
        "|---|---|---|---|---|",
    ]
    for row in BUILTINS.values():
        cells = (
            f"`{row.name}`",
            _in("library", row.verdict),
            _in("strict", row.verdict),
            row.source,
            row.instead,
        )
        lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    return "\n".join([*lines, ""])
