"""Mirror of broker/wire/shortage.py."""

import errno
import os

import pytest

from pronghorn.broker.wire.shortage import explained


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EMFILE, "ulimit -n"),
        (errno.ETOOMANYREFS, "ulimit -n"),
        (errno.ENFILE, "fs.file-max"),
        (errno.EAGAIN, "ulimit -u"),
        (errno.ENOMEM, "fewer workers"),
    ],
)
def test_what_is_lacking_is_said_with_what_to_do(number: int, advice: str) -> None:
    text = explained(OSError(number, os.strerror(number)))
    assert text.startswith(f"{os.strerror(number)}: ")
    assert advice in text


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)), "No such file or directory"),
        (OSError("something else"), "something else"),
    ],
)
def test_other_errors_are_said_as_they_are(error: OSError, text: str) -> None:
    assert explained(error) == text
