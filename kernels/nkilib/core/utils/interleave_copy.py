"""Copies that take turns on two engines."""

import nki.isa as nisa
import nki.language as nl

from .allocator import num_elts
from .kernel_assert import kernel_assert
from .tensor_view import TensorView


def interleave_copy(dst, src, scale=None, bias=None, index: int = 0) -> None:
    """dst = src * scale + bias, by the scalar engine for an even `index`, else by the vector engine.

    A loop that passes its counter keeps both engines busy. The scalar engine takes a scale and a bias of one
    value per partition; for others it is the vector engine, whatever the index.

    Args:
        dst: [P, ...] in SBUF.
        src: [P, ...] in SBUF or PSUM, with as many elements per partition.
        scale: None, [P] or [P, 1] for one value per partition, or as many elements as `dst`; a tensor or a
            :class:`.TensorView`. One value per partition is float32, or goes to the vector engine.
        bias: the same.
        index: chooses the engine.
    """
    _check("src", src, dst)
    per_partition = _is_per_partition("scale", scale, dst) and _is_per_partition("bias", bias, dst)
    if scale is None and bias is None:
        nisa.tensor_copy(
            dst=dst, src=src, engine=nisa.scalar_engine if index % 2 == 0 else nisa.vector_engine
        )
    elif index % 2 == 0 and per_partition and (scale is None or scale.dtype == nl.float32):
        nisa.activation(
            dst=dst,
            op=nl.copy,
            data=src,
            scale=1.0 if scale is None else _column(scale),
            bias=None if bias is None else _column(bias),
        )
    elif scale is None:
        nisa.tensor_tensor(dst=dst, data1=src, data2=_full(bias, dst), op=nl.add, engine=nisa.vector_engine)
    elif bias is None:
        nisa.tensor_tensor(
            dst=dst, data1=src, data2=_full(scale, dst), op=nl.multiply, engine=nisa.vector_engine
        )
    elif _is_per_partition("scale", scale, dst) and scale.dtype == nl.float32:
        nisa.scalar_tensor_tensor(
            dst=dst,
            data=src,
            op0=nl.multiply,
            operand0=_column(scale),
            op1=nl.add,
            operand1=_full(bias, dst),
        )
    else:
        product = nl.ndarray(dst.shape, dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_tensor(
            dst=product, data1=src, data2=_full(scale, dst), op=nl.multiply, engine=nisa.vector_engine
        )
        nisa.tensor_tensor(
            dst=dst, data1=product, data2=_full(bias, dst), op=nl.add, engine=nisa.vector_engine
        )


def _check(name: str, tensor, dst) -> None:
    kernel_assert(
        tensor.shape[0] == dst.shape[0],
        f"{name} has {tensor.shape[0]} partitions and dst {dst.shape[0]}; they are equal",
    )


def _is_per_partition(name: str, operand, dst) -> bool:
    """True for one value per partition, and for no operand."""
    if operand is None:
        return True
    _check(name, operand, dst)
    return num_elts(operand.shape[1:]) == 1


def _column(operand):
    """One value per partition, as [P, 1]."""
    view = TensorView(operand)
    return (view if view.get_dim() > 1 else view.expand_dim(1)).get_view()


def _full(operand, dst):
    """An operand with as many elements per partition as `dst`."""
    view = TensorView(operand)
    if num_elts(operand.shape[1:]) > 1:
        return view.get_view()
    if view.get_dim() == 1:
        view = view.expand_dim(1)
    return view.broadcast(1, num_elts(dst.shape[1:])).get_view()
