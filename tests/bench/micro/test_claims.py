"""Claims are cheap, and never do both sides go on."""

import pytest

from pronghorn.bench.micro.claims import BOTH
from pronghorn.bench.subject import Subject, started


def test_the_cost_is_measured() -> None:
    with started(Subject(name="cost", factory="micro.claims:cost")) as running:
        assert running.measure(1000).calls == 1000


@pytest.mark.slow
def test_never_do_claim_and_revoke_both_go_on() -> None:
    subject = Subject(name="race", factory="micro.claims:race", options={"fenced": True})
    with started(subject) as running:
        assert running.measure(2000).extra[BOTH] == 0
