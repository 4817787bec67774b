"""``pronghorn rehearse``: runs workflows against results that are written down. Asks no broker.

Mirror: tests/client/cli/test_rehearsing.py.
"""

import sys
from collections.abc import Sequence

from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.broker.wire.values import encode_json
from pronghorn.worker.flow.comparison import differences
from pronghorn.worker.flow.rehearsal import Case, CaseError, Order, read_case, rehearse

from .arguments import read_file
from .output import write
from .status import Status


def rehearse_files(files: Sequence[str], order: Order, *, as_json: bool) -> None:
    """Run the cases and say how they differ from what they expect.

    With ``as_json`` standard output has one line for each file, what came of it, and the
    differences go to standard error.

    Raises:
        InvalidArgumentError: A file can't be read, or holds no case.
        SystemExit: A case came to something else.
    """
    cases = [_read(file) for file in files]
    differing = 0
    for file, case in zip(files, cases, strict=True):
        rehearsed = rehearse(case, order)
        found = differences(case, rehearsed)
        differing += bool(found)
        lines = [f"{file}: {line}" for line in found]
        if as_json:
            write(encode_json(rehearsed.report()) + b"\n")
            sys.stderr.write("".join(f"{line}\n" for line in lines))
        elif lines:
            write("".join(f"{line}\n" for line in lines))
        else:
            agrees = "as expected" if case.expected else "nothing is expected"
            write(f"{file}: {rehearsed.status}, {agrees}\n")
    if differing:
        raise SystemExit(Status.NODE_ERROR)


def _read(file: str) -> Case:
    try:
        return read_case(read_file(file))
    except CaseError as error:
        raise InvalidArgumentError(f"{file}: {error}") from error
