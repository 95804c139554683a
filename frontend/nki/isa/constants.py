"""The enumerations of ``nki.isa`` by the module path that published kernels import them from."""

from nki_isa.machine.enums import Engine as engine
from nki_isa.machine.enums import dge_mode, dma_engine, matmul_perf_mode, nc_version, oob_mode, reduce_cmd

__all__ = ["dge_mode", "dma_engine", "engine", "matmul_perf_mode", "nc_version", "oob_mode", "reduce_cmd"]
