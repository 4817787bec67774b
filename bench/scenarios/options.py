"""How much a scenario measures, from the command line.

Mirror: tests/bench/scenarios/test_options.py.
"""

import msgspec

from ..rounds import ROUNDS_MIN, Plan, Progress

QUICK_ROUNDS = 3


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asked for.

    Attributes:
        rounds: Fresh starts of every subject; figures are medians over them.
        quick: Less of everything, to see that it works; its figures are no results.
        progress: Where to say what goes on.
    """

    progress: Progress
    rounds: int = ROUNDS_MIN
    quick: bool = False

    def plan(self, *, calls: int, slices: int, warm_up: int) -> Plan:
        """Make the plan of one group; a fifth of the calls when it should be quick."""
        if self.quick:
            calls, warm_up = max(1, calls // 5), max(1, warm_up // 5)
        return Plan(rounds=self.rounds, calls=calls, slices=slices, warm_up=warm_up)
