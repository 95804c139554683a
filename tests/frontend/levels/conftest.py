"""What tests of one API level ask for."""

import pytest
from both_front_ends import front_end

from nki import levels


@pytest.fixture(params=["auto", "tracer"])
def at_0_7(request):
    """Level 0.7, by either front end."""
    level = levels.use("0.7")
    with front_end(request.param):
        yield
    levels.use(level)
