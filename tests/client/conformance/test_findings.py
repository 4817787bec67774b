"""Mirror of client/conformance/findings.py."""

import pytest

from pronghorn.client.conformance.findings import (
    Check,
    Failure,
    Finding,
    Skip,
    expect,
    expect_equal,
    run_checks,
    shown,
)


def test_checks_pass_fail_and_are_skipped() -> None:
    ran: list[str] = []

    def fails(subject: str) -> None:
        raise Failure(f"{subject} is wrong")

    def skips(subject: str) -> None:
        raise Skip("not here")

    checks = [
        Check("good", 1, ran.append),
        Check("bad", 2, fails),
        Check("elsewhere", 3, skips),
        Check("needy", 4, ran.append, ("add", "count")),
        Check("served", 5, ran.append, ("add",)),
    ]
    assert list(run_checks(checks, "it", {"add"})) == [
        Finding("good", 1, "passed"),
        Finding("bad", 2, "failed", "it is wrong"),
        Finding("elsewhere", 3, "skipped", "not here"),
        Finding("needy", 4, "skipped", "it does not serve count"),
        Finding("served", 5, "passed"),
    ]
    assert ran == ["it", "it"]


def test_a_defect_of_a_check_is_no_finding() -> None:
    def broken(subject: None) -> None:
        raise KeyError("name")

    with pytest.raises(KeyError):
        list(run_checks([Check("broken", 1, broken)], None, ()))


def test_expectations_say_what_was_found() -> None:
    expect(True, "never")
    expect_equal(1, 1, "the number")
    with pytest.raises(Failure, match=r"^so it is$"):
        expect(False, "so it is")
    with pytest.raises(Failure, match=r"^the number is 2, should be 1$"):
        expect_equal(2, 1, "the number")


def test_what_is_shown_is_bounded() -> None:
    assert shown([1]) == "[1]"
    assert len(shown(bytes(10_000))) < 200
