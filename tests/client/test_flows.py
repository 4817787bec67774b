"""What is sent for a run, and what is made of its end."""

from pathlib import Path

import pytest

from pronghorn.broker.wire.errors import CancelledError, InvalidArgumentError, ProtocolError
from pronghorn.broker.wire.flows import RunReport
from pronghorn.client.flows import (
    RunFailedError,
    name_of,
    new_run_id,
    output_of,
    read_report,
    run_extras,
    run_params,
)
from pronghorn.client.stopwatch import Extras, recorded


class Built:
    def definition(self) -> dict[str, object]:
        return {"name": "built", "tasks": {}}


def test_a_workflow_is_a_name_a_definition_a_file_or_built(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text("tasks: {}")
    level = {"inputs": {"a": 1}, "level": "full"}
    assert run_params("f", None, {"a": 1}, "full") == {"workflow": "f", **level}
    assert run_params(file, {"a": 1}, {}, "full") == {"definition": "tasks: {}", **level}
    assert run_params({"x": 1}, {"a": 1}, {}, "full") == {"definition": {"x": 1}, **level}
    built = run_params(Built(), {"a": 1}, {}, "full", "id")
    assert built == {"definition": {"name": "built", "tasks": {}}, "id": "id", **level}
    assert [name_of(each) for each in ("f", {"x": 1}, Built())] == ["f", "workflow", "built"]


def test_what_can_t_be_sent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="can't be read"):
        run_params(tmp_path / "nix.yaml", None, {}, "full")
    with pytest.raises(InvalidArgumentError, match="not both"):
        run_params("f", {"a": 1}, {"a": 1}, "full")


def test_the_end_of_a_run() -> None:
    assert output_of(read_report({"status": "succeeded", "output": {"a": 1}}), "f") == {"a": 1}
    with pytest.raises(RunFailedError, match="f: it is failed") as caught:
        output_of(RunReport("failed", {"a": 1}), "f")
    assert caught.value.report.output == {"a": 1}
    with pytest.raises(CancelledError, match="f: it is canceled"):
        output_of(RunReport("canceled"), "f")
    with pytest.raises(ProtocolError, match="not the report of a run"):
        read_report(3)


@pytest.mark.parametrize("extras", [None, Extras(priority=0), Extras(durability="none")])
def test_a_run_that_asks_for_nothing_is_not_recorded(extras: Extras | None) -> None:
    assert run_extras(extras, print) is None


def test_a_run_with_a_key_is_recorded_as_sync_unless_told_otherwise() -> None:
    assert run_extras(Extras(key="a"), None) == Extras(key="a", durability="sync")
    batched = recorded(Extras(key="a"), "batched", None)
    assert run_extras(batched, None) == batched == Extras(key="a", durability="batched")
    with pytest.raises(InvalidArgumentError, match="1 to 255 bytes"):
        recorded(None, "sync", "")
    with pytest.raises(InvalidArgumentError, match="ask for its `events`"):
        run_extras(batched, print)


def test_ids_differ() -> None:
    assert new_run_id() != new_run_id()
