import numpy as np

import nki
import nki.isa as nisa
import nki.language as nl


@nki.jit
def relu(a):
    t = nl.load(a)
    r = nisa.activation(op=nl.relu, data=t)
    return r


relu(np.ones((128, 512), np.float32))
