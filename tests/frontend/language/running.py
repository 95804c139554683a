"""Runs functions of nki.language on tiles of given arrays."""

import functools

import numpy as np

import nki
import nki.language as nl
from nki import runtime
from nki_isa.machine.targets import as_target


def _tile(value):
    return value if isinstance(value, (int, float)) else nl.load(value)


def _stored(tile):
    source = nl.copy(tile) if tile.buffer == nl.psum else tile
    out = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.shared_hbm)
    nl.store(out, source)
    return out


@nki.jit
def _one(function, x):
    return _stored(function(_tile(x)))


@nki.jit
def _two(function, x, y):
    return _stored(function(_tile(x), _tile(y)))


@nki.jit
def _three(function, x, y, z):
    return _stored(function(_tile(x), _tile(y), _tile(z)))


def call(function, *arrays, target="trn2", **keywords):
    """(what `function` gives for tiles of `arrays`, the opcodes it took)."""
    with runtime.session(target=as_target(target)) as session:
        bound = functools.partial(function, **keywords) if keywords else function
        result = (_one, _two, _three)[len(arrays) - 1](bound, *arrays)
    opcodes = [i.opcode for i in session.launches[-1].program.walk()]
    return result, [name for name in opcodes if name != "dma_copy"]


def random(*shape, low=-3.0, high=3.0, seed=0):
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)
