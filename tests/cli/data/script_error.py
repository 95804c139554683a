"""A Python error outside of kernels, after a kernel that is right."""

import numpy as np
from add import add


def average(values):
    return sum(values) * (1 / (len(values) - 2))


ones = np.ones((128, 64), np.float32)
average([add(ones, ones)[0, 0], 2.0])
