"""Mirror of broker/audit.py."""

import json

from pronghorn.broker.audit import KINDS_MAX, Audit, Refusal

CALL = Refusal("call", "no right", "10.0.0.1", "ada", "rq:rM>}U", "shop.pay")


def test_a_refusal_is_one_object_without_what_is_not_known() -> None:
    line = Audit().note(Refusal("connection", "no key", "10.0.0.1"), 0.0)
    assert line is not None
    assert json.loads(line) == {
        "refused": "connection",
        "reason": "no key",
        "address": "10.0.0.1",
    }


def test_the_same_again_is_told_once_a_second_with_its_number() -> None:
    audit = Audit()
    assert audit.note(CALL, 10.0) is not None
    assert [audit.note(CALL, 10.0 + index / 10) for index in range(9)] == [None] * 9
    again = audit.note(CALL, 11.0)
    assert again is not None
    assert json.loads(again)["times"] == 10
    assert audit.note(CALL, 11.5) is None
    last = audit.note(CALL, 13.0)
    assert last is not None
    assert json.loads(last)["times"] == 2


def test_others_are_told_meanwhile_and_what_is_kept_in_mind_is_bounded() -> None:
    audit = Audit()
    assert audit.note(CALL, 0.0) is not None
    for index in range(KINDS_MAX):
        assert audit.note(Refusal("call", str(index)), 0.0) is not None
    assert audit.note(CALL, 0.1) is not None, "it was forgotten, so it is told"
