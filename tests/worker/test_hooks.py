"""Mirror of worker/hooks.py."""

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from unittest.mock import MagicMock

import pytest
from shown import shown

from pronghorn.worker import NodeDefinitionError, node, on_start, on_stop
from pronghorn.worker.hooks import is_hook


def kinds(candidate: object) -> list[str]:
    return [when for when in ("start", "stop") if is_hook(candidate, when)]


def test_a_hook_is_the_same_function() -> None:
    def open_model() -> int:
        return 5

    assert on_start(open_model) is open_model
    assert kinds(open_model) == ["start"]
    assert on_stop(open_model) is open_model
    assert kinds(open_model) == ["start", "stop"]
    assert open_model() == 5


def test_async_functions_wrappers_and_defaults() -> None:
    @on_stop
    async def close_model() -> None: ...

    @on_start
    @functools.wraps(close_model)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return close_model(*args, **kwargs)

    @on_start
    @node
    def both(path: str = "x", *, retries: int = 3) -> str:
        return path * retries

    assert kinds(close_model) == ["stop"]
    assert kinds(both) == ["start"]
    assert is_hook(wrapper, "start")


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


def needs(a: int, /, b: int, c: int = 1, *, d: int, e: int = 2) -> None: ...


class Model:
    def load(self) -> None: ...


@pytest.mark.parametrize("decorator", [on_start, on_stop])
@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        (generator, r"^hook .*\.generator \(.*test_hooks\.py:\d+\): it has a yield"),
        (async_generator, r"async_generator \(.*\): it has a yield"),
        (needs, r"needs \(.*\): hooks are called without arguments: drop a, b, d$"),
        (Model.load, "hooks are called without arguments: drop self"),
        (Model().load, r"^@on_st(art|op) marks functions, and <bound method .* is none"),
        (Model, "marks functions"),
        (print, "marks functions"),
        (5, "marks functions"),
        (functools.partial(needs, 1), "marks functions"),
    ],
    ids=shown,
)
def test_what_can_be_no_hook(decorator: Callable[[Any], Any], candidate: Any, message: str) -> None:
    with pytest.raises(NodeDefinitionError, match=message):
        decorator(candidate)


def test_things_that_answer_to_every_name_are_no_hooks() -> None:
    class Answers:
        def __getattribute__(self, name: str) -> bool:
            return True

    for candidate in (MagicMock(), Answers(), None, print, on_start):
        assert kinds(candidate) == []
