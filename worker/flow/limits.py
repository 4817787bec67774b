"""Every limit of the workflow engine, with its reason.

What happens at each is said where it is used; all end in an error that names place and limit.

Mirror: tests/worker/flow/test_documentation.py.
"""

from typing import Final

DEFINITION_BYTES_MAX: Final = 1 << 20
"""Of a definition as text: a workflow of 5,000 tasks has about half of that."""

DEFINITION_NODES_MAX: Final = 100_000
"""Values in a definition once its anchors are followed, so that they multiply nothing."""

DEFINITION_DEPTH_MAX: Final = 64
"""Of values within values in a definition, and of anything that an expression returns."""

PROBLEMS_MAX: Final = 100
"""Of a definition that are reported; a document of another kind has one in each line."""

TASKS_MAX: Final = 5_000
"""Of a workflow."""

EXPRESSION_CHARS_MAX: Final = 10_000
"""Of one expression; the compiler's own recursion ends a little above."""

TEXT_MAX: Final = 16 << 20
"""Characters of a text that an expression makes: as many bytes as a request may have."""

ELEMENTS_MAX: Final = 1_000_000
"""Of a list that an expression makes, and values within what it returns."""

ARGUMENT_MAX: Final = 100_000
"""Of a number that says how much a filter makes: a width, a count, a precision."""

INTEGER_BITS_MAX: Final = 4_096
"""Of a number within an expression; what it returns must fit into 64 bits."""

WORK_MAX: Final = 1_000_000
"""Elements that the filters of one evaluation may look at, 64 characters of text counting as one.
The slowest, ``sort``, takes some 3 s for as many."""

ITEMS_MAX: Final = 1_000_000
"""Of one ``with`` whose items are given as a value."""

ITEMS_IN_FLIGHT: Final = 1_000
"""Items of one ``with`` that run at once where its ``concurrency`` says nothing."""

STARTS_MAX: Final = 100_000
"""Task starts of one run, items not counted: a cycle without an end fails here, and what a run
remembers of its cycles stays below some 100 MB."""

SIGNALS_MAX: Final = 100
"""Kept for tasks that do not wait for them yet."""

FLOW_DEPTH_MAX: Final = 100
"""Workflows within workflows, as calls within calls."""

CONTEXT_WARN_BYTES: Final = 64 << 20
"""Of the variables of a run as they travel, from which on a warning is logged, once: decoded they
take several times that, and a run host has up to 64 runs."""

ERRORS_MAX: Final = 1_000
"""Kept of a run; later ones are counted."""

DELAY_MAX_S: Final = 30 * 86_400.0
"""Of a delay or a timeout, as of a request's deadline."""

COMMAND_RETRIES: Final = 3
"""Of a task whose transition says ``retry``, which gives no count (as in Orquesta)."""

assert ITEMS_IN_FLIGHT < ITEMS_MAX
assert DEFINITION_NODES_MAX < DEFINITION_BYTES_MAX
