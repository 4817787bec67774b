"""The progress bar shows items, rate and what is left."""

import io

from rich.console import Console

from pronghorn.client.cli.progress import CallProgress, LoadProgress, Progress


def shown(size: int | None, steps: list[tuple[int, int, int]]) -> str:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    with Progress(size, console) as progress:
        for done, taken, read in steps:
            progress.show(done, taken=taken, read=read)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_input_of_known_size_has_a_bar() -> None:
    text = shown(1000, [(0, 0, 0), (10, 50, 500), (100, 100, 1000)])
    assert "100 items" in text
    assert "━" * 40 in text


def test_endless_input_has_none() -> None:
    text = shown(None, [(12_345, 20_000, 1_000_000)])
    assert "12,345 items" in text
    assert "━" not in text


def test_a_call_shows_its_message_and_how_far_it_is() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    bar = CallProgress(console)
    bar.show(1, 4, "reading [1]")
    bar.close()
    assert isinstance(console.file, io.StringIO)
    assert "reading [1]" in console.file.getvalue()
    assert "25%" in console.file.getvalue()


def test_a_load_shows_how_far_it_is_and_some_words() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    bar = LoadProgress(11.0, console)
    bar.show(5.5, "500 sent  p99 [1] ms")
    bar.close()
    assert isinstance(console.file, io.StringIO)
    assert "500 sent  p99 [1] ms" in console.file.getvalue()
