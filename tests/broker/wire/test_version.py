"""Mirror of broker/wire/version.py."""

import tomllib
from pathlib import Path

from pronghorn.broker.wire.version import CLIENT_NAME, SERVER_NAME, VERSION

PROJECT = Path(__file__).parents[3] / "pyproject.toml"


def test_the_constant_is_the_version_of_the_package() -> None:
    assert tomllib.loads(PROJECT.read_text())["project"]["version"] == VERSION


def test_both_sides_name_it() -> None:
    assert SERVER_NAME.endswith(f"/{VERSION}")
    assert CLIENT_NAME.endswith(f"/{VERSION}")
