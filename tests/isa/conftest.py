"""Tests draw their examples without a deadline: the machine that runs them may be busy."""

from hypothesis import settings

settings.register_profile("isa", deadline=None)
settings.load_profile("isa")
