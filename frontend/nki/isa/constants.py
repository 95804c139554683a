"""The enumerations of ``nki.isa`` by the module path that published kernels import them from."""

from nki_isa.enums import dge_mode, dma_engine, matmul_perf_mode, nc_version, oob_mode, reduce_cmd
from nki_isa.instruction import Engine as engine

__all__ = ["dge_mode", "dma_engine", "engine", "matmul_perf_mode", "nc_version", "oob_mode", "reduce_cmd"]
