"""What attention_cte settles before its pipeline starts: arguments, where queries and keys stand, masks."""

import nki.isa as nisa
import nki.language as nl

from ..utils.kernel_assert import assert_shape, kernel_assert
from .attention_cte_plan import TILE, blocks_of

MAX_HEADS = 32
MAX_LENGTH = 36864
MAX_SCORES = 32 * 36864 * 36864
MAX_DEGREE = 32
MASKED = -(2.0**100)  # added to a masked score; finite, because the tensor engine multiplies it by 0 too


def check_arguments(
    q, k, v, scale, causal_mask, k_prior, v_prior, prior_used_len, sink, window, tp_q, tp_k,
    cache_softmax, cp_offset, global_cp_deg,
):  # fmt: skip
    """Refuse what the kernel does not take; heads, queries, keys, prior keys and head dimension."""
    kernel_assert(len(q.shape) == 3, f"q has 3 dimensions, got shape {q.shape}")
    kernel_assert(len(v.shape) == 3, f"v is [batch_kv, seqlen_kv, d], got shape {v.shape}")
    heads = q.shape[0]
    queries, d = (q.shape[1], q.shape[2]) if tp_q else (q.shape[2], q.shape[1])
    kv_heads, keys, _ = v.shape
    kernel_assert(0 < d <= TILE, f"the head dimension d is at most {TILE}, got {d}")
    kernel_assert(0 < heads <= MAX_HEADS, f"batch_size is at most {MAX_HEADS}, got {heads}")
    kernel_assert(heads % kv_heads == 0, f"batch_size {heads} is not a multiple of batch_size_kv {kv_heads}")
    assert_shape(v, (kv_heads, keys, d), "v")
    assert_shape(k, (kv_heads, keys, d) if tp_k else (kv_heads, d, keys), "k")
    for tensor in (q, k, v):
        kernel_assert(
            tensor.dtype in (nl.bfloat16, nl.float16, nl.float32),
            f"q, k and v are bfloat16, float16 or float32, got {tensor.dtype}",
        )
    prior = 0
    given = (k_prior is not None) + (v_prior is not None) + (prior_used_len is not None)
    kernel_assert(given in (0, 3), "k_prior, v_prior and prior_used_len are given together or not at all")
    if given == 3:
        prior = v_prior.shape[1]
        assert_shape(v_prior, (kv_heads, prior, d), "v_prior")
        assert_shape(k_prior, (kv_heads, prior, d) if tp_k else (kv_heads, d, prior), "k_prior")
        assert_shape(prior_used_len, (1,), "prior_used_len")
    kernel_assert(queries <= MAX_LENGTH, f"seqlen_q is at most {MAX_LENGTH}, got {queries}")
    total = keys + prior
    kernel_assert(total <= MAX_LENGTH, f"seqlen_kv, prior included, is at most {MAX_LENGTH}, got {total}")
    scores = heads * queries * total
    kernel_assert(
        scores <= MAX_SCORES, f"batch_size * seqlen_q * seqlen_kv is at most {MAX_SCORES}, got {scores}"
    )
    kernel_assert(0 <= window <= MAX_LENGTH, f"sliding_window is at most {MAX_LENGTH}, got {window}")
    kernel_assert(window == 0 or causal_mask, "sliding_window needs causal_mask=True")
    kernel_assert(scale > 0, f"scale is positive, got {scale}")
    if sink is not None:
        assert_shape(sink, (heads, 1), "sink")
    parallel = cp_offset is not None
    kernel_assert(
        parallel == (global_cp_deg is not None),
        "cp_offset and global_cp_deg are given together or not at all",
    )
    if parallel:
        kernel_assert(causal_mask, "context parallelism (cp_offset) needs causal_mask=True")
        kernel_assert(
            1 <= global_cp_deg <= MAX_DEGREE, f"global_cp_deg is 1 to {MAX_DEGREE}, got {global_cp_deg}"
        )
        assert_shape(cp_offset, (1, 1), "cp_offset")
    kernel_assert(
        scale == 1.0 or (window == 0 and not parallel and prior == 0),
        f"scale is 1.0 with sliding_window, prefix caching or context parallelism, got {scale}",
    )
    kernel_assert(
        not cache_softmax or queries % TILE == 0,
        f"cache_softmax takes seqlen_q in multiples of {TILE}, got {queries}",
    )
    return heads, queries, keys, prior, d


def place_queries(call, cp_offset, degree, strided):
    """Settle where the queries can stand, and which active keys are loaded."""
    problem = call.problem
    length = problem.keys
    if cp_offset is None or degree == 1:
        if problem.causal:
            problem.keys = min(problem.keys, problem.queries)
        return
    call.cp_offset = cp_offset
    if strided:
        problem.base, problem.step = degree - 1, degree
        return
    problem.base = (degree - 1) * problem.queries
    if problem.window > 0:
        # A window needs but the keys just before this slice of queries: they are loaded from there on.
        behind = blocks_of(problem.window - 1) * TILE
        problem.keys = min(length, problem.queries + behind)
        problem.base = min(problem.base, behind + max(0, degree * problem.queries - length))
        call.begin = nl.ndarray((TILE, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_scalar(
            dst=call.begin, data=offset_of(call), op0=nl.subtract, operand0=float(behind), op1=nl.maximum,
            operand1=0.0,
        )  # fmt: skip
        last = float(length - problem.keys)
        nisa.tensor_scalar(dst=call.begin, data=call.begin, op0=nl.minimum, operand0=last)
        call.start = nl.ndarray((1, 1), dtype=nl.int32, buffer=nl.sbuf)
        nisa.tensor_copy(dst=call.start, src=call.begin[0:1, :])


def bounds_of(call, is_prior):
    """The last key that each query sees, and the last that is too far back: fp32 [128, tiles], made once."""
    problem = call.problem
    if call.upper is None:
        call.upper = nl.ndarray((TILE, blocks_of(problem.queries)), dtype=nl.float32, buffer=nl.sbuf)
        pattern = [[TILE * problem.step, blocks_of(problem.queries)]]
        nisa.iota(dst=call.upper, pattern=pattern, offset=0, channel_multiplier=problem.step)
        if call.cp_offset is not None:
            nisa.tensor_scalar(dst=call.upper, data=call.upper, op0=nl.add, operand0=offset_of(call))
        if call.begin is not None:
            nisa.tensor_scalar(dst=call.upper, data=call.upper, op0=nl.subtract, operand0=call.begin)
    if is_prior:
        # Relative to the active keys, prior key j is at j - used; it needs j < used as well.
        if call.prior_upper is None:
            first = used_of(call)
            if call.begin is not None:
                first = nl.ndarray((TILE, 1), dtype=nl.float32, buffer=nl.sbuf)
                nisa.tensor_tensor(dst=first, data1=used_of(call), data2=call.begin, op=nl.add)
            call.prior_upper = nl.ndarray(call.upper.shape, dtype=nl.float32, buffer=nl.sbuf)
            nisa.memset(dst=call.prior_upper, value=-1.0)
            nisa.tensor_scalar(
                dst=call.prior_upper, data=call.prior_upper, op0=nl.add, operand0=used_of(call)
            )
            call.prior_lower = nl.ndarray(call.upper.shape, dtype=nl.float32, buffer=nl.sbuf)
            nisa.tensor_scalar(
                dst=call.prior_lower, data=call.upper, op0=nl.add, operand0=first, op1=nl.subtract,
                operand1=float(problem.window),
            )  # fmt: skip
        return call.prior_upper, call.prior_lower
    if call.lower is None:
        call.lower = nl.ndarray(call.upper.shape, dtype=nl.float32, buffer=nl.sbuf)
        if problem.window > 0:
            nisa.tensor_scalar(
                dst=call.lower, data=call.upper, op0=nl.subtract, operand0=float(problem.window)
            )
        else:
            nisa.memset(dst=call.lower, value=-1.0)
    return call.upper, call.lower


def offset_of(call):
    """cp_offset on all partitions: fp32 [128, 1], made once."""
    if call.offset is None:
        call.offset = everywhere(call.cp_offset, 0)
    return call.offset


def used_of(call):
    """How many prior keys count, on all partitions: fp32 [128, 1], made once."""
    if call.used is None:
        call.used = everywhere(call.prior_used_len, 0)
    return call.used


def everywhere(tensor, index):
    """One number of a tensor in HBM on all partitions: [128, 1] fp32."""
    there = nl.ndarray((TILE, 1), dtype=tensor.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=there, src=tensor.ap(pattern=[[0, TILE], [1, 1]], offset=index))
    if tensor.dtype == nl.float32:
        return there
    number = nl.ndarray((TILE, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=number, src=there)
    return number


def factor_of(call):
    """[128, 1]: what makes minus the largest scaled score out of a reduction; made once."""
    if call.factor is None:
        call.factor = nl.ndarray((TILE, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.memset(dst=call.factor, value=-1.0 if call.problem.scale == 1.0 else call.problem.scale)
    return call.factor


def mask_of(call, delta):
    """[128, 128] bf16: 0 where 0 <= delta + p - j < window, else MASKED; made once."""
    name = str(delta)
    if name not in call.masks:
        if call.identity is None:
            call.identity = nl.ndarray((TILE, TILE), dtype=nl.bfloat16, buffer=nl.sbuf)
            nisa.memset(dst=call.identity, value=1.0)
            nisa.affine_select(
                dst=call.identity, pattern=[[-1, TILE]], offset=0, channel_multiplier=1,
                on_true_tile=call.identity, on_false_value=0.0, cmp_op=nl.equal,
            )  # fmt: skip
        mask = nl.ndarray((TILE, TILE), dtype=nl.bfloat16, buffer=nl.sbuf)
        nisa.memset(dst=mask, value=0.0)
        nisa.affine_select(
            dst=mask, pattern=[[-1, TILE]], offset=delta, channel_multiplier=1, on_true_tile=mask,
            on_false_value=MASKED, cmp_op=nl.greater_equal,
        )  # fmt: skip
        if call.problem.window > 0:
            nisa.affine_select(
                dst=mask, pattern=[[1, TILE]], offset=call.problem.window - 1 - delta, channel_multiplier=-1,
                on_true_tile=mask, on_false_value=MASKED, cmp_op=nl.greater_equal,
            )  # fmt: skip
        call.masks[name] = mask
    return call.masks[name]
