"""Mirror of client/spans.py."""

import subprocess
import sys

import pytest

PREFIX = "import sys, pronghorn.client, pronghorn.worker.runtime\n" + (
    "from pronghorn.client.spans import spans_in_use\n"
)


@pytest.mark.parametrize(
    ("act", "imported", "in_use"),
    [
        ("", False, False),
        ("import opentelemetry.trace", True, False),
        (
            "from opentelemetry import trace\n"
            "from opentelemetry.sdk.trace import TracerProvider\n"
            "trace.set_tracer_provider(TracerProvider())",
            True,
            True,
        ),
    ],
)
@pytest.mark.slow
def test_it_is_used_only_where_the_program_has_configured_it(
    act: str, imported: bool, in_use: bool
) -> None:
    text = (
        f"{PREFIX}{act}\n"
        "found = spans_in_use()\n"
        "assert found is spans_in_use()\n"
        "print('opentelemetry' in sys.modules, found is not None)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == f"{imported} {in_use}\n"


def test_a_module_that_another_thread_is_importing_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from types import ModuleType

    from pronghorn.client.spans import spans_in_use

    monkeypatch.setitem(sys.modules, "opentelemetry.trace", ModuleType("opentelemetry.trace"))
    assert spans_in_use() is None
