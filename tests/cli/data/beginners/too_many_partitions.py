import numpy as np

import nki
import nki.language as nl


@nki.jit
def add(a, b):
    out = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
    x = nl.load(a)
    y = nl.load(b)
    nl.store(out, x + y)
    return out


print(add(np.ones((256, 512), np.float32), np.ones((256, 512), np.float32)))
