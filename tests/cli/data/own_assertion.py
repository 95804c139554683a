"""A script that compares its kernel with numpy."""

import numpy as np
from add import add

ones = np.ones((128, 64), np.float32)
assert (add(ones, ones) == 2.0).all(), "add is not addition"
print("add is addition")
