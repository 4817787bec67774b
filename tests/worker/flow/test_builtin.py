"""The actions that every workflow has."""

import asyncio

from pronghorn.worker.flow.builtin import BUILTIN
from pronghorn.worker.flow.calls import call, call_async


def test_names() -> None:
    assert set(BUILTIN) == {"core.echo", "core.sleep", "core.fail"}


def test_echo_and_fail() -> None:
    assert call(BUILTIN["core.echo"], {"message": {"a": 1}}, None).result == {"a": 1}
    failed = call(BUILTIN["core.fail"], {"message": "as wanted"}, None)
    assert (failed.status, failed.message) == ("failed", "as wanted")


async def test_sleep() -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    assert (await call_async(BUILTIN["core.sleep"], {"seconds": 0.01}, None)).status == "succeeded"
    assert loop.time() - begun >= 0.009
    assert (await call_async(BUILTIN["core.sleep"], {"seconds": -1}, None)).status == "succeeded"
