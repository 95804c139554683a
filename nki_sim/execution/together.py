"""Equal instructions that do not depend on each other, executed as one.

What repeats in an unrolled program is the form. An instruction joins the first group of its form that comes
after all it depends on: writes of bytes that it reads, and every access to bytes that it writes. Those of a
group whose tiles lie at equal steps are one instruction whose tiles have one more dimension: numpy is called
once, and goes over longer rows. Each element is computed from the same values by the same function as one by
one, so it has the same bits; only instructions that work element by element are grouped. (Products are not: a
wider one of BLAS may sum in another order, and calling it less often saves nothing beside what it does.)
"""

from __future__ import annotations

import copy
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence

from nki_isa.ir.fields import Role
from nki_isa.ir.form import Form
from nki_isa.ir.instruction import Instruction
from nki_isa.machine.operators import Operator
from nki_isa.tensor.tensor import NkiTensor
from nki_sim.execution.binding import Step, Steps
from nki_sim.execution.memory import Addresses, Memory
from nki_sim.timing.byte_boxes import Access, AllAccesses

#: Groups that an instruction may go back over: what it works on is still in the host's cache.
_BACK = 8

#: Bytes of a tile beyond which the call of numpy is nothing beside what it does, and going back costs more.
_LARGE = 1 << 15


def together(
    steps: Steps, memory: Memory, placement: Addresses, step_of: Callable[[Instruction], Step]
) -> Steps:
    """What does the work of `steps`, a stretch without loops and meetings, with fewer of them.

    Args:
        steps: in program order.
        memory: what they work on.
        placement: (partition, byte) of its on-chip storages.
        step_of: gives what runs an instruction.
    """
    single = {instruction: step for step, instruction in steps}
    found: Steps = []
    for group in groups([instruction for _, instruction in steps], placement):
        for run in at_equal_steps(group, memory):
            step = single[run[0]] if len(run) == 1 else step_of(widened(run, memory))
            found.append((step, run[0]))
    return found


# --- groups


def groups(stretch: Sequence[Instruction], placement: Addresses) -> list[list[Instruction]]:
    """`stretch` in an order that gives the same results, in groups.

    Those of a group are of one form that works by element, in program order, and none depends on another.
    """
    found: list[list[Instruction]] = []
    places: dict[Form, list[int]] = {}  # of the groups of a form
    accesses = AllAccesses(placement)
    for instruction in stretch:
        after = len(found) - _BACK - 1
        touched = []
        for views, is_write in ((instruction.reads, False), (instruction.writes, True)):
            for view in views:
                owner = accesses.bytes_of(view.storage)
                box = owner.layout.whole if view.dynamic is not None else owner.layout.of(view)
                for access in owner.overwrite(box) if is_write else owner.writes.meeting(box):
                    after = max(after, access[1])
                touched.append((owner, box, is_write))
        form = instruction.form
        open_to = places.setdefault(form, []) if form is not None and can_join(form) else []
        k = bisect_right(open_to, after)
        if k == len(open_to):
            open_to.append(len(found))
            found.append([])
        place = open_to[k]
        found[place].append(instruction)
        made: Access = (float(place), place, 0, None)
        for owner, box, is_write in touched:
            if not owner.owner:  # another operand of this very instruction lies in the same bytes
                accesses.bytes_of(owner.storage)
            (owner.writes if is_write else owner.reads).add(box, made)
    return found


def can_join(form: Form) -> bool:
    """True if all its instructions do is to write elements that follow, bit for bit, from those in the same
    place of small tiles, whose bytes are known before a run.
    """
    sample = form.sample
    if not (sample.by_element and form.is_given and form.is_plain) or form.has_registers:
        return False
    if any(view.size * view.dtype.itemsize > _LARGE for view in sample.writes):
        return False
    operators = (value for value in sample.__dict__.values() if isinstance(value, Operator))
    return all(operator.is_exact for operator in operators)


# --- one for many


def at_equal_steps(group: Sequence[Instruction], memory: Memory) -> Iterator[list[Instruction]]:
    """Parts of a group of instructions by element, each of which can be one: see :func:`widened`."""
    run, apart = [group[0]], None
    for instruction in group[1:]:
        steps = _steps(run[-1], instruction, memory)
        if steps == apart if len(run) > 1 else _are_possible(steps, run[0]):
            run.append(instruction)
        else:
            yield run
            run = [instruction]
        apart = steps
    yield run


def widened(run: Sequence[Instruction], memory: Memory) -> Instruction:
    """One instruction for a run at equal steps: its tiles have one more dimension, the second."""
    made = copy.copy(run[0])
    for name, step in _steps(run[0], run[1], memory).items():
        view: NkiTensor = made.__dict__[name]
        if _is_tile(name, made):
            shape = (view.shape[0], len(run), *view.shape[1:])
            strides = (view.strides[0], step // view.dtype.itemsize, *view.strides[1:])
            made.__dict__[name] = NkiTensor(shape, strides, view.offset, view.dtype, view.storage)
    return made


def _steps(one: Instruction, other: Instruction, memory: Memory) -> dict[str, int]:
    """Bytes from each tensor of `one` to that of `other`; left out where that lies in another memory."""
    found = {}
    for name, view in one.__dict__.items():
        if type(view) is NkiTensor:
            its: NkiTensor = other.__dict__[name]
            if memory.buffer(view.storage) is memory.buffer(its.storage):
                found[name] = memory.address(its).offset - memory.address(view).offset
    return found


def _are_possible(steps: dict[str, int], instruction: Instruction) -> bool:
    """True if its tiles are of one shape and can be repeated at these steps; its columns stand still."""
    shape = instruction.writes[0].shape
    for name, view in instruction.__dict__.items():
        if type(view) is not NkiTensor:
            continue
        if name not in steps or (view.shape != shape if _is_tile(name, instruction) else steps[name] != 0):
            return False
    return all(step % instruction.__dict__[name].dtype.itemsize == 0 for name, step in steps.items())


def _is_tile(name: str, instruction: Instruction) -> bool:
    """True for the name of an operand that has an element for each of the result."""
    return instruction.fields[name].role is not Role.scalar
