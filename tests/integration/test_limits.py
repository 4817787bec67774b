"""Priorities, limits, labels and affinity, with real pools."""

from collections.abc import Iterator
from pathlib import Path

import limited
import pytest
from trees import PATIENCE_S

from pronghorn.client import Client, InvalidArgumentError, NotFoundError, Pool


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(limited.FILE, workers=3, labels={"gpu": 1}) as pool:
        yield pool


@pytest.fixture
def client(pool: Pool) -> Iterator[Client]:
    with pool.client() as client:
        yield client


def most_at_once(log: Path) -> int:
    running = most = 0
    for sign in log.read_text():
        running += 1 if sign == "+" else -1
        most = max(most, running)
    return most


@pytest.mark.slow
@pytest.mark.parametrize(("node", "limit"), [("two_at_once", 2), ("one_at_once", 1)])
def test_no_more_run_at_once_than_a_node_allows(
    client: Client, tmp_path: Path, node: str, limit: int
) -> None:
    log = tmp_path / "log"
    calls = [client.submit(node, str(log), 0.01) for _ in range(20)]
    others = [client.submit("where") for _ in range(20)]
    assert len({other.result(PATIENCE_S) for other in others}) >= 1
    for call in calls:
        call.result(PATIENCE_S)
    list(client.map(node, [(str(log), 0.001)] * 40, chunk_size=10))
    assert log.read_text().count("+") == 60
    assert most_at_once(log) == limit


@pytest.mark.slow
def test_no_more_begin_in_a_second_than_a_node_allows(client: Client) -> None:
    times = [call.result(PATIENCE_S) for call in [client.submit("fifty_a_second")] * 1]
    times += [
        call.result(PATIENCE_S) for call in [client.submit("fifty_a_second") for _ in range(30)]
    ]
    assert max(times) - min(times) >= (31 - 1 - 5) / 50 * 0.9


def test_a_label_chooses_the_worker(client: Client) -> None:
    assert len({client.call("where_gpu") for _ in range(20)}) == 1
    with pytest.raises(NotFoundError, match=r"needs a worker with the labels tpu"):
        client.call("nowhere")


def test_an_affinity_stays_with_its_worker(client: Client) -> None:
    workers = {
        key: {client.within(affinity=key).call("where") for _ in range(10)} for key in "abcdef"
    }
    assert all(len(found) == 1 for found in workers.values())
    assert len(set.union(*workers.values())) == 3, "keys are spread over the workers"


def test_nodes_that_call_themselves_are_not_held_up_by_their_limit(client: Client) -> None:
    assert client.call("itself", 5, timeout_s=PATIENCE_S) == 0


@pytest.mark.slow
def test_the_urgent_go_first(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Pool(limited.FILE, workers=1, labels={"gpu": 1}) as pool, pool.client() as client:
        held = client.submit("hold", 0.3)
        low = client.within(priority=3)
        later = [low.submit("append", str(log), "3") for _ in range(5)]
        first = [client.within(priority=0).submit("append", str(log), "0") for _ in range(5)]
        normal = [client.submit("append", str(log), "1") for _ in range(5)]
        for call in (held, *later, *first, *normal):
            call.result(PATIENCE_S)
    assert log.read_text() == "000001111133333"


@pytest.mark.parametrize(
    "wrong",
    [{"priority": 4}, {"priority": "high"}, {"affinity": "x" * 129}, {"durability": "fsync"}],
)
def test_options_that_make_no_sense(client: Client, wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidArgumentError):
        client.within(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("labels", [{"gpu": 0}, {"gpu": 4}, {"a b": 1}])
def test_labels_that_make_no_sense(labels: dict[str, int]) -> None:
    with pytest.raises(InvalidArgumentError):
        Pool(limited.FILE, workers=3, labels=labels)
