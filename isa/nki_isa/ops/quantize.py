"""Quantization to microscaling (MX) formats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nki_isa.constraints.access_patterns import consecutive_partitions, fits_partition, max_dims
from nki_isa.constraints.data_types import dtypes
from nki_isa.constraints.indirection import no_indirection
from nki_isa.constraints.memories import memory
from nki_isa.constraints.operands import SBUF, STUB, elements_per_partition, free_size_of, rules, start_of
from nki_isa.constraints.sizes import (
    elements,
    elements_multiple,
    partitions,
    partitions_multiple,
    same_partitions,
)
from nki_isa.constraints.tiles import tile
from nki_isa.cost import Cost, streaming
from nki_isa.ir.constraint import Constraint
from nki_isa.ir.fields import attribute, read, write
from nki_isa.ir.instruction import MakeTile, Order, instruction
from nki_isa.machine.dtypes import cast
from nki_isa.machine.target import Feature
from nki_isa.ops.base import VECTOR_ENGINE, Array, ComputeInstruction, float32, rows, updating
from nki_isa.tensor.tensor import NkiTensor

if TYPE_CHECKING:
    from nki_isa.machine.target import Target

_MX = "nki/deep-dives/mxfp-matmul"
_QUADRANT, _GROUP, _LANES = 32, 8, 4  # partitions of a quadrant and of a scaling group; values per element
_LARGEST_EXPONENT = {"float8_e4m3fn_x4": 8, "float8_e5m2_x4": 15}
_BIAS = 127  # of the exponent byte of a scale
_SCALE_STARTS = (0, 4, 8, 12)  # within a quadrant


def _scale_partitions(count: int) -> Array:
    """The partition of the scale tile for each scaling group of `count` partitions of data.

    A quadrant of 32 partitions keeps the scales of its own four groups in its first four.
    """
    group = np.arange(count // _GROUP)
    per_quadrant = _QUADRANT // _GROUP
    return group // per_quadrant * _QUADRANT + group % per_quadrant


def _quarter(instruction: Any, target: Any) -> int | None:
    count = free_size_of(instruction, "src")
    return None if count is None else count // _LANES


def _scale_rows(instruction: Any, target: Any) -> str | None:
    scale, src = instruction.__dict__["dst_scale"], instruction.__dict__["src"]
    if isinstance(scale, NkiTensor) and isinstance(src, NkiTensor) and src.shape[0] >= _QUADRANT:
        needed = int(_scale_partitions(src.shape[0])[-1]) + 1
        if scale.shape[0] < needed:
            return f"dst_scale has {scale.shape[0]} partitions, src has {src.shape[0]} and needs {needed}"
    return None


def _scale_start(instruction: Any, target: Any) -> str | None:
    scale = instruction.__dict__["dst_scale"]
    if isinstance(scale, NkiTensor) and scale.storage.region.on_chip:
        start = start_of(scale) % _QUADRANT
        if start not in _SCALE_STARTS:
            return f"dst_scale starts at partition {start} of a quadrant, it must be 0, 4, 8 or 12"
    return None


@instruction
class quantize_mx(ComputeInstruction):
    """dst, dst_scale = src in MXFP8: groups of 8 partitions by 4 values share one power of two.

    The scale of a group is 2^(floor(log2(largest magnitude)) - (Emax - 1)) with Emax 8 for
    float8_e4m3fn and 15 for float8_e5m2, at least 2^-127; values are divided by it and rounded.
    API levels before 0.6 compute the sample conversion of the OCP standard, which those pages refer
    to and the vendor's references computed then: Emax in place of Emax - 1, and values beyond the
    largest of the type become that.
    A quadrant of 32 partitions writes its four scales to its first four partitions of
    `dst_scale`; other partitions keep their values. A group with NaN or infinity gets the scale
    NaN, which the SDK page leaves open.

    Shapes: `src` float16 or bfloat16 [P, F], P a multiple of 32 and F of 4; `dst` [P, F / 4] of
    a packed type; `dst_scale` float8_e8m0fnu or uint8 with F / 4 elements per partition, at
    partition 0, 4, 8 or 12 of a quadrant. All in SBUF.
    Errors: NKI-V101 to V105, V108, V110, V112, V115.
    Source: SDK page nki.isa.quantize_mx (2.32) and the MX deep dive; the OCP Microscaling
    standard for the levels before.
    """

    engines = (VECTOR_ENGINE,)
    needs = Feature.mx_tiles
    source = f"{STUB} (quantize_mx)"
    order = Order.streamed
    padded = frozenset({"dst_scale"})
    dst: NkiTensor = write()
    src: NkiTensor = read()
    dst_scale: NkiTensor = write()
    sample_conversion: bool = attribute(bool, False, public=False)  # that of the OCP standard
    constraints = rules(
        *tile("dst", "src", packed=True),
        partitions("dst_scale"),
        consecutive_partitions("dst_scale"),
        max_dims("dst_scale"),
        fits_partition("dst_scale"),
        memory("dst", "src", "dst_scale", SBUF),
        dtypes("src", ("float16", "bfloat16")),
        dtypes("dst", tuple(_LARGEST_EXPONENT)),
        dtypes("dst_scale", ("float8_e8m0fnu", "uint8")),
        same_partitions("src", "dst"),
        partitions_multiple("src", _QUADRANT),
        elements_multiple("src", _LANES, "a scaling group has four values per partition"),
        elements("dst", _quarter, "an element for four values of src"),
        elements("dst_scale", _quarter, "one scale for four values of src"),
        Constraint(
            "NKI-V103",
            "dst_scale has the partitions its scales go to.",
            _scale_rows,
            "allocate dst_scale with the partitions of src",
            _MX,
        ),
        Constraint(
            "NKI-V110",
            "dst_scale starts at partition 0, 4, 8 or 12 of a quadrant.",
            _scale_start,
            "slice the scale tile at one of these partitions",
            _MX,
        ),
        no_indirection(),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {
            "dst": t((128, 32), "float8_e4m3fn_x4"),
            "src": t(dtype="bfloat16"),
            "dst_scale": t((128, 32), "uint8"),
        }

    def normalise(self) -> None:
        src, scale = self.src, self.dst_scale
        if (
            isinstance(src, NkiTensor)
            and isinstance(scale, NkiTensor)
            and scale.shape[0] != src.shape[0] // _GROUP
        ):
            updating(self, "dst_scale")

    def compute(self, src: Array, *scales: Array) -> tuple[Array, Array]:
        values = rows(float32(src, self.src))
        count, width = values.shape
        groups = values.reshape(count // _GROUP, _GROUP, width // _LANES, _LANES)
        with np.errstate(all="ignore"):
            largest = np.abs(groups).max(axis=(1, 3))
            exponent = np.frexp(largest)[1] - 1  # floor(log2), exact
            highest = _LARGEST_EXPONENT[self.dst.dtype] - (0 if self.sample_conversion else 1)
            exponent = np.where(largest == 0, -_BIAS, exponent - highest)
            code = np.clip(exponent + _BIAS, 0, 254)
            factor = np.ldexp(np.float64(1), code - _BIAS)
            code = np.where(np.isfinite(largest), code, 255).astype(np.uint8)
            scaled = (groups / factor[:, None, :, None]).astype(np.float32).reshape(count, width)
        if self.sample_conversion:
            scaled = np.clip(scaled, -self.dst.dtype.max, self.dst.dtype.max)
        packed = cast(scaled, self.dst.dtype)
        shape = (self.dst_scale.shape[0], width // _LANES)
        result = rows(scales[0]).view(np.uint8).copy() if scales else np.zeros(shape, np.uint8)
        result[_scale_partitions(count)] = code
        return packed, result.view(self.dst_scale.dtype.numpy)

    def cost(self, target: Target) -> Cost:
        return streaming.elementwise(
            target, self.on, elements_per_partition(self.src), rate="vector_quantize_rate"
        )
