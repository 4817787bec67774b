"""Names of parametrized tests."""

import re

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def shown(value: object) -> str:
    """Name a value equally in every process, as those need it that share the tests out."""
    return _ADDRESS.sub("", str(value))
