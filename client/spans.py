"""Whether the program uses OpenTelemetry, found out without importing it.

Mirror: tests/client/test_spans.py.
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .otel import Spans


def spans_in_use() -> "Spans | None":
    """Give what makes our spans, if the program has configured a provider of tracers.

    Where it has not imported OpenTelemetry this is one look into a dict.
    """
    api: ModuleType | None = sys.modules.get("opentelemetry.trace")
    if api is None or not hasattr(api, "get_tracer_provider"):  # another thread is importing it
        return None
    from .otel import configured_spans  # which imports what the program has imported

    return configured_spans()
