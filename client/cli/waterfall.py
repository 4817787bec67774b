"""Where the time of a call went, as a small chart for ``pronghorn call --trace``.

Mirror: tests/client/cli/test_waterfall.py.
"""

import sys
from shutil import get_terminal_size
from typing import Final

import msgspec

from pronghorn.broker.wire.waterfall import Waterfall

from .output import is_terminal
from .quantities import duration_text

_PLAIN_WIDTH: Final = 80  # where standard error is no terminal
_BAR_MIN: Final = 10
_THIN: Final = "▏"  # for what would have no width at all


def show_waterfall(waterfall: Waterfall | None, *, as_json: bool) -> None:
    """Print it to standard error, for standard output is for results."""
    if waterfall is None:
        sys.stderr.write("the broker did not tell where the time went\n")
    elif as_json:
        stages = {stage.name.replace(" ", "_"): stage.ns for stage in waterfall.stages()}
        line = {"waterfall_ns": stages | {"total": waterfall.total_ns}}
        sys.stderr.write(msgspec.json.encode(line).decode() + "\n")
    else:
        width = get_terminal_size().columns if is_terminal(2) else _PLAIN_WIDTH
        sys.stderr.write(chart(waterfall, width))


def chart(waterfall: Waterfall, width: int) -> str:
    """Draw the stages below each other, each as a bar that begins where the one before ended."""
    stages = waterfall.stages()
    times = [duration_text(stage.ns) for stage in stages]
    total = duration_text(waterfall.total_ns)
    name_width = max(len(stage.name) for stage in stages)
    time_width = max(len(total), *map(len, times))
    room = max(_BAR_MIN, width - name_width - time_width - 5)
    lines = []
    begun_ns = 0
    for stage, time in zip(stages, times, strict=True):
        begin = round(begun_ns / waterfall.total_ns * room)
        begun_ns += stage.ns
        end = round(begun_ns / waterfall.total_ns * room)
        bar = "█" * (end - begin) or (_THIN if stage.ns else "")
        line = f"{stage.name:<{name_width}}  {time:>{time_width}}  {' ' * begin}{bar}"
        lines.append(line.rstrip())
    lines.append(f"{'total':<{name_width}}  {total:>{time_width}}")
    return "".join(f"{line}\n" for line in lines)
