"""A kernel call in a function that torch compiles: in the graph it is one call, by the kernel's number.

Imported only where torch is: by a call that is compiled.
"""

from __future__ import annotations

from typing import Any

import torch

from nki.launch.call import launch
from nki.launch.numbered import kernel_of


def _call(number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return launch(kernel_of(number), args, kwargs)


#: What a compiled function calls in the place of a kernel: the compiler does not look inside.
call_in_graph = torch.compiler.allow_in_graph(_call)

__all__ = ["call_in_graph"]
