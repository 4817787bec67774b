"""The examples of WORKFLOWS.md are right, and its figures are those of the code."""

import json
import re
from pathlib import Path

from pronghorn.worker.flow import limits, sharing
from pronghorn.worker.flow.builtin import BUILTIN
from pronghorn.worker.flow.comparison import differences
from pronghorn.worker.flow.limits import FLOW_DEPTH_MAX
from pronghorn.worker.flow.rehearsal import read_case, rehearse
from pronghorn.worker.flow.scope import FUNCTION_NAMES
from pronghorn.worker.flow.validation import (
    _ITEMS_FIELDS,
    _RETRY_FIELDS,
    _TASK_FIELDS,
    _WORKFLOW_FIELDS,
    validate,
)
from pronghorn.worker.shared import BYTES_MAX, VALUES_MAX

TEXT = (Path(__file__).resolve().parents[3] / "worker" / "flow" / "WORKFLOWS.md").read_text()


def examples(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_definitions_are_right() -> None:
    found = examples("yaml")
    assert found
    for definition in found:
        validate(definition)


def test_cases_go_as_expected() -> None:
    found = examples("json")
    assert found
    for text in found:
        case = read_case(json.dumps(json.loads(text)))
        assert case.expected
        assert differences(case, rehearse(case)) == []


def test_all_names_are_told() -> None:
    known = {*_WORKFLOW_FIELDS, *_TASK_FIELDS, *_RETRY_FIELDS, *BUILTIN, *FUNCTION_NAMES}
    missing = {name for name in known if f"`{name}" not in TEXT}
    assert missing == set()
    assert all(f"{name}:" in TEXT for name in _ITEMS_FIELDS)


def test_limits_are_those_of_the_code() -> None:
    for figure in (
        f"{limits.TASKS_MAX:,} tasks",
        f"{limits.DEFINITION_NODES_MAX:,} values",
        f"{limits.DEFINITION_DEPTH_MAX} deep",
        f"{limits.EXPRESSION_CHARS_MAX:,} characters",
        f"{limits.ITEMS_IN_FLIGHT:,} if it says",
        f"task starts of a run | {limits.STARTS_MAX:,}",
        f"items of one `with` | {limits.ITEMS_MAX:,}",
        f"for yet | {limits.SIGNALS_MAX}",
        f"kept of a run | {limits.ERRORS_MAX:,}",
        f"{limits.ELEMENTS_MAX:,} elements",
        f"{limits.WORK_MAX:,} elements",
        f"most {limits.COMMAND_RETRIES} times",
        f"each other | {FLOW_DEPTH_MAX} deep",
    ):
        assert figure in TEXT
    assert f"of {sharing.LEAST_BYTES >> 10} KiB and more to items" in TEXT
    assert f"of {sharing.LEAST_ALONE_BYTES >> 10} KiB and more to a" in TEXT
    assert f"decoded | {VALUES_MAX}, and {BYTES_MAX >> 20} MiB, beside" in TEXT
    assert limits.DEFINITION_BYTES_MAX == 1 << 20
    assert limits.TEXT_MAX == 16 << 20
    assert limits.DELAY_MAX_S == 30 * 86_400
