"""Scenario files."""

import pytest

from pronghorn.bench.load.scenario import CallEntry, parse_scenario
from pronghorn.broker.wire.errors import InvalidArgumentError

GOOD = """
rate = 2000
profile = "poisson"
fail_if = ["p99>5ms"]
[[call]]
node = "add"
weight = 3
params = { a = 1, b = { "$int" = [1, 9] } }
[[call]]
node = "lookup"
params_file = "keys.jsonl"
"""


def test_says_what_to_call() -> None:
    scenario = parse_scenario(GOOD, "s.toml")
    assert (scenario.rate, scenario.profile, scenario.duration) == (2000, "poisson", None)
    assert scenario.call == (
        CallEntry("add", 3.0, params={"a": 1, "b": {"$int": [1, 9]}}),
        CallEntry("lookup", params_file="keys.jsonl"),
    )


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("rate = ", "s.toml"),
        ("rate = 5", "no .*call"),
        ("rate = " + "[" * 5_000, "nested too deeply"),
        ("speed = 5", "speed"),
        ('[[call]]\nnode = "a"\nwieght = 2', "wieght"),
        ('[[call]]\nnode = "a"\nworkflow = "b"', "a node or a workflow"),
        ("[[call]]\nparams = {}", "a node or a workflow"),
        ('rate = "fast"\n[[call]]\nnode = "a"', r"\$\.rate"),
        ('[[call]]\nnode = "a"\nparams = {}\nparams_file = "x"', "give one"),
    ],
)
def test_mistakes_are_told(text: str, what: str) -> None:
    with pytest.raises(InvalidArgumentError, match=what):
        parse_scenario(text, "s.toml")
