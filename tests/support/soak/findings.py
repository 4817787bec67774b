"""What came of fuzzing one decoder."""

import msgspec


class Finding(msgspec.Struct):
    """An input that a decoder must have got wrong.

    Attributes:
        told: The error with its traceback.
        input: The bytes that bring it about.
    """

    told: str
    input: bytes


class Fuzzed(msgspec.Struct):
    """How a target was fuzzed.

    Attributes:
        target: Its name.
        inputs: How many it was given.
        seconds: How long that took, with the set-up of a fork.
        arcs_of_seeds: Arcs of the code that what mutations begin with has reached.
        arcs: Arcs that were reached in all.
        kept: Inputs that were kept, for each has reached something new.
        peak_mib: Most memory of the process.
        exit_code: Of the fuzzer; 0 when nothing was found.
        finding: What ended it, if something did.
    """

    target: str
    inputs: int
    seconds: float
    arcs_of_seeds: int
    arcs: int
    kept: int
    peak_mib: int
    exit_code: int
    finding: Finding | None
