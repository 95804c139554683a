"""What numpy, torch and Python's math write that tensors do not have: one table, with the line to write.

The rows are read where such a name meets a tensor: an attribute, a function that is handed one, and a name
that ``nki.language`` lacks.
"""

from __future__ import annotations

from nki_isa.diagnostics import NkiError, error

#: Names of elsewhere, the line to write, and what to know of it. In the lines `t`, `other` and `mask` are
#: SBUF tiles of one shape; other names say what they are.
_ROWS: tuple[tuple[str, str, str], ...] = (
    ("T mT H t transpose adjoint", "nl.transpose(t)",
     " for a tile of up to 128 x 128, or nisa.dma_transpose(dst=tile, src=x) for a tensor in HBM"),
    ("swapaxes moveaxis swapdims permute_dims", "t.expand_dim(1).permute((0, 2, 1))",
     ": a view changes the order of free dimensions; nl.transpose(t) exchanges them with the partitions"),
    ("astype to type float half double bfloat16 int long cast type_as array asarray",
     "nl.copy(t, dtype=nl.bfloat16)",
     ", or nisa.tensor_copy(dst=other, src=t) into a tile of the dtype wanted"),
    ("sum nansum", "nl.sum(t, axis=1)", ", or nisa.tensor_reduce(dst=column, op=nl.add, data=t, axis=1)"),
    ("prod", "nl.prod(t, axis=1)", ", or nisa.tensor_reduce(dst=column, op=nl.multiply, data=t, axis=1)"),
    ("max amax", "nl.max(t, axis=1)", ", or nisa.tensor_reduce(dst=column, op=nl.maximum, data=t, axis=1)"),
    ("min amin", "nl.min(t, axis=1)", ", or nisa.tensor_reduce(dst=column, op=nl.minimum, data=t, axis=1)"),
    ("mean average", "nl.mean(t, axis=1)", ""),
    ("var", "nl.var(t, axis=1)", ""),
    ("std", "nl.sqrt(nl.var(t, axis=1))", ""),
    ("all", "nl.all(t, axis=1)", ""),
    ("any", "nl.max(mask, axis=1)", " of a tile of 0 and 1"),
    ("norm", "nl.sqrt(nl.sum(nl.square(t), axis=1))", ""),
    ("argmax argsort topk sort", "nisa.max8(dst=best, src=t); nisa.nc_find_index8(dst=at, data=t, vals=best)",
     ", with tiles of 8 columns: the 8 largest and their places"),
    ("argmin", "nisa.max8(dst=best, src=nl.negative(t)); "
     "nisa.nc_find_index8(dst=at, data=nl.negative(t), vals=best)", ", with tiles of 8 columns"),
    ("cumsum", "nisa.tensor_tensor_scan(dst=other, data0=nl.ones(t.shape, t.dtype), data1=t, initial=0.0, "
     "op0=nl.multiply, op1=nl.add)", ""),
    ("cumprod", "nisa.tensor_tensor_scan(dst=other, data0=t, data1=nl.zeros(t.shape, t.dtype), initial=1.0, "
     "op0=nl.multiply, op1=nl.add)", ""),
    ("matmul dot mm bmm inner tensordot einsum vdot linear addmm outer",
     "nisa.nc_matmul(dst=product, stationary=a, moving=b)",
     ": a is [K, M], b [K, N], product [M, N] in PSUM"),
    ("concatenate concat cat stack hstack vstack dstack",
     "nisa.tensor_copy(dst=whole[:, 0:t.shape[1]], src=t)",
     ": allocate the whole tile and copy each part into it"),
    ("split chunk array_split unbind", "t[:, 0:64]", " and so on: parts are slices"),
    ("clip clamp clamp_min clamp_max hardtanh",
     "nisa.tensor_scalar(dst=t, data=t, op0=nl.maximum, operand0=0.0, op1=nl.minimum, operand1=6.0)", ""),
    ("pad", "nisa.memset(dst=whole, value=0.0); nisa.tensor_copy(dst=whole[:, 0:t.shape[1]], src=t)",
     " with a larger tile"),
    ("item tolist numpy cpu detach cuda data values tobytes print array_repr array_str array2string save",
     "nl.device_print('t', t)", " to see it, or return the tensor: the call gives an array"),
    ("fill zero", "nisa.memset(dst=t, value=0.0)", ""),
    ("copyto", "nisa.tensor_copy(dst=t, src=other)", ""),
    ("unsqueeze expand_dims newaxis", "t.expand_dim(1)", ""),
    ("squeeze", "t.expand_dim(1).squeeze_dim(1)", ": squeeze_dim takes the place of the size of 1"),
    ("reshape view", "t.reshape((t.shape[0], 4, t.shape[1] // 4))",
     ": partitions stay, and every size is written"),
    ("flatten ravel view_as reshape_as", "t.reshape((t.shape[0], t.size // t.shape[0]))", ""),
    ("expand expand_as repeat tile broadcast_to broadcast_arrays repeat_interleave",
     "nl.broadcast_to(row, t.shape)", ": sizes of 1 grow"),
    ("contiguous ascontiguousarray copy clone", "nl.copy(t)", ""),
    ("numel nelement", "t.size", ""),
    ("dim", "t.ndim", ""),
    ("nbytes itemsize element_size", "t.size * t.dtype.itemsize", ""),
    ("device", "t.buffer", ""),
    ("take gather index_select take_along_axis", "nisa.nc_n_gather(dst=other, data=t, indices=places)", ""),
    ("where masked_fill masked_select putmask", "nl.where(mask, t, other)", ""),
    ("exp2", "nisa.activation(dst=other, op=nl.exp, data=t, scale=0.6931472)", ""),
    ("log2", "nl.multiply(nl.log(t), 1.442695)", ""),
    ("log10", "nl.multiply(nl.log(t), 0.4342945)", ""),
    ("log1p", "nl.log(nl.add(t, 1.0))", ""),
    ("expm1", "nl.subtract(nl.exp(t), 1.0)", ""),
    ("divide true_divide div", "nl.multiply(t, nl.reciprocal(other))", ""),
    ("mod fmod remainder floor_divide",
     "nl.subtract(t, nl.multiply(nl.floor(nl.multiply(t, nl.reciprocal(other))), other))", ""),
    ("arange linspace", "nisa.iota(dst=places, pattern=[[1, t.shape[1]]], offset=0)", ""),
    ("eye identity", "nl.shared_identity_matrix(128)", ""),
    ("sinh", "nl.multiply(nl.subtract(nl.exp(t), nl.exp(nl.negative(t))), 0.5)", ""),
    ("cosh", "nl.multiply(nl.add(nl.exp(t), nl.exp(nl.negative(t))), 0.5)", ""),
    ("leaky_relu",
     "nisa.tensor_scalar(dst=other, data=t, op0=nl.multiply, operand0=0.1); nl.maximum(t, other)", ""),
    ("hypot", "nl.sqrt(nl.add(nl.square(t), nl.square(other)))", ""),
    ("layer_norm layernorm batch_norm",
     "nl.multiply(nl.subtract(t, nl.mean(t, axis=1, keepdims=True)), nl.rsqrt(nl.var(t, axis=1)))",
     ", or nisa.bn_stats and nisa.bn_aggr for mean and variance in one pass"),
    ("round rint around", "nl.floor(nl.add(t, 0.5))", ": halves go up"),
    ("isnan", "nl.not_equal(t, t)", ""),
)  # fmt: skip

#: Functions of nki.language by the names they have elsewhere: of one tile, and of two.
_UNARY = """
    abs arctan ceil cos erf exp floor gelu invert log logical_not mish negative reciprocal relu rsqrt sigmoid
    sign silu sin softmax softplus sqrt square tan tanh trunc zeros_like empty_like absolute=abs fabs=abs
    atan=arctan neg=negative fix=trunc bitwise_not=invert swish=silu
"""
_BINARY = """
    add subtract multiply maximum minimum power equal not_equal greater greater_equal less less_equal
    logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor left_shift right_shift pow=power
    float_power=power mul=multiply sub=subtract gt=greater ge=greater_equal lt=less le=less_equal eq=equal
    ne=not_equal bitwise_left_shift=left_shift bitwise_right_shift=right_shift fmax=maximum fmin=minimum
"""


_TWO_TILES = ", or nisa.tensor_tensor(dst=other, data1=t, data2=other, op=nl.{})"


def _named(names: str, arguments: str, remark: str = "") -> dict[str, tuple[str, str]]:
    pairs = ((name, now or name) for name, _, now in (word.partition("=") for word in names.split()))
    return {name: (f"nl.{now}({arguments})", remark.format(now)) for name, now in pairs}


#: name -> the line to write, and what to know of it.
IDIOMS: dict[str, tuple[str, str]] = {
    **_named(_UNARY, "t"),
    **_named(_BINARY, "t, other", _TWO_TILES),
    **{name: (line, remark) for names, line, remark in _ROWS for name in names.split()},
}


def idiom(name: str) -> str | None:
    """What to write for `name` of numpy, torch or math; None where the table has no row.

    torch's functions that work in place end with an underscore.
    """
    row = IDIOMS.get(name) or IDIOMS.get(name.rstrip("_"))
    return f"write {row[0]}{row[1]}" if row else None


def refused_function(package: str, name: str, tensor: object) -> NkiError:
    """NKI-V030: a function of `package` is handed a tensor."""
    return error(
        "NKI-V030",
        f"{package}.{name} of {tensor}: the elements of a tensor are unknown at compile time",
        help=idiom(name) or "compute it with nki.language and nki.isa, or before the kernel, on the host",
    )
