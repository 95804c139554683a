"""A loop on the device, written as the API level in force has it."""

import nki.language as nl

# nl.fori_loop exists from level 0.6 on, where it replaces nl.dynamic_range.
_FORI_LOOP = getattr(nl, "fori_loop", None)
_DYNAMIC_RANGE = nl.dynamic_range if _FORI_LOOP is None else None


def device_loop(lower, upper, body, step=1):
    """Run `body(i)` on the device for the register `i` from `lower` to `upper`, exclusive, by `step`.

    Args:
        lower: first value, an int or a register.
        upper: end, exclusive; an int or a register.
        body: called once, to record the instructions of one turn.
    """
    if _FORI_LOOP is not None:
        _FORI_LOOP(lower, upper, body, step)
    else:
        for index in _DYNAMIC_RANGE(lower, upper, step):
            body(index)
