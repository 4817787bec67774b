"""How long from `pronghorn serve` to the first answered call, and how long for `--help`?

Two workers, the console script of the installed wheel. An editable installation is slower at
every start of an interpreter, and says so in the environment. See subjects/first_call.py for
what is timed.

Mirror: tests/bench/scenarios/test_scenarios.py.
"""

from ..report import Report, compare, latency_table, p50, raw_rounds
from ..rounds import run
from ..subject import Subject
from .options import Options

QUESTION = "How long from `pronghorn serve` to the first answered call?"

_LATE, _WAITING = "serve, call when its socket exists", "serve, client waits since before"
_HELP, _FLOOR = "pronghorn --help", "python -c pass"


def measure(options: Options) -> Report:
    """Start servers and commands, taking turns."""
    subjects = [
        Subject(name=_LATE, factory="subjects.first_call:serve_to_first_call"),
        Subject(
            name=_WAITING,
            factory="subjects.first_call:serve_to_first_call",
            options={"client_waits": True},
        ),
        Subject(name=_HELP, factory="subjects.first_call:help_text"),
        Subject(name=_FLOOR, factory="subjects.first_call:bare_interpreter"),
    ]
    rounds = run(subjects, options.plan(calls=1, slices=3, warm_up=1), options.progress)
    seconds = {name: [value / 1e6 for value in p50(measured)] for name, measured in rounds.items()}
    return Report(
        scenario="start",
        question=QUESTION,
        comparisons=[
            compare("start.first_call", seconds[_LATE]),
            compare("start.waiting_client", seconds[_WAITING]),
            compare("start.help", seconds[_HELP]),
        ],
        tables=[latency_table("starts", rounds)],
        notes=[],
        raw={"starts": raw_rounds(rounds)},
    )
