"""``serve --metrics``: scraped over HTTP like Prometheus does."""

import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from commands import Commands
from prometheus_client.parser import text_string_to_metric_families

from pronghorn.client import InvalidArgumentError, Pool
from pronghorn.client.cli.metrics import parse_address, serving_metrics

HERE = ("127.0.0.1", 0)


def scrape(url: str) -> str:
    with urllib.request.urlopen(url, timeout=20) as response:
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return response.read().decode()


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:9464", ("127.0.0.1", 9464)), ("[::1]:0", ("::1", 0)), ("::1:80", ("::1", 80))],
)
def test_an_address(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text, insecure=False) == address


@pytest.mark.parametrize("text", ["", ":1", "9464", "localhost:1", "127.0.0.1:", "127.0.0.1:65536"])
def test_no_address(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="give an IP address and a port"):
        parse_address(text, insecure=False)


def test_others_can_reach_it_only_if_that_is_meant() -> None:
    with pytest.raises(InvalidArgumentError, match="--insecure if you mean it"):
        parse_address("0.0.0.0:9464", insecure=False)
    assert parse_address("0.0.0.0:9464", insecure=True) == ("0.0.0.0", 9464)


def test_an_address_in_use_is_told() -> None:
    with socket.create_server(HERE) as taken:
        address = taken.getsockname()
        with (
            pytest.raises(InvalidArgumentError, match="in use"),
            serving_metrics(address, "ipc:///nowhere"),
        ):
            pass


@pytest.mark.slow
def test_without_a_broker_a_scrape_fails_and_the_next_may_not(tmp_path: Path) -> None:
    with serving_metrics(HERE, f"ipc://{tmp_path}/none.sock") as url:
        for _ in range(2):
            with pytest.raises(urllib.error.HTTPError) as caught:
                scrape(url)
            with caught.value as answer:
                assert answer.code == 503
                assert b"no broker answer" in answer.read()


@pytest.mark.slow
def test_a_scrape_tells_what_was_called(pool: Pool) -> None:
    with pool.client() as client, serving_metrics(HERE, pool.endpoint) as url:
        client.call("add", 1, 2)
        for path in ("/", "/metricsx"):
            with pytest.raises(urllib.error.HTTPError) as caught:
                scrape(url.replace("/metrics", path))
            with caught.value as answer:
                assert answer.code == 404
        with socket.create_connection(("127.0.0.1", int(url.split(":")[2].split("/")[0]))):
            pass  # one that hangs up at once
        first, second = scrape(url), scrape(url)
    for page in (first, second):
        families = {family.name: family for family in text_string_to_metric_families(page)}
        counted = {
            sample.labels["node"]: sample.value
            for sample in families["pronghorn_node_requests"].samples
        }
        assert counted["client_nodes.add"] >= 1


@pytest.mark.slow
def test_serve_says_where_and_ends_with_it(commands: Commands) -> None:
    with commands.serving("nodes.py", "--workers", "1", "--metrics", "127.0.0.1:0") as serving:
        url = serving.ready["metrics"]
        assert "pronghorn_workers{" in scrape(url)
    with pytest.raises(urllib.error.URLError):
        scrape(url)
    refused = commands("serve", "nodes.py", "--metrics", "0.0.0.0:1")
    assert refused.status == 2
    assert "--insecure" in refused.errors
