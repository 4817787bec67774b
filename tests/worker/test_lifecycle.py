"""Mirror of worker/lifecycle.py."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from time import monotonic, sleep
from typing import Any

import pytest

from pronghorn.worker.lifecycle import (
    Hooks,
    StartHookError,
    run_start_hooks,
    run_stop_hooks,
)


class Notes(list[str]):
    """What was run, and hooks that note it."""

    def noting(self, name: str, error: BaseException | None = None) -> Callable[[], None]:
        def hook() -> None:
            self.append(name)
            if error is not None:
                raise error

        hook.__module__, hook.__qualname__ = "nodes", name
        return hook

    def noting_async(
        self, name: str, error: BaseException | None = None
    ) -> Callable[[], Coroutine[Any, Any, None]]:
        async def hook() -> None:
            await asyncio.sleep(0)
            self.noting(name, error)()

        hook.__module__, hook.__qualname__ = "nodes", name
        return hook


def test_order() -> None:
    notes = Notes()
    first, second, third = notes.noting("1"), notes.noting_async("2"), notes.noting("3")
    hooks = Hooks(start=(first, second, third), stop=(first, second, third))
    assert run_start_hooks(hooks, asyncio.run)
    assert notes == ["1", "2", "3"]
    run_stop_hooks(hooks, asyncio.run)
    assert notes == ["1", "2", "3", "3", "2", "1"]


def test_nothing_to_run() -> None:
    assert not run_start_hooks(Hooks(), asyncio.run)
    run_stop_hooks(Hooks(), asyncio.run)


def test_only_coroutines_make_use_of_the_loop() -> None:
    notes = Notes()
    assert not run_start_hooks(Hooks(start=(notes.noting("1"),)), asyncio.run)


def test_a_def_that_gives_a_coroutine_is_awaited() -> None:
    notes = Notes()
    wrapped = notes.noting_async("inner")
    assert run_start_hooks(Hooks(start=(lambda: wrapped(),)), asyncio.run)
    assert notes == ["inner"]


@pytest.mark.parametrize("make", [Notes.noting, Notes.noting_async])
@pytest.mark.parametrize("error", [ValueError("no model"), SystemExit("no model")])
def test_a_start_hook_that_raises_is_the_last(
    make: Callable[..., Any], error: BaseException
) -> None:
    notes = Notes()
    hooks = Hooks(start=(notes.noting("1"), make(notes, "2", error), notes.noting("3")))
    with pytest.raises(StartHookError) as caught:
        run_start_hooks(hooks, asyncio.run)
    assert str(caught.value) == "start hook nodes.2 failed"
    assert caught.value.name == "nodes.2"
    assert caught.value.error is caught.value.__cause__ is error
    assert notes == ["1", "2"]


@pytest.mark.parametrize("run", [run_start_hooks, run_stop_hooks])
def test_ctrl_c_is_nobody_s_failure(run: Callable[..., object]) -> None:
    hook = Notes().noting("1", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run(Hooks((hook,), (hook,)), asyncio.run)


@pytest.mark.parametrize("make", [Notes.noting, Notes.noting_async])
@pytest.mark.parametrize("error", [ValueError("gone"), SystemExit("gone")])
def test_a_stop_hook_that_raises_is_logged_and_the_others_run(
    make: Callable[..., Any], error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    notes = Notes()
    hooks = Hooks(stop=(notes.noting("1"), make(notes, "2", error), notes.noting("3")))
    run_stop_hooks(hooks, asyncio.run)
    assert notes == ["3", "2", "1"]
    (record,) = caplog.records
    assert record.getMessage() == "stop hook nodes.2 failed"
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_a_coroutine_is_broken_off_when_the_time_is_up(caplog: pytest.LogCaptureFixture) -> None:
    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            notes.append("cancelled")

    notes = Notes()
    begun = monotonic()
    run_stop_hooks(Hooks(stop=(notes.noting("1"), hang)), asyncio.run, seconds=0.05)
    assert 0.05 <= monotonic() - begun < 1.0
    assert notes == ["cancelled"]
    name = f"{hang.__module__}.{hang.__qualname__}"
    assert [record.getMessage() for record in caplog.records] == [
        f"stop hook {name} is broken off: it did not end within 0.05 s",
        "stop hook nodes.1 is left out: 0.05 s are up",
    ]


def test_those_behind_a_def_that_took_all_of_the_time_are_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    notes = Notes()
    hooks = Hooks(stop=(notes.noting("1"), lambda: sleep(0.02)))
    with caplog.at_level(logging.WARNING):
        run_stop_hooks(hooks, asyncio.run, seconds=0.01)
    assert notes == []
    assert [record.getMessage() for record in caplog.records] == [
        "stop hook nodes.1 is left out: 0.01 s are up"
    ]


async def test_a_def_may_run_a_loop_of_its_own() -> None:
    notes = Notes()

    def hook() -> None:
        asyncio.run(notes.noting_async("inner")())

    run_start_hooks(Hooks(start=(hook,)), asyncio.run)
    run_stop_hooks(Hooks(stop=(hook,)), asyncio.run)
    assert notes == ["inner", "inner"]
