"""The programs that call: started, stopped for a while, killed, and asked to end."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic, monotonic_ns
from typing import Literal

from .served import environment

Profile = Literal["steady", "vanishing"]

READY_S = 30.0
FINISH_S = 40.0  # for what is open to end; shows a hang, is no budget
_ABORT_S = 5.0
_QUOTED = 2000  # characters of what one has printed


class Program:
    """One running caller."""

    def __init__(self, endpoint: str, folder: Path, number: int, seed: int, how: Profile) -> None:
        self.number = number
        self.ledger = folder / f"caller-{number}"
        self.stderr = folder / f"caller-{number}.stderr"
        self.was_stopped = False  # whether it could not be in time
        self.vanished_ns = 0  # when it was killed; 0 as long as it was not
        arguments = [endpoint, str(self.ledger), str(number), str(seed), how]
        with self.stderr.open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "soak.caller", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment({}),
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        """Wait until it calls."""
        out = self._process.stdout
        assert out is not None
        if not select.select([out], [], [], READY_S)[0] or out.readline() != b"ready\n":
            raise RuntimeError(f"caller {self.number} does not start: {self.said()}")

    def pause(self) -> None:
        """Stop it: it reads nothing and says nothing."""
        self.was_stopped = True
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def vanish(self) -> None:
        """Kill it, and what it has open is nobody's."""
        self._process.kill()
        self._process.wait()
        self.vanished_ns = monotonic_ns()
        self._close()

    def ask_to_end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    def finish(self, end: float) -> list[str]:
        """Wait until what it has open has ended; says what went wrong."""
        try:
            status = self._process.wait(max(0.0, end - monotonic()))
        except subprocess.TimeoutExpired:
            os.kill(self._process.pid, signal.SIGABRT)  # it prints where its threads are
            try:
                self._process.wait(_ABORT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            return [f"caller {self.number} waits for ever: {self.said()}"]
        finally:
            self._close()
        said = self.said()
        return [f"caller {self.number} ends with {status}: {said}"] if status or said else []

    def kill(self) -> None:
        """End it if it runs, whatever comes of it."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._close()

    def said(self) -> str:
        return self.stderr.read_text(errors="replace").strip()[-_QUOTED:]

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


class Crowd:
    """All callers of a run."""

    def __init__(self, endpoint: str, folder: Path, seed: int) -> None:
        self._endpoint = endpoint
        self._folder = folder
        self._seed = seed
        self.programs: list[Program] = []  # all there ever were, by number from 1
        self._spare: list[Program] = []  # started ahead, to vanish

    def start(self, count: int) -> None:
        """Start some that stay."""
        started = [self._start("steady") for _ in range(count)]
        for program in started:
            program.wait_until_ready()

    def prepare(self, count: int) -> None:
        """Start so many ahead that can vanish at once."""
        while len(self._spare) < count:
            self._spare.append(self._start("vanishing"))

    def take_spare(self) -> Program:
        """Take one that calls already and may vanish; another is started in its place."""
        self.prepare(len(self._spare) + 1)
        program = self._spare.pop(0)
        program.wait_until_ready()
        return program

    @property
    def steady(self) -> list[Program]:
        return [one for one in self.programs if one not in self._spare and not one.vanished_ns]

    @property
    def ledgers(self) -> list[Path]:
        """The logs of all that got so far as to call."""
        return [program.ledger for program in self.programs if program.ledger.exists()]

    def finish(self) -> list[str]:
        """Ask all to end and wait for it; says what went wrong."""
        left = [program for program in self.programs if not program.vanished_ns]
        for program in left:
            program.ask_to_end()
        end = monotonic() + FINISH_S
        return [problem for program in left for problem in program.finish(end)]

    def kill(self) -> None:
        """End all that run."""
        for program in self.programs:
            program.kill()

    def _start(self, how: Profile) -> Program:
        number = len(self.programs) + 1
        seed = self._seed * 1000 + number
        program = Program(self._endpoint, self._folder, number, seed, how)
        self.programs.append(program)
        return program
