"""What the standard library's pools run: the same bodies as our nodes, undecorated.

Mirror: tests/bench/floors/test_functions.py.
"""


def add(a: int, b: int) -> int:
    """Sum of two integers."""
    return a + b
