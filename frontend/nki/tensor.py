"""``nki.tensor``: what published kernels of NKI 0.2 take from it."""

from typing import Any

from nki.language.creation import shared_identity_matrix
from nki_isa.tensor import NkiTensor


def identity(n: int, dtype: Any = "uint8") -> NkiTensor:
    """The `n` by `n` identity in SBUF; since NKI 0.3 ``nl.shared_identity_matrix``."""
    return shared_identity_matrix(n, dtype)


__all__ = ["identity"]
