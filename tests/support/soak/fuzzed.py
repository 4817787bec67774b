"""A program whose decoders are fuzzed, guided by coverage: ``python -m soak.fuzzed``.

Atheris (libFuzzer) makes the inputs and keeps those that reach what none did before. Arcs of our
code are counted, of Jinja2's and of TOML's. msgspec is compiled and shows none: in their place
stands what it says of an input, as one of `_OUTCOMES` arcs.

Each decoder is fuzzed in a fork of this process, so that all is imported once. For each a line of
JSON goes to standard output.
"""

import argparse
import math
import os
import re
import resource
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic, process_time
from typing import Any
from zlib import crc32

import atheris
import msgspec

from .findings import Finding, Fuzzed

with atheris.instrument_imports(include=["pronghorn", "jinja2", "tomllib"]):
    from .decoders import TARGETS, Target

INPUT_BYTES_MAX = 4096
SECONDS_MAX = 2.0  # of CPU time for one input; arcs that are counted make it twice as long
MEMORY_BYTES_MAX = 512 << 20  # beyond what there was at the begin
_HANGS_S = 30  # libFuzzer ends it then
_DEEP = (
    *(
        (opening * INPUT_BYTES_MAX)[:INPUT_BYTES_MAX]
        for opening in (b"\x91", b"\x81\xa1a", b"[", b'{"a":', b"(", b"a.", b"- ", b"not ")
    ),
    *(
        opening * depth + b"1" + closing * depth
        for depth in (90, 480, 680, 900)
        for opening, closing in ((b"\x91", b""), (b"[", b"]"), (b'{"a":', b"}"), (b"(", b")"))
        if depth * len(opening + closing) < INPUT_BYTES_MAX
    ),
)
"""Seeds of every target: what is nested is seldom found by chance."""

_OUTCOMES = 512
_FOUND = 77  # what libFuzzer exits with
_NUMBERS = re.compile(r"\d+")


class SlowError(Exception):
    """A decoder took longer than anybody should have to wait for one input."""


def main() -> None:
    """Fuzz the chosen targets, one after the other."""
    parser = argparse.ArgumentParser(prog="python -m soak.fuzzed")
    parser.add_argument("--seconds", type=float, default=0.0, help="of all")
    parser.add_argument("--runs", type=int, default=-1, help="mutations of each, at most")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--only", action="append", choices=[one.name for one in TARGETS])
    arguments = parser.parse_args()
    chosen = [one for one in TARGETS if not arguments.only or one.name in arguments.only]
    seconds = math.ceil(arguments.seconds / len(chosen))
    for target in chosen:
        fuzzed = fuzz(target, arguments.seed, seconds, arguments.runs)
        print(msgspec.json.encode(fuzzed).decode(), flush=True)


def fuzz(target: Target, seed: int, seconds: int, runs: int) -> Fuzzed:
    """Fuzz one target in a fork."""
    with tempfile.TemporaryDirectory(prefix="pronghorn-fuzz-") as folder:
        path = Path(folder)
        seeds = path / "seeds"
        seeds.mkdir()
        begin_with = (*target.seeds(), *_DEEP)
        for number, data in enumerate(begin_with):
            (seeds / f"{number:04}").write_bytes(data)
        begun = monotonic()
        if runs >= 0:  # libFuzzer counts those too
            runs += len(begin_with)
        child = os.fork()
        if child == 0:
            try:
                _in_fork(target, path, seed, seconds, runs)
            finally:  # whatever it was: the folder is not this process's
                traceback.print_exc()
                os._exit(1)
        _, status = os.waitpid(child, 0)
        took = monotonic() - begun
        log = (path / "log").read_text(errors="replace")
        cut = [each.read_bytes() for each in path.glob("found*")]
    return _read_log(target.name, log, took, os.waitstatus_to_exitcode(status), cut)


def _in_fork(target: Target, path: Path, seed: int, seconds: int, runs: int) -> None:
    os.dup2(os.open(path / "log", os.O_WRONLY | os.O_CREAT), 2)
    os.dup2(2, 1)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES_MAX,) * 2)  # -> MemoryError
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    options = {
        "seed": seed,
        "runs": runs,
        "max_total_time": seconds,
        "max_len": INPUT_BYTES_MAX,
        "timeout": _HANGS_S,
        "rss_limit_mb": 0,  # the kernel looks at it
        "print_final_stats": 1,
        "artifact_prefix": f"{path}/found-",
    }
    atheris.Setup(
        [
            sys.argv[0],
            *(f"-{name}={value}" for name, value in options.items()),
            str(path / "seeds"),
        ],
        _looked_at(target, path / "found"),
    )
    atheris.Fuzz()
    os._exit(0)


def _looked_at(target: Target, found: Path) -> Callable[[bytes], None]:
    """Make what atheris calls for each input; what it raises is a finding,
    whose input it keeps."""
    read, errors = target.read, target.errors

    def once(data: bytes) -> None:
        begun = process_time()
        try:
            told = str(read(data))
        except errors as error:
            told = f"{type(error).__name__} {error}"
        except BaseException:
            found.write_bytes(data)
            raise
        took = process_time() - begun
        if took > SECONDS_MAX:
            found.write_bytes(data)
            raise SlowError(f"{took:.1f} s for {len(data)} bytes")
        _outcome(crc32(_NUMBERS.sub("1", told).encode(errors="replace")) % _OUTCOMES)

    return once


def _make_outcomes() -> Callable[[int], None]:
    """Make a function that has an arc for each number below `_OUTCOMES`."""

    def halved(low: int, high: int, indent: str) -> str:
        if high - low == 1:
            return f"{indent}return\n"
        middle = (low + high) // 2
        below, above = (halved(*ends, indent + " ") for ends in ((low, middle), (middle, high)))
        return f"{indent}if number < {middle}:\n{below}{indent}else:\n{above}"

    made: dict[str, Any] = {}
    exec(f"def outcome(number):\n{halved(0, _OUTCOMES, ' ')}", made)
    instrumented: Callable[[int], None] = atheris.instrument_func(made["outcome"])
    return instrumented


_outcome = _make_outcomes()  # once, for it takes a second


def _read_log(name: str, log: str, seconds: float, exit_code: int, cut: Sequence[bytes]) -> Fuzzed:
    """Read what libFuzzer says of itself."""
    arcs = [int(one) for one in re.findall(r"cov: (\d+) ft:", log)]
    counts = dict(re.findall(r"stat::(\w+):\s+(\d+)", log))
    kept = re.findall(r"corp: (\d+)/", log)
    first = re.search(r"INITED cov: (\d+)", log)
    finding = None
    if exit_code or cut:
        finding = Finding(log[log.rfind("=== Uncaught") :][:4000], cut[0] if cut else b"")
    return Fuzzed(
        target=name,
        inputs=int(counts.get("number_of_executed_units", 0)),
        seconds=seconds,
        arcs_of_seeds=int(first[1]) if first else 0,
        arcs=max(arcs, default=0),
        kept=int(kept[-1]) if kept else 0,
        peak_mib=int(counts.get("peak_rss_mb", 0)),
        exit_code=exit_code,
        finding=finding,
    )


if __name__ == "__main__":
    main()
