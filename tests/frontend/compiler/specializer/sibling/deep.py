"""Inside the user's package."""

CONSTANT = 42


def helper(x):
    return x + 1


def function():
    return helper(CONSTANT)
