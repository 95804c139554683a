"""A kernel called with torch tensors: eagerly, and inside a compiled function.

    nki-sim run examples/torch_kernel.py

What goes in as a torch tensor comes back as one, of its dtype. Inside ``torch.compile`` the kernel is one
operator of the graph. Without torch the example says so and adds numpy arrays.
"""

import numpy as np

import nki
import nki.language as nl

try:
    import torch
except ImportError:
    torch = None


@nki.jit
def silu_and_mul(gate, up):
    """silu(gate) * up, for [rows, columns] with at most 128 rows."""
    result = nl.multiply(nl.silu(nl.load(gate)), nl.load(up))
    out = nl.ndarray(gate.shape, dtype=gate.dtype, buffer=nl.shared_hbm)
    nl.store(out, result)
    return out


def layer(x, weight_gate, weight_up):
    """The gated half of a feed-forward layer, its activation in a kernel."""
    return silu_and_mul(x @ weight_gate, x @ weight_up)


def reference(gate, up):
    """numpy's silu(gate) * up."""
    return gate / (1 + np.exp(-gate)) * up


def with_numpy():
    generator = np.random.default_rng(0)
    gate, up = (generator.standard_normal((64, 256), np.float32) for _ in range(2))
    np.testing.assert_allclose(silu_and_mul(gate, up), reference(gate, up), rtol=1e-4, atol=1e-6)
    print("torch_kernel: torch is not installed (pip install nki-sim[torch]); equal to numpy on its arrays")


def with_torch():
    torch.manual_seed(0)
    x, weight_gate, weight_up = torch.randn(64, 128), torch.randn(128, 256), torch.randn(128, 256)
    expected = torch.nn.functional.silu(x @ weight_gate) * (x @ weight_up)
    eager = layer(x, weight_gate, weight_up)
    torch.testing.assert_close(eager, expected, rtol=1e-4, atol=1e-4)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")(x, weight_gate, weight_up)
    torch.testing.assert_close(compiled, expected, rtol=1e-4, atol=1e-4)
    print(f"torch_kernel: eager and compiled, equal to torch ({tuple(compiled.shape)}, {compiled.dtype})")


def main():
    with_numpy() if torch is None else with_torch()


if __name__ == "__main__":
    main()
