"""Large values of runs: equal wherever they go, written once, and nothing is left of them."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.msgpack import Ext
from trees import PATIENCE_S, Ends, Tree

from pronghorn.broker.wire.limits import KIB, Limits
from pronghorn.broker.wire.places import shared_root
from pronghorn.broker.wire.references import EXT_REFERENCE
from pronghorn.client import (
    InvalidArgumentError,
    LocalPool,
    Pool,
    RunFailedError,
    WorkerLostError,
)
from pronghorn.client.sync import Client

SERVED = Path(__file__).parents[1] / "support" / "served"
NODES = str(SERVED / "large_nodes.py")
LISTING = str(SERVED / "listing.yaml")

ITEMS = 12
LIMITS = Limits(request_bytes=256 * KIB)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """Serve with limits by which no value would get to a worker but by reference."""
    folder = tmp_path_factory.mktemp("runtime")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        with Pool(
            NODES, LISTING, workers=2, hosts=1, limits=LIMITS, data=str(folder / "data")
        ) as made:
            yield made


@pytest.fixture(scope="module")
def client(pool: Pool) -> Client:
    made = pool.client()
    warm_up(made)
    return made


@pytest.fixture(scope="module")
def local() -> Iterator[Client]:
    with LocalPool(NODES) as made:
        one = made.client()
        warm_up(one)
        yield one


def warm_up(client: Client) -> None:
    """Have all connections and threads there that the tests use."""
    definition = of_value("medium", "later")
    with client.submit_run(definition) as run, client.submit_run(definition) as other:
        assert run.result() == other.result()
    assert client.run(definition)["length"] == 5000
    assert len(list(client.map("as_text", [{"value": "a", "n": 1}]))) == 1


@pytest.fixture(scope="module")
def folder(pool: Pool) -> Path:
    return folder_of(pool)


def folder_of(pool: Pool) -> Path:
    """Give the folder of large values."""
    root = shared_root()
    assert root is not None
    (folder,) = root.glob(f"{pool._tree.supervisor_pid}-*")
    return folder


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir() if each.name != "lock")


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.01)


def of_value(
    kind: str,
    action: str,
    place: str | None = None,
    *,
    given: dict[str, Any] | None = None,
    source: str | None = f"{{{{ range({ITEMS}) }}}}",
) -> dict[str, Any]:
    """Define a run that makes a value and hands it to a task, or to each of its items."""
    task: dict[str, Any] = {
        "action": action,
        "input": given or {"value": "{{ ctx().v }}", "n": "{{ item() }}" if source else 1},
        "next": [{"publish": [{"r": "{{ result() }}"}]}],
    }
    if source is not None:
        task["with"] = source
    if place is not None:
        task["place"] = place
    make = {
        "action": "make",
        "input": {"kind": kind},
        "place": "inline",
        "next": [{"publish": [{"v": "{{ result() }}"}], "do": "t"}],
    }
    length = "{{ (v.rows if v is mapping else v) | length }}"
    return {"tasks": {"make": make, "t": task}, "output": [{"r": "{{ r }}"}, {"length": length}]}


KINDS = {
    "a list": ("numbers", "as_list"),
    "a list that is not typed": ("numbers", "as_any"),
    "text that is not typed": ("text", "as_any"),
    "rows": ("rows", "as_rows"),
    "read-only rows": ("rows", "as_sequence"),
    "text": ("text", "as_text"),
    "bytes": ("bytes", "as_bytes"),
    "a view": ("bytes", "as_view"),
    "a dict": ("dict", "as_dict"),
    "a node with a context": ("numbers", "with_context"),
    "a node in a thread": ("numbers", "in_thread"),
    "an async node": ("numbers", "later"),
    "a generator": ("numbers", "giving"),
    "an async generator": ("numbers", "giving_later"),
    "a node that takes another type": ("text", "as_number"),
    "a value of medium size": ("medium", "as_list"),
}
ONE_LEVEL_DOWN = {"value": {"rows": "{{ ctx().v }}", "n": "{{ item() }}"}, "n": 1}


def outcome(client: Client, definition: dict[str, Any]) -> Any:
    with client.submit_run(definition, level="terminal") as run:
        report = run.report()
    errors = {(each.item, each.message) for each in report.errors}
    return report.status, report.output, errors


@pytest.mark.parametrize("source", ["items", "a task"])
@pytest.mark.parametrize("kind", KINDS)
def test_both_placements_and_one_process_give_the_same(
    kind: str, source: str, client: Client, local: Client, folder: Path
) -> None:
    made, action = KINDS[kind]

    def placed(place: str | None) -> dict[str, Any]:
        if source == "items":
            return of_value(made, action, place)
        return of_value(made, action, place, source=None)

    status, output, errors = outcome(local, placed(None))
    assert outcome(client, placed("pool")) == (status, output, errors)
    assert outcome(client, placed("inline")) == (status, output, errors)
    assert outcome(client, placed(None)) == (status, output, errors)
    if action != "as_number":
        assert status == "succeeded"
        if source == "items":  # none of them has seen what another one did
            assert all(each == output["r"][0] for each in output["r"])
        assert output["length"] > 1000  # nor has the run
    wait_for(lambda: names(folder) == [])


@pytest.mark.parametrize("place", ["pool", "inline"])
def test_a_value_may_lie_one_level_down(place: str, client: Client, local: Client) -> None:
    definition = of_value("rows", "as_dict", place, given=ONE_LEVEL_DOWN)
    assert outcome(client, definition) == outcome(local, definition)
    assert outcome(client, definition)[0] == "succeeded"


def test_generators_that_give_items_get_large_values(client: Client, local: Client) -> None:
    source = {"action": "giving", "input": {"value": "{{ ctx().v }}", "n": 1}}
    for place in ("pool", "inline"):
        definition = of_value("numbers", "as_list", place, source="")
        definition["tasks"]["t"] |= {
            "with": {"items": source},
            "input": {"value": "{{ ctx().v }}", "n": "{{ index }}"},
        }
        assert outcome(client, definition) == outcome(local, definition)
        assert outcome(client, definition)[0] == "succeeded"


@pytest.mark.parametrize("place", ["pool", "inline"])
def test_what_can_t_be_changed_is_made_once_in_each_process(place: str, client: Client) -> None:
    result = client.run(of_value("numbers", "identity_of", place))["r"]
    made = {(pid, identity) for pid, identity in result}
    assert len(made) == len({pid for pid, _ in made})


@pytest.mark.parametrize("action", ["files", "listing"])
def test_it_is_written_once_for_a_run_and_the_workflows_in_it(
    action: str, client: Client, folder: Path
) -> None:
    given = {"value": "{{ ctx().v }}", "folder": str(folder)}
    place = "pool" if action == "files" else None
    seen = client.run(of_value("numbers", action, place, given=given))["r"]
    if action == "listing":
        seen = [each for listed in seen for each in listed["seen"]]
        assert len(seen) == 2 * ITEMS
    assert len({tuple(each) for each in seen}) == 1
    assert len(seen[0]) == 2  # with the lock
    wait_for(lambda: names(folder) == [])


@pytest.mark.parametrize("how", ["cancelled", "failed", "left"])
def test_a_run_that_ends_otherwise_leaves_nothing(
    how: str, client: Client, folder: Path, tmp_path: Path
) -> None:
    if how == "failed":
        definition = of_value("numbers", "fail", "pool", given={"value": "{{ ctx().v }}"})
        with pytest.raises(RunFailedError):
            client.run(definition)
    else:
        flag = tmp_path / "flag"
        given = {"value": "{{ ctx().v }}", "flag": str(flag)}
        with client.submit_run(of_value("numbers", "hold", "pool", given=given)) as run:
            wait_for(flag.exists)
            assert len(names(folder)) == 1
            if how == "cancelled":
                run.cancel(stop_running=True)
                assert run.report().status == "canceled"
    wait_for(lambda: names(folder) == [])


def test_a_reference_that_leads_nowhere_is_followed_by_the_value(tmp_path: Path) -> None:
    with Pool(NODES, workers=2, hosts=1) as pool, pool.client() as client:
        folder = str(folder_of(pool))
        for action in ("as_list", "later", "as_sequence"):
            definition = of_value("rows", action, "pool")
            tasks = definition["tasks"]
            tasks["t"]["next"][0]["do"] = "away"
            tasks["away"] = {
                "action": "remove",
                "input": {"folder": folder},
                "place": "inline",
                "next": [{"publish": [{"removed": "{{ result() }}"}], "do": "again"}],
            }
            tasks["again"] = {
                **tasks["t"],
                "input": {"value": "{{ ctx().v }}", "n": "{{ index }}"},
                "next": [{"publish": [{"s": "{{ result() }}"}]}],
            }
            definition["output"] += [{"s": "{{ s }}"}, {"removed": "{{ removed }}"}]
            output = client.run(definition)
            assert output["removed"] == 1
            assert output["r"] == output["s"]


def test_a_worker_that_dies_has_its_items_run_again_with_the_value(
    client: Client, tmp_path: Path
) -> None:
    flag = str(tmp_path / "flag")
    given = {"value": "{{ ctx().v }}", "n": "{{ item() }}", "flag": flag}
    definition = of_value("medium", "die_once", "pool", given=given)
    output = client.run(definition, durability="batched")
    assert output["r"] == [5000 + n for n in range(ITEMS)]


def test_references_of_others_are_refused(client: Client, folder: Path) -> None:
    for data in (bytes(28), b"", bytes(27)):
        forged = Ext(EXT_REFERENCE, data)
        for node in ("as_list", "as_any", "as_text", "later"):
            with pytest.raises(InvalidArgumentError) as error:
                client.call(node, value=forged, n=1)
            assert error.value.details.node is None or node in str(error.value)
        with pytest.raises(InvalidArgumentError):
            list(client.map("as_list", [{"value": forged, "n": 1}, {"value": [1], "n": 2}]))
    assert client.call("as_list", value=[1], n=1)[:2] == ["list", 1]


@pytest.mark.slow
def test_a_host_that_is_killed_leaves_no_file(tmp_path: Path) -> None:
    with Pool(NODES, workers=2, hosts=1) as pool, pool.client() as client:
        folder, flag = folder_of(pool), tmp_path / "flag"
        given = {"value": "{{ ctx().v }}", "flag": str(flag)}
        with client.submit_run(of_value("numbers", "hold", "pool", given=given)) as run:
            wait_for(flag.exists)
            (file,) = names(folder)
            (host,) = [each.pid for each in client.admin.workers() if each.host]
            assert file.startswith(f"{host}-")
            os.kill(host, signal.SIGKILL)
            with pytest.raises(WorkerLostError):
                run.result()
        wait_for(lambda: names(folder) == [])
        assert client.run(of_value("medium", "as_list", "pool"))["length"] == 5000
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()


@pytest.mark.slow
@pytest.mark.parametrize("who", ["the supervisor", "the whole tree"])
def test_a_tree_that_is_killed_leaves_nothing_for_long(who: str, tmp_path: Path) -> None:
    with Pool(NODES, workers=1, hosts=1) as pool:
        folder, flag = folder_of(pool), tmp_path / "flag"
        supervisor = pool._tree.supervisor_pid
        with pool.client() as client:
            given = {"value": "{{ ctx().v }}", "flag": str(flag)}
            run = client.submit_run(of_value("numbers", "hold", "pool", given=given))
            wait_for(flag.exists)
            assert len(names(folder)) == 1
            if who == "the whole tree":
                with Ends(Tree.below(supervisor).pids) as ends:
                    ends.kill()
                    ends.wait()
            else:
                os.kill(supervisor, signal.SIGKILL)
            del run
    if who == "the whole tree":
        with Pool(NODES, workers=1):
            wait_for(lambda: not folder.exists())
    wait_for(lambda: not folder.exists())
