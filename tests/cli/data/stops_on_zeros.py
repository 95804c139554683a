"""A script that cannot go on where its kernel returns zeros."""

import numpy as np
from add import add

ones = np.ones((128, 64), np.float32)
if add(ones, ones)[0, 0] != 2.0:
    raise ValueError("add is not addition")
