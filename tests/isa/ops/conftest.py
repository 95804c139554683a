"""Instruction tests draw 40 examples each, without a deadline: the machine that runs them may be busy."""

from hypothesis import settings

settings.register_profile("instructions", max_examples=40, deadline=None)
settings.load_profile("instructions")
