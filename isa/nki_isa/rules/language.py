"""The language of the parser front end, levels 0.2 to 0.6."""

from __future__ import annotations

from nki_isa.rules.rule import Evidence, Rule, Standing

LOOP_TARGET = Rule(
    "loop-target",
    "NKI-L005",
    Standing.error,
    "The parser front end takes a name as the target of a loop, and knows neither raise nor mappings spread into "
    "keywords, imports or comprehensions that it does not list.",
    Evidence(
        "nki/get-started (NKI Language Guide)",
        6,
        "expecting simple variable; unsupported expression",
        ("trn2",),
    ),
    wrong="""\
for start, stop in ((0, 128), (128, 256)):
    nisa.memset(dst=tile[:, start:stop], value=0.0)
""",
    right="""\
for start in range(0, 256, 128):
    nisa.memset(dst=tile[:, start : start + 128], value=0.0)
""",
    until="0.6",
    whole_code=True,
)

NUMPY_DTYPE = Rule(
    "numpy-dtype",
    "NKI-C015",
    Standing.warning,
    "Names of modules that the front end does not know resolve to nothing in it; a simulator in Python follows them.",
    Evidence(seen=2, targets=("trn2",), against="a test kernel of nki-library names one"),
    wrong="""\
other = nl.ndarray((128, 512), dtype=np.float32, buffer=nl.sbuf)
nisa.tensor_copy(dst=other, src=tile)
nisa.tensor_copy(dst=tile, src=other)
""",
    right="""\
other = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
nisa.tensor_copy(dst=other, src=tile)
nisa.tensor_copy(dst=tile, src=other)
""",
    until="0.6",
    whole_code=True,
)

INNER_FUNCTION = Rule(
    "inner-function",
    "",
    Standing.never,
    "Refused by NKI 0.3; nl.fori_loop of 0.6 is called with one.",
    Evidence(seen=2, targets=("trn1",), against="nl.fori_loop, level 0.6"),
    rule="A function is defined in a kernel.",
    wrong="""\
def grow(t):
    nisa.tensor_scalar(dst=t, data=t, op0=nl.add, operand0=1.0)


grow(tile)
""",
    right="""\
nisa.tensor_scalar(dst=tile, data=tile, op0=nl.add, operand0=1.0)
""",
)

IDENTITY_TEST = Rule(
    "identity-test",
    "",
    Standing.never,
    "The notes of 0.3 refuse it; the kernel library of that release writes it.",
    Evidence(documented="nki/release-notes (0.3.0)", against="nki-library, in most of its kernels"),
    rule="A kernel tests with is.",
    wrong="""\
scale = None
if scale is None:
    nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=2.0)
""",
    right="""\
scale = 2.0
nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=scale)
""",
)
