"""Workflows as nodes of a dispatch table."""

from pathlib import Path
from typing import Any

import pytest

from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.broker.wire.table import HOST_LABEL
from pronghorn.worker.conducting import Conducting
from pronghorn.worker.context import Context
from pronghorn.worker.dispatch import DispatchTable, Entry
from pronghorn.worker.flow.document import DefinitionError
from pronghorn.worker.flow.serving import entry_of, read_workflow
from pronghorn.worker.flow.validation import validate

DOUBLE = """
description: Doubles.
input: [n, {times: 2}]
tasks: {t: {action: core.echo, input: {message: "{{ n * times }}"},
            next: [{publish: [{r: "{{ result() }}"}]}]}}
output: [{r: "{{ r }}"}]
"""


def entry(definition: str = DOUBLE) -> Entry:
    conducting = Conducting()
    made = entry_of(0, "double", validate(definition), conducting)
    conducting.use(DispatchTable([made]), caller=None)
    return made


async def call(made: Entry, raw: bytes) -> Any:
    context = Context(request_id="1", node=made.name, worker_id=1)
    return await made.invoke(made.decode(raw), context)


async def test_input_by_name_by_position_and_left_out() -> None:
    made = entry()
    assert await call(made, b"\x81\xa1n\x04") == {"r": 8}
    assert await call(made, b"\x92\x04\x03") == {"r": 12}
    with pytest.raises(InvalidArgumentError, match="unknown parameter `m`"):
        made.decode(b"\x81\xa1m\x04")


def test_what_is_told_of_it() -> None:
    made = entry()
    assert (made.kind, made.is_plain, made.info.labels) == ("async", False, (HOST_LABEL,))
    described = made.describe()
    assert (described.signature, described.doc) == ("double(n=None, times=2)", "Doubles.")
    assert set(described.params["properties"]) == {"n", "times"}


def test_another_content_is_another_node() -> None:
    one = DispatchTable([entry()]).digest
    assert one == DispatchTable([entry()]).digest
    assert one != DispatchTable([entry(DOUBLE.replace("times: 2", "times: 3"))]).digest


def test_a_file_names_it_where_it_has_no_name(tmp_path: Path) -> None:
    file = tmp_path / "price.yaml"
    file.write_text("tasks: {a: null}")
    assert read_workflow(file)[0] == "price"
    file.write_text("name: cost\ntasks: {a: null}")
    assert read_workflow(file)[0] == "cost"
    file.write_text("tasks: 3")
    with pytest.raises(DefinitionError, match="tasks"):
        read_workflow(file)
