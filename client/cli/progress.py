"""The progress of ``pronghorn map``, ``call``, ``load`` and ``run``, on standard error.

Mirror: tests/client/cli/test_progress.py.
"""

from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.live import Live
from rich.progress import (
    BarColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Display
from rich.text import Text

from pronghorn.broker.wire.flows import FlowEvent

from .tree import RunTree

_REFRESHES_PER_S = 5


class Progress:
    """Shows how many items are done, how quickly and, if `size` is known, how much is left.

    Args:
        size: Bytes of the whole input.
        console: Where to show it; standard error by default.
    """

    def __init__(self, size: int | None, console: Console | None = None) -> None:
        self._size = size
        bar = (BarColumn(), _Items(), TimeRemainingColumn(compact=True, elapsed_when_finished=True))
        spinner = (SpinnerColumn("line"), _Items(), TimeElapsedColumn())
        self._display = Display(
            *(bar if size else spinner),
            console=console or Console(stderr=True),
            refresh_per_second=_REFRESHES_PER_S,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._display.add_task("", total=size, items=0)

    def show(self, done: int, *, taken: int, read: int) -> None:
        """Show that so many items are done; `taken` items, of `read` bytes, are done or begun."""
        self._display.update(self._task, completed=read * done / max(taken, 1), items=done)

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


class CallProgress:
    """Shows what one call tells of its progress, and is gone when it is closed.

    Args:
        console: Where to show it; standard error by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._display = Display(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=console or Console(stderr=True),
            refresh_per_second=_REFRESHES_PER_S,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._display.add_task("", total=None)
        self._display.start()

    def show(self, done: float, total: float | None, message: str) -> None:
        """Show how far it is; the bar only moves to and fro while `total` is not known."""
        self._display.update(self._task, completed=done, total=total, description=message)

    def close(self) -> None:
        """Take it away."""
        self._display.stop()


class LoadProgress:
    """Shows how far a run of a load is, and how it goes.

    Args:
        seconds: How long its calls are planned.
        console: Where to show it; standard error by default.
    """

    def __init__(self, seconds: float, console: Console | None = None) -> None:
        self._display = Display(
            BarColumn(),
            TextColumn("{task.description}", markup=False),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=console or Console(stderr=True),
            refresh_per_second=_REFRESHES_PER_S,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._display.add_task("", total=seconds)
        self._display.start()

    def show(self, elapsed_s: float, text: str) -> None:
        """Show how many seconds have passed, and some words."""
        self._display.update(self._task, completed=elapsed_s, description=text)

    def close(self) -> None:
        """Take it away."""
        self._display.stop()


_COLOURS: Final = {
    "succeeded": "green",
    "failed": "red",
    "timeout": "red",
    "abandoned": "red",
    "canceled": "yellow",
    "paused": "yellow",
}


class LiveTree:
    """The tree of a run, redrawn as it changes; it stays when it is closed.

    Args:
        tree: It.
        console: Where to show it; standard error by default.
    """

    def __init__(self, tree: RunTree, console: Console | None = None) -> None:
        self._tree = tree
        self._live = Live(
            get_renderable=self._drawn,
            console=console or Console(stderr=True),
            refresh_per_second=_REFRESHES_PER_S,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def show(self, event: FlowEvent) -> None:
        """Take in an event; it is seen with the next refresh."""
        self._tree.take(event, monotonic())

    def __enter__(self) -> Callable[[FlowEvent], None]:
        self._live.start()
        return self.show

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def _drawn(self) -> Text:
        lines = self._tree.lines(monotonic())
        drawn = [Text(line.text, style=_COLOURS.get(line.status, "")) for line in lines]
        return Text("\n", no_wrap=True, overflow="ellipsis").join(drawn)


class _Items(ProgressColumn):
    """Such as ``12,345 items  3,200/s``, the rate being that of the whole time."""

    def render(self, task: Task) -> Text:
        items: int = task.fields["items"]
        text = f"{items:,} items"
        return Text(f"{text}  {items / task.elapsed:,.0f}/s" if task.elapsed else text)
