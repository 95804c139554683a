"""Tensors at one address that take turns: they follow each other in the text, on hardware nothing says so."""

import nki
import nki.isa as nisa
import nki.language as nl


@nki.jit
def defect_write_after_read(x):
    """A DMA fills `b` while the scalar engine may still read `a`; `a` is used again later."""
    result = nl.ndarray((3, 128, 512), dtype=x.dtype, buffer=nl.shared_hbm)
    a = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 0))  # with
    b = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 0))  # with
    squares = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 4096))
    nisa.memset(dst=a, value=1.0)
    nisa.activation(dst=squares, op=nl.square, data=a)  # with
    nisa.dma_copy(dst=b, src=x)  # finds NKI-H004 warning
    nisa.dma_copy(dst=result[0], src=squares)
    nisa.activation(dst=squares, op=nl.square, data=b)
    nisa.dma_copy(dst=result[1], src=squares)
    nisa.activation(dst=a, op=nl.square, data=squares)
    nisa.dma_copy(dst=result[2], src=a)
    return result


@nki.jit
def good_one_tensor(x):
    """The same with one tensor: uses of a tensor are ordered by the compiler."""
    result = nl.ndarray((3, 128, 512), dtype=x.dtype, buffer=nl.shared_hbm)
    a = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 0))
    squares = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 4096))
    nisa.memset(dst=a, value=1.0)
    nisa.activation(dst=squares, op=nl.square, data=a)
    nisa.dma_copy(dst=a, src=x)
    nisa.dma_copy(dst=result[0], src=squares)
    nisa.activation(dst=squares, op=nl.square, data=a)
    nisa.dma_copy(dst=result[1], src=squares)
    nisa.activation(dst=a, op=nl.square, data=squares)
    nisa.dma_copy(dst=result[2], src=a)
    return result


@nki.jit
def defect_write_after_write(x):
    """The vector engine writes `a`, gpsimd then `b` in the same bytes; nothing says which comes last."""
    result = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.shared_hbm)
    a = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 0))  # with
    b = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 0))  # with
    nisa.memset(dst=a, value=1.0, engine=nisa.engine.vector)  # with
    nisa.memset(dst=b, value=2.0, engine=nisa.engine.gpsimd)  # finds NKI-H004 warning
    nisa.tensor_scalar(dst=b, data=b, op0=nl.multiply, operand0=2.0, engine=nisa.engine.vector)
    nisa.dma_copy(dst=result, src=b)
    nisa.tensor_copy(dst=a, src=b, engine=nisa.engine.vector)
    nisa.dma_copy(dst=result, src=a)
    return result


@nki.jit
def good_one_engine(x):
    """Both tensors belong to the vector engine, which does one thing after the other."""
    result = nl.ndarray((2, 128, 512), dtype=x.dtype, buffer=nl.shared_hbm)
    a = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 0))
    b = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 0))
    out = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 4096))
    nisa.memset(dst=a, value=1.0, engine=nisa.engine.vector)
    nisa.tensor_copy(dst=out, src=a, engine=nisa.engine.vector)
    nisa.dma_copy(dst=result[0], src=out)
    nisa.memset(dst=b, value=2.0, engine=nisa.engine.vector)
    nisa.tensor_copy(dst=out, src=b, engine=nisa.engine.vector)
    nisa.memset(dst=a, value=3.0, engine=nisa.engine.vector)
    nisa.tensor_tensor(dst=out, data1=out, data2=a, op=nl.add)
    nisa.dma_copy(dst=result[1], src=out)
    return result


@nki.jit
def good_chain_of_results(x):
    """What fills `b` needs a result of what read `a`, so it comes after."""
    result = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.shared_hbm)
    a = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 0))
    b = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 0))
    squares = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 4096))
    sums = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 8192))
    nisa.dma_copy(dst=a, src=x)
    nisa.activation(dst=squares, op=nl.square, data=a)
    nisa.tensor_scalar(dst=b, data=squares, op0=nl.add, operand0=1.0)
    nisa.tensor_copy(dst=sums, src=b)
    nisa.activation(dst=a, op=nl.square, data=sums)
    nisa.dma_copy(dst=result, src=a)
    return result
