"""The data types, by the module path that published kernels annotate with and import from."""

from nki_isa.machine.dtypes import DTYPES

bool_ = DTYPES["bool"]
globals().update(DTYPES)

__all__ = ["bool_", *DTYPES]
