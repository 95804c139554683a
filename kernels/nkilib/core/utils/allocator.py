"""Addresses in SBUF from a stack and a heap, chosen by the kernel or left to the compiler."""

import nki.language as nl

from .kernel_assert import kernel_assert
from .logging import Logger, get_logger
from .tree_logger import TreeLogger

_BYTES = {
    "float32": 4,
    "tfloat32": 4,
    "int32": 4,
    "uint32": 4,
    "float8_e4m3fn_x4": 4,
    "float8_e5m2_x4": 4,
    "bfloat16": 2,
    "float16": 2,
    "int16": 2,
    "uint16": 2,
    "float4_e2m1fn_x4": 2,
    "float8_e4m3": 1,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "float8_e8m0fnu": 1,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}

_HEAP_ALIGNMENT = 4


def sizeinbytes(dtype) -> int:
    """Bytes of one element of `dtype`; a packed one (``_x4``) is one element."""
    name = f"{dtype}"
    kernel_assert(name in _BYTES, f"the size of dtype {dtype} is not known")
    return _BYTES[name]


def align_to(value: int, alignment: int) -> int:
    """The smallest multiple of `alignment` that is at least `value`."""
    return (value + alignment - 1) // alignment * alignment


def num_elts(shape) -> int:
    """The number of elements of a tensor of `shape`."""
    count = 1
    for size in shape:
        count = count * size
    return count


class Scope(nl.NKIObject):
    """An open scope of the stack.

    Attributes:
        starting_addr: the address its first section starts at.
        num_sections: how many sections it has.
        name: for the log.
        cur_section_id: the section that is allocated from, from 0.
        end_addr: the highest address that an allocation in it reached.
    """

    def __init__(self, starting_addr: int, num_sections: int, name: str):
        self.starting_addr = starting_addr
        self.num_sections = num_sections
        self.name = name
        self.cur_section_id = 0
        self.end_addr = starting_addr


class SbufManager(nl.NKIObject):
    """Allocates tensors in a part of SBUF: a stack of scopes that grows up, and a heap that grows down to it.

    Addresses and sizes are bytes of one partition; a tensor takes the bytes of its free dimensions in every
    partition. Closing a scope frees what was allocated on the stack in it: the next tensors take the same
    addresses, so they wait for the instructions that use the tensors before them.

    A scope with an interleave degree of n has n sections, for example the two of a double buffer:
    :meth:`increment_section` goes on to the next one, and from the last one back to the first.

    Args:
        sb_lower_bound: the first byte it may use.
        sb_upper_bound: one past the last byte.
        logger: prints each outermost scope as a tree when it closes, if its level is DEBUG.
        use_auto_alloc: True leaves addresses to the compiler; scopes and frees then only structure the log.
        default_stack_alloc: whether :meth:`alloc` takes the stack or the heap.

    Source: SDK page nki/library/kernel-utils/allocator.
    """

    def __init__(
        self,
        sb_lower_bound: int,
        sb_upper_bound: int,
        logger: Logger | None = None,
        use_auto_alloc: bool = False,
        default_stack_alloc: bool = True,
    ):
        kernel_assert(
            0 <= sb_lower_bound <= sb_upper_bound,
            "SbufManager takes 0 <= sb_lower_bound <= sb_upper_bound, "
            f"got {sb_lower_bound} and {sb_upper_bound}",
        )
        self.sb_lower_bound = sb_lower_bound
        self.sb_upper_bound = sb_upper_bound
        self.use_auto_alloc = use_auto_alloc
        self.default_stack_alloc = default_stack_alloc
        self.tree_logger = TreeLogger("Allocations", get_logger("SBM") if logger is None else logger)
        self.prefix = ""
        self.scopes: list = []
        self.heap: list = []  # the addresses before each allocation that is still there
        self.stack_curr_addr = sb_lower_bound
        self.heap_curr_addr = sb_upper_bound
        self.unlogged_section = ""

    def is_auto_alloc(self) -> bool:
        """True if addresses are left to the compiler."""
        return self.use_auto_alloc

    def is_default_stack_alloc(self) -> bool:
        """True if :meth:`alloc` takes the stack."""
        return self.default_stack_alloc

    def is_default_heap_alloc(self) -> bool:
        """True if :meth:`alloc` takes the heap."""
        return not self.default_stack_alloc

    def open_scope(self, interleave_degree: int = 1, name: str = "") -> None:
        """Open a scope; what is allocated on the stack in it is freed when it closes.

        Args:
            interleave_degree: number of sections.
            name: for the log.
        """
        kernel_assert(
            interleave_degree >= 1, f"interleave_degree of open_scope is at least 1, got {interleave_degree}"
        )
        label = f" '{name}'" if name else ""
        sections = f" [interleave={interleave_degree}]" if interleave_degree > 1 else ""
        self._log(f"▶ SCOPE{label}{sections}{self._at(self.stack_curr_addr)}", True)
        self.scopes.append(Scope(self.stack_curr_addr, interleave_degree, name))

    def increment_section(self) -> None:
        """Allocate from the next section of the scope, or from the first one again after the last."""
        kernel_assert(len(self.scopes) > 0, "increment_section needs an open scope; call open_scope first")
        scope = self.scopes[-1]
        scope.cur_section_id = (scope.cur_section_id + 1) % scope.num_sections
        sign = "↳"
        if scope.cur_section_id == 0:
            sign = "↻"
            self.stack_curr_addr = scope.starting_addr
        section = f"{scope.cur_section_id}/{scope.num_sections}"
        self.unlogged_section = f"{sign} section: {section}{self._at(self.stack_curr_addr)}"

    def close_scope(self) -> None:
        """Free what was allocated on the stack since the scope was opened."""
        kernel_assert(len(self.scopes) > 0, "close_scope without an open scope")
        scope = self.scopes.pop()
        self.stack_curr_addr = scope.starting_addr
        self.unlogged_section = ""
        label = f" '{scope.name}'" if scope.name else ""
        freed = "" if self.use_auto_alloc else f" freed={scope.end_addr - scope.starting_addr} B"
        self._log(f"◀ END{label}{freed}", True)
        if len(self.scopes) == 0:
            self.flush_logs()
        elif self.scopes[-1].end_addr < scope.end_addr:
            self.scopes[-1].end_addr = scope.end_addr

    def alloc(self, shape, dtype, buffer=nl.sbuf, name=None, base_partition: int = 0, align=None):
        """A tensor on the stack or on the heap, as ``default_stack_alloc`` says; see :meth:`alloc_stack`."""
        if self.default_stack_alloc:
            return self.alloc_stack(shape, dtype, buffer, name, base_partition, align)
        return self.alloc_heap(shape, dtype, buffer, name, base_partition, align)

    def alloc_stack(self, shape, dtype, buffer=nl.sbuf, name=None, base_partition: int = 0, align=None):
        """A tensor on the stack, freed when the scope closes.

        Args:
            shape: sizes; the first is partitions.
            dtype: data type.
            buffer: ``nl.sbuf``.
            name: a name that no other tensor has, to which the prefix is prepended; or None.
            base_partition: the partition it starts at; the compiler's choice in automatic mode.
            align: the address is a multiple of it; by default of the bytes of an element.
        """
        size = self._check(shape, dtype, buffer)
        kernel_assert(
            len(self.scopes) > 0 or self.use_auto_alloc,
            "alloc_stack needs an open scope, which frees it again; call open_scope first, or alloc_heap",
        )
        address = align_to(self.stack_curr_addr, self._alignment(dtype, align))
        self._check_space(address + size <= self.heap_curr_addr, shape, dtype, size)
        if not self.use_auto_alloc:
            self.stack_curr_addr = address + size
            scope = self.scopes[-1]
            if scope.end_addr < self.stack_curr_addr:
                scope.end_addr = self.stack_curr_addr
        return self._tensor("", shape, dtype, name, base_partition, address, size)

    def alloc_heap(self, shape, dtype, buffer=nl.sbuf, name=None, base_partition: int = 0, align=None):
        """A tensor on the heap, freed by :meth:`pop_heap`; parameters as of :meth:`alloc_stack`."""
        size = self._check(shape, dtype, buffer)
        alignment = self._alignment(dtype, align)
        if alignment < _HEAP_ALIGNMENT:
            alignment = _HEAP_ALIGNMENT
        address = (self.heap_curr_addr - size) // alignment * alignment
        self._check_space(address >= self.stack_curr_addr, shape, dtype, size)
        self.heap.append(self.heap_curr_addr)
        if not self.use_auto_alloc:
            self.heap_curr_addr = address
        return self._tensor("heap ", shape, dtype, name, base_partition, address, size)

    def pop_heap(self) -> None:
        """Free the tensor that was last allocated on the heap."""
        kernel_assert(len(self.heap) > 0, "pop_heap of an empty heap")
        before = self.heap.pop()
        freed = "" if self.use_auto_alloc else f" freed={before - self.heap_curr_addr} B"
        self.heap_curr_addr = before
        self._log(f"pop heap{freed}", False)

    def get_total_space(self) -> int:
        """Bytes that it manages."""
        return self.sb_upper_bound - self.sb_lower_bound

    def get_free_space(self) -> int:
        """Bytes between stack and heap."""
        return self.heap_curr_addr - self.stack_curr_addr

    def get_used_space(self) -> int:
        """Bytes of the stack and of the heap; 0 in automatic mode."""
        return self.get_total_space() - self.get_free_space()

    def get_stack_curr_addr(self) -> int:
        """The address that the stack grows from; refused in automatic mode."""
        self._check_manual("get_stack_curr_addr")
        return self.stack_curr_addr

    def get_heap_curr_addr(self) -> int:
        """The lowest address of the heap; refused in automatic mode."""
        self._check_manual("get_heap_curr_addr")
        return self.heap_curr_addr

    def align_stack_curr_addr(self, align: int = 32) -> None:
        """Let the stack grow from a multiple of `align`; refused in automatic mode."""
        self._check_manual("align_stack_curr_addr")
        address = align_to(self.stack_curr_addr, align)
        kernel_assert(
            address <= self.heap_curr_addr,
            f"align_stack_curr_addr to {align} gives {address}; the heap starts at {self.heap_curr_addr}",
        )
        self.stack_curr_addr = address

    def set_name_prefix(self, prefix: str) -> None:
        """Prepend `prefix` to the names of all tensors from here on."""
        self.prefix = prefix

    def get_name_prefix(self) -> str:
        """What is prepended to names."""
        return self.prefix

    def flush_logs(self) -> None:
        """Print what was logged since the last time, as a tree."""
        self.tree_logger.flush()

    def _check(self, shape, dtype, buffer) -> int:
        """Bytes of a partition that a tensor takes."""
        kernel_assert(buffer == nl.sbuf, f"SbufManager allocates in nl.sbuf, got buffer {buffer}")
        kernel_assert(len(shape) > 0, f"a tensor has at least the partition dimension, got shape {shape}")
        return num_elts(shape[1:]) * sizeinbytes(dtype)

    def _alignment(self, dtype, align) -> int:
        if align is None:
            return sizeinbytes(dtype)
        kernel_assert(align >= 1, f"align is a number of bytes of at least 1, got {align}")
        return align

    def _check_space(self, fits: bool, shape, dtype, size: int) -> None:
        kernel_assert(
            fits or self.use_auto_alloc,
            f"out of SBUF: {shape} of {dtype} takes {size} bytes per partition; {self.get_free_space()} of "
            f"{self.get_total_space()} are free, between stack at {self.stack_curr_addr} and heap at "
            f"{self.heap_curr_addr}. Close a scope or pop the heap before, or use smaller tiles",
        )

    def _check_manual(self, method: str) -> None:
        kernel_assert(
            not self.use_auto_alloc,
            f"{method} is not supported in automatic mode, where the compiler chooses addresses",
        )

    def _tensor(self, kind: str, shape, dtype, name, base_partition: int, address: int, size: int):
        full = "" if name is None else f"{self.prefix}{name}"
        if self.unlogged_section:
            self._log(self.unlogged_section, False)
            self.unlogged_section = ""
        label = full if full else "(unnamed)"
        self._log(f"{kind}{label}: {size} B{self._at(address)} {tuple(shape)} {dtype}", False)
        place = None if self.use_auto_alloc else (base_partition, address)
        return nl.ndarray(shape, dtype=dtype, buffer=nl.sbuf, name=full, address=place)

    def _at(self, address: int) -> str:
        return "" if self.use_auto_alloc else f" @ {address}"

    def _log(self, msg: str, is_scope_boundary: bool) -> None:
        self.tree_logger.log(msg, len(self.scopes), is_scope_boundary)


def create_auto_alloc_manager(logger: Logger | None = None) -> SbufManager:
    """An :class:`SbufManager` of all of SBUF that leaves addresses to the compiler."""
    return SbufManager(0, nl.tile_size.total_available_sbuf_size, logger, use_auto_alloc=True)
