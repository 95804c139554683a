"""A script whose own comparison is wrong."""

import numpy as np
from add import add

ones = np.ones((128, 64), np.float32)
assert (add(ones, ones) == 3.0).all(), "1 + 1 is not 3"
