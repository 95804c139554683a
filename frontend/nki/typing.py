"""Names for annotating kernels; annotations are not checked."""

from nki_isa.tensor import NkiTensor as tensor

__all__ = ["tensor"]
