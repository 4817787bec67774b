"""Which generation serves, which is coming and which are leaving. An IO shell.

A reload::

    asked ──► coming: template started ──loaded──► its workers started ──ready──► serves
                 │                                        │                        │
                 └─can't be imported, no nodes, too slow  └─starts fail            ▼
                      └────────► ended; the one that serves goes on       the one before: leaving

Calls never notice: the new workers are ready before the broker switches, and the old ones end what
they have begun. A template that is started again because it has ended must find what it had found
before; where the files have changed, that is a reload too.

Mirror: tests/fault/test_lifecycle.py, by real pools.
"""

import logging
from collections.abc import Callable, Iterator
from itertools import count
from time import monotonic

from .generation import Generation, has_nodes
from .program import Program
from .watcher import Watcher
from .wire.administration import OrderError, Reloaded
from .wire.control import Loaded, PoolConfig, PoolReloaded
from .wire.table import BUILTIN_PREFIX, NodeTable
from .workforce import Workforce

_log = logging.getLogger("pronghorn.broker.supervisor")

_TIMER = "reload"

Answer = Callable[[Reloaded | OrderError], None]


class Generations:
    """All generations of one tree. Owns their processes."""

    def __init__(
        self,
        config: PoolConfig,
        watcher: Watcher,
        *,
        broker: Program,
        give_up: Callable[[str], None],
        on_reloaded: Callable[[PoolReloaded], None],
    ) -> None:
        """Set it up; nothing is started.

        Args:
            config: Of the tree.
            watcher: The loop that it lives in.
            broker: Told of what is served.
            give_up: Called with the reason when nothing will ever be served.
            on_reloaded: Called when a reload has come to its end, good or bad.
        """
        self._config = config
        self._watcher = watcher
        self._broker = broker
        self._give_up = give_up
        self._on_reloaded = on_reloaded
        self._modules = ", ".join(config.modules)
        self._ids = count(1)  # of workers; never used again, also not for a new broker
        self.size = config.workers  # of the generation that serves
        self.bound = False  # whether the broker of this epoch is bound
        self.served = False  # whether it has told the host that all is ready, once
        self.current = self._make(0)
        self._coming: Generation | None = None
        self._leaving: list[Generation] = []
        self._wanted = False  # whether to reload again as soon as that is possible
        self._asked: list[Answer] = []  # who waits for the reload that is wanted
        self._waiting: list[Answer] = []  # who waits for the one that goes on
        self.last_loaded: Loaded | None = None  # what the modules held last, served or not
        self._outdated = False  # whether it was told that spawned workers fail, maybe for a change

    @property
    def present(self) -> list[Generation]:
        """The generations that have workers or will have: the one that serves first."""
        coming = [] if self._coming is None else [self._coming]
        return [self.current, *coming, *self._leaving]

    @property
    def next_due(self) -> float:
        """When `tend` has something to do without any event before, monotonic seconds."""
        return min(each.next_due for one in self.present for each in one.workforces)

    @property
    def have_stop_hooks(self) -> bool:
        """Whether workers may take long to end."""
        return any(one.loaded is not None and one.loaded.stop_hooks for one in self.present)

    def tend(self) -> None:
        """Start and end what is to be started and ended now, and go on with a reload."""
        for one in self.present:
            for workforce in one.workforces:
                workforce.can_start = self.bound and one.stands
                workforce.tend()
        if self._coming is None and self._wanted and self.bound:
            self._begin()
        coming = self._coming
        if coming is not None and coming.loaded is not None:
            if coming.is_manned:
                self._switch(coming, coming.loaded)
            elif coming.hopeless:
                self._fail(coming.last_failure)
        for leaving in list(self._leaving):
            if not leaving.is_forking:
                leaving.template.close()
            if leaving.is_empty:
                leaving.template.close()
                self._leaving.remove(leaving)

    def close(self) -> None:
        """Have all templates end."""
        for one in self.present:
            one.template.close()

    # --- the broker -----------------------------------------------------------------------------

    def broker_bound(self) -> None:
        """Note that the broker of this epoch is bound."""
        self.bound = True
        if self.current.loaded is not None:
            self.current.serve()

    def broker_ended(self) -> None:
        """Kill and reap all workers, whose epoch has ended. A reload begins anew."""
        self.bound = False
        for one in self.present:
            for workforce in one.workforces:
                workforce.end_epoch()
        if self._coming is not None:
            self._wanted = True
            self._waiting.clear()  # they are lost with their broker
            self._drop_coming()
        self._asked.clear()

    def ready(self, worker_id: int) -> None:
        """Note that a worker takes requests, or could."""
        for workforce in self._of(worker_id):
            workforce.ready(worker_id)
            if workforce is self.current.workforce:
                self._outdated = False

    def served_requests(self, worker_id: int, requests: int) -> None:
        """Note how many requests a worker was given."""
        for workforce in self._of(worker_id):
            workforce.served(worker_id, requests)

    def kill(self, worker_id: int, reason: str) -> None:
        """End a worker that does not do what it should."""
        for workforce in self._of(worker_id):
            workforce.kill(worker_id, reason)

    def scale(self, size: int) -> None:
        """Have so many workers from now on."""
        self.size = size
        self.current.workforce.scale(size)
        if self._coming is not None:
            self._coming.workforce.scale(size)

    # --- reloads --------------------------------------------------------------------------------

    def reload(self, answer: Answer | None = None) -> None:
        """Have the modules imported anew, from files as they are after this call.

        Args:
            answer: Called with what became of it, unless the broker ends before.
        """
        self._wanted = True
        if answer is not None:
            self._asked.append(answer)

    def _begin(self) -> None:
        self._wanted = False
        self._waiting, self._asked = self._asked, []
        self._coming = self._make(self.current.number + 1)
        due = monotonic() + self._config.start_timeout_s
        self._watcher.at(_TIMER, due, self._on_slow)
        self._coming.start()

    def _on_slow(self) -> None:
        if self._coming is not None and self._coming.loaded is None:
            limit_s = self._config.start_timeout_s
            self._fail(f"importing {self._modules} took more than {limit_s:.3g} s")

    def _switch(self, coming: Generation, loaded: Loaded) -> None:
        """Serve the generation that was coming; that before it leaves."""
        before = self.current
        assert before.loaded is not None
        self._watcher.cancel(_TIMER)
        self._coming = None
        self.current = coming
        coming.serve()
        for workforce in before.workforces:
            workforce.retire_all()
        self._leaving.append(before)
        self._outdated = False
        names = _names(loaded.table)
        old = _names(before.loaded.table)
        report = Reloaded(
            generation=coming.number,
            nodes=len(names),
            added=tuple(sorted(names - old)),
            removed=tuple(sorted(old - names)),
        )
        _log.info("generation %d serves: %d nodes", report.generation, report.nodes)
        self._on_reloaded(PoolReloaded(loaded.table, loaded.failures, loaded.unsafe))
        self._answer(report)

    def _fail(self, reason: str) -> None:
        """Give up the generation that was coming; the one that serves goes on."""
        message = f"{self._modules} can't be reloaded, what was served before still is: {reason}"
        _log.error("%s", message)
        self._drop_coming()
        loaded = self.current.loaded
        assert loaded is not None
        self._on_reloaded(PoolReloaded(loaded.table, loaded.failures, loaded.unsafe, error=reason))
        self._answer(OrderError("NODE_ERROR", message, "executed"))
        if not self.current.stands:  # its template has found what can't be served: another looks
            self.current.template.kill()

    def _drop_coming(self) -> None:
        assert self._coming is not None
        self._watcher.cancel(_TIMER)
        self._coming.end()
        self._coming = None

    def _answer(self, result: Reloaded | OrderError) -> None:
        waiting, self._waiting = self._waiting, []
        for answer in waiting:
            answer(result)

    # --- what generations tell ------------------------------------------------------------------

    def on_loaded(self, generation: Generation, loaded: Loaded) -> None:
        """Take in what a template has found."""
        self.last_loaded = loaded
        if generation is self._coming:
            self._on_coming_loaded(generation, loaded)
            return
        before = generation.loaded
        if generation is not self.current:
            return
        if not has_nodes(loaded):
            if before is None:
                generation.loaded = loaded
                self._give_up(f"no node can be served from {self._modules}")
                return
            _log.error("no node can be served from %s any more: importing again", self._modules)
            generation.template.kill()  # which is started again; running workers serve on
        elif before is None:
            generation.stand(loaded)
            if self.bound:
                generation.serve()
        elif before.table == loaded.table:
            generation.stand(loaded)
        else:
            _log.error("the nodes of %s have changed: reloading", self._modules)
            self.reload()

    def on_template_exit(self, generation: Generation, cause: str) -> None:
        """Start a template again, or give up what can't be imported."""
        if generation is self._coming:
            self._fail(f"importing {self._modules} ended with {cause}")
            return
        if generation is not self.current:  # what it still had to fork was given up
            return
        _log.error("the template ended with %s; running workers are not affected", cause)
        generation.template.start_again()
        if generation.loaded is None:  # what killed it, most likely, is what it was importing
            self._give_up(f"importing {self._modules} ended with {cause}")

    def on_template_failure(self, generation: Generation, reason: str) -> None:
        """Give up where a template can't even be started."""
        if generation is self._coming:
            self._fail(f"the template can't be started: {reason}")
        elif generation.loaded is None and generation.template.exhausted:
            self._give_up(f"the template can't be started: {reason}")

    def on_stillborn(self, generation: Generation) -> None:
        """See to it that spawned workers, which import modules anew, can be of the served nodes.

        When modules change on disk what they start with is not what is served, and the broker has
        them killed. As long as others run these serve on; when none is left nothing is lost by
        serving what the modules hold now.
        """
        loaded, workforce = generation.loaded, generation.workforce
        if not (generation is self.current and self.served and loaded and loaded.unsafe):
            return
        if workforce.ready_count:
            if not self._outdated:
                self._outdated = True
                _log.error(
                    "%s; if %s changed on disk, reload to serve what is there now: "
                    "%d workers serve on, others are tried again",
                    workforce.last_failure,
                    self._modules,
                    workforce.ready_count,
                )
        elif self._coming is None and not self._wanted:
            _log.error("%s: importing %s again", workforce.last_failure, self._modules)
            self.reload()

    def _on_coming_loaded(self, coming: Generation, loaded: Loaded) -> None:
        current = self.current.loaded
        assert current is not None
        known = {failure.module for failure in current.failures}
        worse = [failure for failure in loaded.failures if failure.module not in known]
        if worse:
            self._fail("\n".join(f"{failure.module}: {failure.reason}" for failure in worse))
        elif not has_nodes(loaded):
            self._fail("there are no nodes")
        else:
            coming.stand(loaded)
            coming.announce()

    def _make(self, number: int) -> Generation:
        return Generation(
            number,
            self._config,
            self._watcher,
            broker=self._broker,
            ids=self._ids,
            size=self.size,
            owner=self,
        )

    def _of(self, worker_id: int) -> Iterator[Workforce]:
        return (each for one in self.present for each in one.workforces if worker_id in each)


def _names(table: NodeTable) -> set[str]:
    """Return the names of users' nodes."""
    return {node.name for node in table.nodes if not node.name.startswith(BUILTIN_PREFIX)}
