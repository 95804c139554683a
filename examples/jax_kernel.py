"""A kernel called with JAX arrays: eagerly, and inside ``jax.jit``.

    nki-sim run examples/jax_kernel.py

What goes in as a JAX array comes back as one, of its dtype. Inside ``jax.jit`` the kernel is a callback to
the host. Without JAX the example says so and runs on numpy arrays.
"""

import numpy as np

import nki
import nki.language as nl

try:
    import jax
except ImportError:
    jax = None


@nki.jit
def softmax(scores):
    """The softmax over the columns of [rows, columns], at most 128 rows."""
    out = nl.ndarray(scores.shape, dtype=scores.dtype, buffer=nl.shared_hbm)
    nl.store(out, nl.softmax(nl.load(scores), axis=1))
    return out


def attend(query, key, value):
    """Attention, its softmax in a kernel."""
    return softmax(query @ key.T) @ value


def reference(scores):
    """numpy's softmax."""
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def with_numpy():
    scores = np.random.default_rng(0).standard_normal((64, 256), np.float32)
    np.testing.assert_allclose(softmax(scores), reference(scores), rtol=1e-4, atol=1e-6)
    print("jax_kernel: jax is not installed (pip install nki-sim[jax]); equal to numpy on its arrays")


def with_jax():
    query, key, value = (jax.random.normal(jax.random.key(i), (64, 32)) for i in range(3))
    expected = jax.nn.softmax(query @ key.T, axis=1) @ value
    np.testing.assert_allclose(attend(query, key, value), expected, rtol=1e-4, atol=1e-5)
    compiled = jax.jit(attend)(query, key, value)
    np.testing.assert_allclose(compiled, expected, rtol=1e-4, atol=1e-5)
    print(f"jax_kernel: eager and jit, equal to jax ({compiled.shape}, {compiled.dtype})")


def main():
    with_numpy() if jax is None else with_jax()


if __name__ == "__main__":
    main()
