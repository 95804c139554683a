"""Listeners that need no values are told ahead what the others are told in between."""

from hypothesis import given, settings
from hypothesis import strategies as st
from random_programs import Maker, crowded

from nki_sim.execution.machine import Machine
from nki_sim.observe import Listener


class Log(Listener):
    """Notes what it is told, and the registers at that time."""

    def __init__(self):
        self.told = []

    def before(self, core, instruction, registers):
        self.told.append((instruction, tuple(registers)))


class Ahead(Log):
    needs_values = False


class Both(Log):
    """Looks at what an instruction has written, too."""

    def after(self, core, instruction):
        assert self.told[-1][0] is instruction


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([Log, Both]))
def test_instructions_come_in_the_same_order_with_the_same_registers(seed, other):
    program = Maker(seed, kinds=("copy", "add", "store", "load", "move", "read", "write")).program
    machine = Machine(program, crowded(program, seed))
    alone, first, second = Ahead(), Ahead(), other()
    machine.listen((0, [first, second]))
    list(machine.run())
    assert first.told == second.told and len(first.told) == sum(1 for _ in program.walk())
    machine.memory.registers[:] = [0] * len(machine.memory.registers)
    machine.memory.sbuf.fill(0)
    machine.listen((0, [alone]))
    list(machine.run())
    assert [instruction for instruction, _ in alone.told] == [instruction for instruction, _ in first.told]
