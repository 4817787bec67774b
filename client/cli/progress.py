"""The progress bar of ``pronghorn map``, on standard error.

Mirror: tests/client/cli/test_progress.py.
"""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Display
from rich.text import Text

_REFRESHES_PER_S = 5


class Progress:
    """Shows how many items are done, how quickly and, if `size` is known, how much is left.

    Args:
        size: Bytes of the whole input.
    """

    def __init__(self, size: int | None, console: Console | None = None) -> None:
        self._size = size
        columns = (BarColumn(), _Count(), TimeRemainingColumn(compact=True))
        self._display = Display(
            *(columns if size else (SpinnerColumn("line"), _Count(), TimeElapsedColumn())),
            console=console or Console(stderr=True),
            refresh_per_second=_REFRESHES_PER_S,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._display.add_task("", total=None)

    def show(self, done: int, *, taken: int, read: int) -> None:
        """Show that so many items are done; `taken` items with `read` bytes are done or begun.

        How many items there are is estimated from that; for the last ones it is exact.
        """
        total = taken * self._size / read if self._size and read else None
        self._display.update(self._task, completed=done, total=total)

    def __enter__(self) -> Self:
        self._display.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._display.stop()


class _Count(ProgressColumn):
    """Such as ``12,345 items  3,200/s``."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{int(task.completed):,} items" + (f"  {speed:,.0f}/s" if speed else ""))
