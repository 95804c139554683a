"""Ends with the status it is told."""

import sys

import numpy as np
from add import add

add(np.ones((128, 64), np.float32), np.ones((128, 64), np.float32))
sys.exit(int(sys.argv[1]) if sys.argv[1].isdigit() else sys.argv[1])
