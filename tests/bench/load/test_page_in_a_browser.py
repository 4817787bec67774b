"""Report and plots as a browser shows them: nothing is cut, broken, hidden or hard to read."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from browser import LAYOUT, SCHEMES, Scheme, Tab, browser
from load_records import crowded, imagined, record_of, tally_of

from pronghorn.bench.load.page import page
from pronghorn.bench.load.plan import Plan
from pronghorn.bench.load.record import Record
from pronghorn.bench.plots import WIDTH

ROOT = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.slow


def nothing() -> Record:
    plan = Plan(rate=1, duration_s=1)
    return record_of(tally_of(plan), plan)


RECORDS = {
    "plain": imagined(),
    "closed": msgspec.structs.replace(imagined(), loop="closed", plan=Plan(closed=8, duration_s=4)),
    "nothing": nothing(),
    "crowded": crowded(),
}


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.mark.parametrize("width", [360, 768, 1280, 1920])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", RECORDS)
def test_report_can_be_read(
    name: str, scheme: Scheme, width: int, tab: Tab, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    path.write_text(page(RECORDS[name], ["p99>5ms holds: p99 is 6.000 ms"]))
    tab.show(path, width=width, scheme=scheme)
    assert tab.evaluate(LAYOUT) == []
    assert tab.complaints() == []
    assert tab.fetched() == [path.as_uri()]


def test_light_and_dark_are_as_the_reader_has_it(tab: Tab, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(page(imagined()))
    shades = []
    for scheme in SCHEMES:
        tab.show(path, width=800, scheme=scheme)
        shades.append(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert shades == ["rgb(246, 246, 244)", "rgb(19, 20, 22)"]


@pytest.mark.parametrize("path", sorted((ROOT / "bench" / "results").glob("*.svg")))
@pytest.mark.parametrize("scheme", SCHEMES)
def test_plots_of_the_readme_can_be_read(path: Path, scheme: Scheme, tab: Tab) -> None:
    tab.show(path, width=WIDTH, scheme=scheme)
    assert tab.evaluate(LAYOUT) == []
    assert tab.complaints() == []
    assert tab.fetched() == [path.as_uri()]


BAD = {
    '<p style="width:500px">x': "the page is 500 wide, the window 360",
    '<p style="position:absolute;left:-20px">x': "is from -20 to",
    '<div style="width:50px;overflow:hidden"><p style="width:90px">x': "is cut, or has to be",
    '<p style="width:1em">non-stop': '"non-stop" in "non-stop" is broken',
    '<p style="width:1em;overflow-wrap:anywhere">word': '"word" in "word" is broken',
    '<p style="position:absolute;top:0">one</p><p style="position:absolute;top:9px">two': (
        '"one" lies over "two"'
    ),
    '<p style="color:#999;background:#fff">pale': '"pale" has a contrast of 2.8',
    '<p style="font-size:9px">small': '"small" is 9px high',
    '<p style="display:none">hidden': '"hidden" is not shown',
}


@pytest.mark.parametrize(("body", "what"), BAD.items())
def test_what_is_wrong_is_noticed(body: str, what: str, tab: Tab, tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text(f"<!doctype html><body style='margin:0'>{body}")
    tab.show(path, width=360)
    assert what in "\n".join(tab.evaluate(LAYOUT))


def test_what_the_browser_complains_of_is_noticed(tab: Tab, tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text("<!doctype html><img src=none.png><script>console.error('oh'); nix()</script>")
    tab.show(path, width=360)
    told = "\n".join(tab.complaints())
    assert "oh" in told
    assert "nix is not defined" in told
    assert len(tab.fetched()) == 2
