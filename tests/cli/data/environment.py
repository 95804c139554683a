"""Says which target it sees outside of kernels."""

import os

import numpy as np
from add import add

import nki.isa as nisa

print("sees", os.environ["NEURON_PLATFORM_TARGET_OVERRIDE"], nisa.get_nc_version().value)
add(np.ones((128, 64), np.float32), np.ones((128, 64), np.float32))
