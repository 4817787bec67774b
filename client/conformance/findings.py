"""Checks and what comes of them. Pure.

Mirror: tests/client/conformance/test_findings.py.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import msgspec

Verdict = Literal["passed", "failed", "skipped"]
Subject = TypeVar("Subject")


class Failure(Exception):
    """What is looked at does not do what PROTOCOL.md says."""


class Skip(Exception):
    """It can't be found out here whether something is so."""


class Finding(msgspec.Struct, frozen=True):
    """What came of a check.

    Attributes:
        name: What should be so.
        section: Of PROTOCOL.md, in which it is said.
        verdict: Whether it is; `skipped` if that could not be found out.
        reason: Why not, for people; empty when it has passed.
    """

    name: str
    section: int
    verdict: Verdict
    reason: str = ""


class Check(NamedTuple, Generic[Subject]):
    """Something that should be so: `run` raises `Failure` if it is not.

    `needs` names nodes without which it can't be found out.
    """

    name: str
    section: int
    run: Callable[[Subject], None]
    needs: tuple[str, ...] = ()


def run_checks(
    checks: Iterable[Check[Subject]], subject: Subject, served: Collection[str]
) -> Iterator[Finding]:
    """Run checks one by one; those for which nodes are missing are skipped."""
    for name, section, run, needs in checks:
        missing = [node for node in needs if node not in served]
        if missing:
            yield Finding(name, section, "skipped", f"it does not serve {', '.join(missing)}")
            continue
        try:
            run(subject)
        except Failure as failure:
            yield Finding(name, section, "failed", str(failure))
        except Skip as skip:
            yield Finding(name, section, "skipped", str(skip))
        else:
            yield Finding(name, section, "passed")


def expect(is_so: bool, reason: str) -> None:
    """Fail the check unless it is so."""
    if not is_so:
        raise Failure(reason)


def expect_equal(found: Any, wanted: Any, what: str) -> None:
    """Fail the check unless something is what it should be."""
    if found != wanted:
        raise Failure(f"{what} is {shown(found)}, should be {shown(wanted)}")


def shown(value: Any) -> str:
    """Show a value in some 200 characters at most."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:150]} … {text[-40:]}"
