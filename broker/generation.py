"""One generation: what the modules held when a template imported them; its workers. An IO shell.

Mirror: tests/fault/test_lifecycle.py, by real pools.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from time import monotonic
from typing import Protocol

from .program import Program
from .recycling import Recycling
from .watcher import Watcher
from .wire.control import (
    ControlMessage,
    ExpectTable,
    Loaded,
    PoolConfig,
    ServeTable,
    TemplateConfig,
    WorkerForked,
)
from .wire.places import endpoint_in
from .wire.table import BUILTIN_PREFIX, HOST_LABEL
from .workforce import Workforce

_log = logging.getLogger("pronghorn.broker.supervisor")

HOST_RETIRE_S = 86_400.0
"""What a run host gets to end its runs: they may wait for days, but code must not pile up."""


class Owner(Protocol):
    """What is told of the fate of a generation."""

    def on_loaded(self, generation: "Generation", loaded: Loaded) -> None:
        """Its template has imported the modules; says `stand` or `end`."""

    def on_template_exit(self, generation: "Generation", cause: str) -> None:
        """Its template has ended; says ``template.start_again`` or `end`."""

    def on_template_failure(self, generation: "Generation", reason: str) -> None:
        """Its template can't be started, and is tried again."""

    def on_stillborn(self, generation: "Generation") -> None:
        """One of its workers has ended before it was ready."""


class Generation:
    """A template and the workers that have its nodes."""

    def __init__(
        self,
        number: int,
        config: PoolConfig,
        watcher: Watcher,
        *,
        broker: Program,
        ids: Iterator[int],
        size: int,
        owner: Owner,
    ) -> None:
        """Set it up; nothing is started.

        Args:
            number: One more than that of the generation before.
            config: Of the tree.
            watcher: The loop that it lives in.
            broker: Told of the nodes and of each worker.
            ids: Of workers.
            size: How many workers there should be.
            owner: Told of what happens.
        """
        self.number = number
        self.loaded: Loaded | None = None  # what the modules hold; None until they were imported
        self._config = config
        self._broker = broker
        self._owner = owner
        self.template = Program(
            "pronghorn.worker.template",
            watcher,
            configure=lambda: (self._template_config(), ()),
            on_message=self._on_message,
            on_exit=self._on_exit,
            on_failure=lambda reason: owner.on_template_failure(self, reason),
            name=f"template {number}",
        )
        self.workforce = self._make_workforce(
            size,
            watcher,
            ids,
            labels=config.labels,
            recycling=Recycling(
                requests=config.recycle_requests,
                age_s=config.recycle_age_s,
                memory_bytes=config.recycle_memory,
            ),
            retire_s=config.retire_s,
        )
        # Run hosts beside the workers: a run may take long, so that none is recycled, and one that
        # makes way for another code ends its runs first.
        self.hosts = self._make_workforce(
            config.hosts,
            watcher,
            ids,
            labels={HOST_LABEL: config.hosts} if config.hosts else {},
            recycling=Recycling(),
            retire_s=max(config.retire_s, HOST_RETIRE_S),
        )
        self.workforces = (self.workforce, self.hosts)

    def _make_workforce(
        self,
        size: int,
        watcher: Watcher,
        ids: Iterator[int],
        *,
        labels: Mapping[str, int],
        recycling: Recycling,
        retire_s: float,
    ) -> Workforce:
        return Workforce(
            size,
            watcher,
            broker=self._broker,
            template=self.template,
            start_timeout_s=self._config.start_timeout_s,
            result_bytes=self._config.limits.result_bytes,
            on_stillborn=lambda: self._owner.on_stillborn(self),
            generation=self.number,
            ids=ids,
            labels=labels,
            recycling=recycling,
            retire_s=retire_s,
            shared=self._config.shared,
        )

    @property
    def stands(self) -> bool:
        """Whether workers can be started from its template."""
        return self.template.ready_at is not None

    @property
    def is_manned(self) -> bool:
        """Whether as many workers and run hosts are ready as can be had."""
        return all(one.stands for one in self.workforces)

    @property
    def hopeless(self) -> bool:
        """Whether no worker, or no run host, is ready, and starts have failed too often."""
        return any(one.hopeless for one in self.workforces)

    @property
    def last_failure(self) -> str:
        """Why workers were lost early or not started, for people."""
        return self.workforce.last_failure or self.hosts.last_failure

    @property
    def is_empty(self) -> bool:
        """Whether no worker is left."""
        return all(one.is_empty for one in self.workforces)

    @property
    def is_forking(self) -> bool:
        """Whether the template forks workers whose processes are not known yet."""
        return any(one.is_forking for one in self.workforces)

    def start(self) -> None:
        """Have the modules imported."""
        self.template.start()

    def stand(self, loaded: Loaded) -> None:
        """Take what was loaded for its nodes, by which workers are started from now on."""
        self.loaded = loaded
        self.template.ready_at = monotonic()
        start_timeout_s = self._config.start_timeout_s
        if loaded.unsafe:
            # Each imports what the template did, all of them maybe on one CPU.
            loading_s = self.template.ready_at - self.template.started_at
            start_timeout_s += loading_s * sum(one.size for one in self.workforces)
        spawn = self._template_config() if loaded.unsafe else None
        for workforce in self.workforces:
            workforce.prepare(spawn=spawn, start_timeout_s=start_timeout_s)
        for reason in loaded.unsafe:
            _log.warning("workers are spawned, which is slow, for they can't be forked: %s", reason)

    def announce(self) -> None:
        """Tell the broker that workers of these nodes are coming."""
        assert self.loaded is not None
        self._broker.send(ExpectTable(self.loaded.table, self.number))

    def serve(self) -> None:
        """Have the broker serve these nodes."""
        assert self.loaded is not None
        self._broker.send(ServeTable(self.loaded.table, self.number))

    def end(self) -> None:
        """End template and workers, of which none serves."""
        self.template.end()
        for workforce in self.workforces:
            workforce.abandon()

    def _template_config(self) -> TemplateConfig:
        return TemplateConfig(
            modules=self._config.modules,
            sys_path=self._config.sys_path,
            supervisor_pid=os.getpid(),
            result_bytes=self._config.limits.result_bytes,
            confinement=self._config.confinement,
            endpoint=endpoint_in(self._config.folder),
            shared=self._config.shared,
            log_level=self._config.log_level,
            log_format=self._config.log_format,
        )

    def _on_message(self, message: ControlMessage) -> None:
        match message:
            case Loaded():
                self._owner.on_loaded(self, message)
            case WorkerForked(worker_id, pid):
                workforce = self.hosts if self.hosts.awaits(worker_id) else self.workforce
                workforce.forked(worker_id, pid)
            case _:
                raise AssertionError(f"not for the supervisor: {message!r}")

    def _on_exit(self, cause: str) -> None:
        if any([one.template_ended() for one in self.workforces]):
            # It ended forking, as it does when the system allows no more processes: it is no good
            # start then, however long it has stood.
            self.template.ready_at = None
        self._owner.on_template_exit(self, cause)


def has_nodes(loaded: Loaded) -> bool:
    """Whether there is any node of users'."""
    return any(not node.name.startswith(BUILTIN_PREFIX) for node in loaded.table.nodes)
