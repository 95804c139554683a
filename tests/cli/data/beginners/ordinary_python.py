import numpy as np

import nki
import nki.isa as nisa
import nki.language as nl


def helper(t):
    try:
        x = [i for i in range(3)]
    except Exception:
        pass
    return np.sum(t)


@nki.jit
def k(a: nl.NkiTensor) -> nl.NkiTensor:
    """doc"""
    out = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
    t = nl.zeros((128, 512), nl.float32, nl.sbuf)
    with open("x") as f:
        pass
    s = helper(t)
    print(f"{s}")
    nisa.dma_copy(dst=out, src=s)
    return out


k(np.ones((128, 512), np.float32))
