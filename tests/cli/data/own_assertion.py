"""A script that compares its kernel with numpy, in two ways."""

import numpy as np
from add import add

ones = np.ones((128, 64), np.float32)
assert (add(ones, ones) == 2.0).all(), "add is not addition"
np.testing.assert_allclose(add(ones, ones), 2.0)
print("add is addition")
