"""What runs of workflows share in one process: nodes, plans, what is known of run times.

Tiny nodes are called right here, through the dispatch table; where there are workers all others run
there, over the broker (`placing`, `pooling`). Without any, all run here: ``def`` nodes where their
turn comes, ``async def`` nodes and those with ``thread=True`` side by side. A workflow is called
like a node. An IO shell; `live` runs one run.

    runtime = FlowRuntime(DispatchTable(load(["nodes.py"]).entries))
    runtime.run(validate(Path("deploy.yaml").read_text()), {"app": "shop"}).output

Mirror: tests/worker/flow/test_runtime.py.
"""

import asyncio
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, Final
from weakref import WeakKeyDictionary

from pronghorn.broker.wire.errors import InvalidArgumentError, NotFoundError
from pronghorn.broker.wire.flows import FlowEvent, RunReport
from pronghorn.broker.wire.values import encode_inline

from ..context import Caller, Context
from ..dispatch import DispatchTable, Entry
from ..shared import SharedFolder
from .builtin import BUILTIN
from .document import DefinitionError
from .events import Start
from .feed import Feed, Level, Watch
from .live import LiveRun
from .model import Workflow
from .placing import Placing
from .plan import PLANS_MAX, Plan, PlanCache
from .pooling import WorkerPool
from .recording import AnyRecording
from .sharing import Sharing
from .validation import validate

Watcher = Callable[[FlowEvent], None]


_LARGE_BYTES: Final = 16 << 10
"""Of a definition, encoded; checked and compiled at some 1 MB/s."""


class FlowRuntime:
    """The nodes and workflows of this process.

    Attributes:
        placing: What is known of nodes.
        shared: Folder for large values that go to the workers by reference, if there is one.
        caller: Makes the calls of nodes that call others.

    Args:
        table: The nodes, and workflows that are served.
        workflows: Further ones that can be called like nodes, by name; a node goes before a
            workflow.
        caller: See above.
        endpoint: Of the broker whose workers run what does not run here; by default all runs here.
        shared: The folder's path; "" if there is none.
        loop: On any other loop than this, if it is given, all runs here too.
    """

    def __init__(
        self,
        table: DispatchTable,
        workflows: Mapping[str, Workflow] | None = None,
        *,
        caller: Caller | None = None,
        endpoint: str = "",
        shared: str = "",
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.caller = caller
        self._loop = loop
        self.placing = Placing()
        self.shared = SharedFolder(shared) if shared else None
        self._table = table
        self._endpoint = endpoint
        self._plans = PlanCache()
        self._workflows = {name: self.plan_of(each) for name, each in (workflows or {}).items()}
        # Action -> what it is; filled as they are used. Names come from definitions, so that it is
        # bounded by what the table and the workflows hold.
        self._found: dict[str, Entry | Plan] = {}
        # Loop -> the workers as it sees them. Mostly there is one loop.
        self._pools: WeakKeyDictionary[asyncio.AbstractEventLoop, WorkerPool] = WeakKeyDictionary()
        # Digest of a definition -> what it is, those sent first forgotten first.
        self._checked: dict[bytes, Workflow] = {}

    def run(
        self,
        workflow: Workflow,
        inputs: Mapping[str, Any] | None = None,
        *,
        on_event: Watcher | None = None,
        level: Level = "full",
    ) -> RunReport:
        """Run a workflow to its end, on an event loop of its own."""

        async def to_its_end() -> RunReport:
            try:
                return await self.start(workflow, inputs, on_event=on_event, level=level).run()
            finally:
                await self.close()

        return asyncio.run(to_its_end())

    def start(
        self,
        workflow: Workflow | Plan,
        inputs: Mapping[str, Any] | None = None,
        *,
        context: Mapping[str, Any] | None = None,
        on_event: Watcher | None = None,
        level: Level = "full",
        within: Context | None = None,
        depth: int = 0,
        run_id: str = "",
        recording: AnyRecording | None = None,
        sharing: Sharing | None = None,
    ) -> LiveRun:
        """Make a run, which begins when its `LiveRun.run` is awaited.

        Args:
            workflow: Compiled if it is not kept.
            inputs: Its input; what it does not declare is ignored.
            context: Variables beside the input.
            on_event: Called for each event, in order.
            level: Which events.
            within: The call that the run is made for, by which its nodes make their calls.
            depth: Workflows that this one lies within.
            run_id: Names the run, for who controls it.
            recording: Of the run, if it is recorded: it goes on where it was.
            sharing: Of the run that it lies within, if it lies within one.
        """
        begin = Start(dict(inputs or {}), dict(context or {}))
        plan = workflow if isinstance(workflow, Plan) else self.plan_of(workflow)
        watch = Watch(Feed(level, run_id or None))
        return LiveRun(
            self,
            plan,
            begin,
            watch,
            on_event,
            within=within,
            depth=depth,
            run_id=run_id,
            recording=recording,
            sharing=sharing,
        )

    def lookup(self, action: str) -> Entry | Plan:
        """Find what an action is.

        Raises:
            NotFoundError: There is neither a node nor a workflow of that name.
        """
        found = self._found.get(action)
        if found is None:
            found = self._found[action] = self._lookup(action)
        return found

    def plan_of(self, workflow: Workflow) -> Plan:
        """Compile a workflow, if it is not kept."""
        return self._plans.plan_of(workflow)

    async def plan_of_definition(self, definition: str | dict[str, Any]) -> Plan:
        """Check and compile a definition, if it is not kept.

        A large one takes seconds: then this is done in a thread, beside the runs that go on.

        Raises:
            InvalidArgumentError: It is wrong; tells all that is.
        """
        encoded = encode_inline(definition)
        key = sha256(encoded).digest()
        known = self._checked.get(key)
        if known is not None:
            return self.plan_of(known)
        if len(encoded) < _LARGE_BYTES:
            workflow, plan = _compiled(definition)
        else:
            workflow, plan = await asyncio.to_thread(_compiled, definition)
        if len(self._checked) >= PLANS_MAX:
            del self._checked[next(iter(self._checked))]
        self._checked[key] = workflow
        self._plans.keep(workflow, plan)
        return plan

    def pool(self) -> WorkerPool | None:
        """Give the workers as the running loop sees them, None if there are none."""
        if not self._endpoint:
            return None
        loop = asyncio.get_running_loop()
        if self._loop is not None and loop is not self._loop:
            return None
        pool = self._pools.get(loop)
        if pool is None:
            pool = self._pools[loop] = WorkerPool(self._endpoint)
        return pool

    async def close(self) -> None:
        """Close what the running loop has open."""
        pool = self._pools.pop(asyncio.get_running_loop(), None)
        if pool is not None:
            await pool.close()

    def _lookup(self, action: str) -> Entry | Plan:
        if action in BUILTIN:
            return BUILTIN[action]
        try:
            entry = self._table.lookup(action)
        except NotFoundError:
            if action in self._workflows:
                return self._workflows[action]
            raise
        return entry if entry.workflow is None else self.plan_of(entry.workflow)


def _compiled(definition: str | dict[str, Any]) -> tuple[Workflow, Plan]:
    try:
        workflow = validate(definition)
    except DefinitionError as error:
        lines = "\n".join(map(str, error.problems))
        raise InvalidArgumentError(f"it is no workflow:\n{lines}") from error
    return workflow, Plan(workflow)
