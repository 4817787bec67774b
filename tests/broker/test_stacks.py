"""Mirror of broker/stacks.py; how crashes really write is tested in tests/fault/."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pronghorn.broker import stacks
from pronghorn.broker.stacks import read_stack

AT = 4096
EXECUTION = Path(stacks.__file__).parents[1] / "worker" / "execution.py"


@pytest.fixture
def file() -> Iterator[int]:
    descriptor = os.memfd_create("slots")
    os.ftruncate(descriptor, AT)
    yield descriptor
    os.close(descriptor)


def test_one_that_has_not_crashed_has_written_nothing(file: int) -> None:
    assert read_stack(file, AT) == ""


def test_frames_below_the_node_are_left_out_in_each_thread(file: int) -> None:
    text = (
        "Fatal Python error: Segmentation fault\n\n"
        "Current thread 0x1 (most recent call first):\n"
        '  File "/shop/nodes.py", line 3 in sell\n'
        '  File "<invoker of shop.sell>", line 1 in invoke\n'
        f'  File "{EXECUTION}", line 9 in call\n'
        '  File "/usr/lib/runtime.py", line 9 in run\n'
        "\n"
        "Thread 0x2 (most recent call first):\n"
        '  File "/shop/nodes.py", line 7 in other\n'
        f'  File "{EXECUTION}", line 20 in call_async\n'
        "\nExtension modules: zmq, msgspec (total: 2)\n"
    )
    os.pwrite(file, text.encode(), AT)
    assert read_stack(file, AT) == (
        "Fatal Python error: Segmentation fault\n\n"
        "Current thread 0x1 (most recent call first):\n"
        '  File "/shop/nodes.py", line 3 in sell\n'
        "\n"
        "Thread 0x2 (most recent call first):\n"
        '  File "/shop/nodes.py", line 7 in other'
    )


def test_garbage_is_shown_and_bounded(file: int) -> None:
    os.pwrite(file, b"\xff" * 10**6, AT)
    assert 0 < len(read_stack(file, AT)) <= 16 * 1024
