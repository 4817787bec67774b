"""Tiny nodes. Serve them with ``pronghorn serve scripts/examples/tiny.py``."""

from pronghorn.worker import node


@node
def add(a: int, b: int) -> int:
    """Sum of two integers."""
    return a + b


@node
def concat(first: str, second: str, separator: str = " ") -> str:
    """Two texts with a separator between them."""
    return first + separator + second


@node
def divide(dividend: float, divisor: float) -> float:
    """Quotient of two numbers; a node error when `divisor` is zero."""
    return dividend / divisor
