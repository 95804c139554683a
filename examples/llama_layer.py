"""A dense decoder layer, Llama-3 8B or Qwen3 8B, on one rank, built of the kernels of nkilib.

    python examples/llama_layer.py                                   small sizes, compared with numpy
    python examples/llama_layer.py --model llama3-8b --phase decode --no-data --tp 8 --sequence 4096

    h = x + attention(x)            decoder_attention; on several ranks an all-reduce follows
    y = h + mlp(norm(h))            one launch: the sum h, the norm and three projections

Prefill is bound by the tensor engine: every kernel reads its weights once for thousands of tokens. Decoding
reads the same weights, and the cache, for a handful of tokens, so HBM bounds it, and with small shards the
start of each launch does. The tables of real sizes are in docs/library/layers.md.
"""

import numpy as np
from decoder_attention import EPS, LNC, MODELS, Layer, attention, attention_weights, rmsnorm, run
from decoder_attention import reference as attention_reference

from nkilib.core.mlp.mlp import mlp
from nkilib.core.utils.common_types import NormType


def weights_of(model, arrays):
    """The weights of one rank."""
    return attention_weights(model, arrays) | {
        "mlp_norm": arrays.normal(1, model.hidden, scale=0.1, mean=1.0),
        "gate": arrays.projection(model, model.hidden, model.intermediate),
        "up": arrays.projection(model, model.hidden, model.intermediate),
        "down": arrays.projection(model, model.intermediate, model.hidden),
    }


def layer(model, weights, x, cache=None):
    """The layer of a prompt, x [1, S, hidden], or of a new token of each sequence, [batch, 1, hidden]."""
    part = attention(model, weights, x, cache)
    out, h = mlp[LNC](
        hidden_tensor=x,
        gate_proj_weights_tensor=weights["gate"],
        up_proj_weights_tensor=weights["up"],
        down_proj_weights_tensor=weights["down"],
        normalization_weights_tensor=weights["mlp_norm"],
        fused_add_tensor=part,
        store_fused_add_result=True,
        normalization_type=NormType.RMS_NORM,
        eps=EPS,
    )
    return h + out  # after the second all-reduce


def reference(model, weights, x, cache=None):
    """The layer in float32."""
    h = x.astype(np.float32) + attention_reference(model, weights, x, cache)
    gate, up, down = (weights[name].astype(np.float32) for name in ("gate", "up", "down"))
    normed = rmsnorm(h, weights["mlp_norm"].astype(np.float32))
    pre = normed @ gate
    return h + (pre / (1 + np.exp(-pre)) * (normed @ up)) @ down


def main(arguments=None):
    return run("llama_layer", Layer(MODELS, weights_of, layer, reference), arguments)


if __name__ == "__main__":
    main()
