"""Numbers as people read them: a few digits and a unit.

Mirror: tests/client/cli/test_quantities.py.
"""

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def count_text(count: float) -> str:
    """Write a count in at most six characters: ``9,999``, ``12.3k``, ``4.56M``."""
    if round(count) < 10_000:
        return f"{round(count):,}"
    for unit in "kMG":
        count /= 1000
        if count < 999.5:
            return f"{_three_digits(count)}{unit}"
    return f"{_three_digits(count / 1000)}T"


def rate_text(per_s: float) -> str:
    """Write a rate; below ten with a decimal, so that one call in some seconds is seen."""
    return f"{per_s:.1f}" if 0 < per_s < 9.95 else count_text(per_s)


def duration_text(ns: float) -> str:
    """Write a short time: ``850 ns``, ``12.3 us``, ``4.56 ms``, ``78 s``; nothing for none."""
    if not ns:
        return "0"
    if ns < 999.5:
        return f"{ns:.0f} ns"
    for unit in ("us", "ms"):
        ns /= 1000
        if ns < 999.5:
            return f"{_three_digits(ns)} {unit}"
    return f"{_three_digits(ns / 1000)} s"


def age_text(seconds: float) -> str:
    """Write a long time by its two largest units: ``42 s``, ``3 min 5 s``, ``2 d 4 h``."""
    whole = int(seconds)
    for size, unit, smaller_size, smaller in (
        (_DAY, "d", _HOUR, "h"),
        (_HOUR, "h", _MINUTE, "min"),
        (_MINUTE, "min", 1, "s"),
    ):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller_size} {smaller}"
    return f"{whole} s"


def bytes_text(count: float | None) -> str:
    """Write a size: ``512 B``, ``12.3 MB``; a dash where it is not known."""
    if count is None:
        return "-"
    if count < 999.5:
        return f"{count:.0f} B"
    for unit in ("kB", "MB"):
        count /= 1000
        if count < 999.5:
            return f"{_three_digits(count)} {unit}"
    return f"{_three_digits(count / 1000)} GB"


def _three_digits(value: float) -> str:
    """Write a number with three digits, as many of them decimals as its size leaves."""
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{decimals}f}"
