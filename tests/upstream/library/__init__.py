"""Runs the tests of the vendor's kernel library, unmodified, on this project's ``nki``.

    python -m tests.upstream.library CHECKOUT

CHECKOUT is a checkout of github.com/aws-neuron/nki-library; only it is read, nothing
of it is kept. What its simulation mode imports and does not publish is provided here,
in memory, and so are repairs of defects of the published tree, each named when a run
starts. See :mod:`tests.upstream.library.__main__` for the options.
"""
