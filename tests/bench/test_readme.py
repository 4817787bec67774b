from pathlib import Path

import pytest

from pronghorn.bench import readme

ROOT = Path(__file__).resolve().parents[2]
PLOTS = {readme.LATENCY_PLOT, readme.RATE_PLOT, readme.COUNT_PLOT, readme.CONTEXT_PLOT}


def test_the_readme_shows_the_kept_results_and_nothing_else() -> None:
    text = (ROOT / "README.md").read_text()
    assert readme.updated(text, ROOT / "bench" / "results") == text


def test_every_kept_result_has_its_place_in_the_table() -> None:
    kept = {path.stem for path in (ROOT / "bench" / "results").glob("*.json")}
    assert kept <= set(readme.ORDER)


def test_a_readme_without_a_place_for_figures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no lines"):
        readme.updated("# nothing\n", tmp_path)


def test_without_results_the_table_says_so(tmp_path: Path) -> None:
    peers = f"{readme.BEGIN_PEERS}\nold\n{readme.END_PEERS}"
    text = f"before\n{readme.BEGIN}\nold\n{readme.END}\n{peers}\nafter\n"
    new = readme.updated(text, tmp_path)
    assert "Nothing has been measured yet." in new
    assert "No peer has been measured yet." in new
    assert readme.plots(tmp_path) == {}
    assert new.startswith("before\n")
    assert new.endswith("after\n")
    assert "old" not in new


def test_plots_are_those_of_the_kept_results() -> None:
    results = ROOT / "bench" / "results"
    drawn = readme.plots(results)
    assert set(drawn) == PLOTS
    assert {name: (results / name).read_text() for name in drawn} == drawn


def test_every_plot_that_the_readme_shows_is_there() -> None:
    text = (ROOT / "README.md").read_text()
    for name in PLOTS:
        assert f"(bench/results/{name})" in text
        assert (ROOT / "bench" / "results" / name).exists()
