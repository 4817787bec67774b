"""Has nodes give the items of tasks of one run, whatever becomes of them. An IO shell.

Of a recorded run one whose worker is lost begins again; what it had given before is left out.

Mirror: tests/worker/flow/test_giving.py.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from pronghorn.broker.wire.errors import InvalidArgumentError, PronghornError

from ..dispatch import Entry
from .beside import Beside
from .calls import Called, failed, failed_by
from .events import Event, ItemsGiven, PullItems
from .feeding import Demand, from_here, from_workers, items_of
from .plan import Plan


class Giving:
    """The nodes that give items in one run.

    Args:
        beside: Calls them.
        tell: Takes what they give.
    """

    def __init__(self, beside: Beside, tell: Callable[[Event], None]) -> None:
        self._beside = beside
        self._tell = tell
        # Execution -> what may be given to it, from the first time that it asks for items on
        self._demands: dict[int, Demand] = {}

    def end(self) -> None:
        """Let go of the run once it has ended."""
        self._tell = tell_nobody

    def ask(self, command: PullItems) -> bool:
        """Ask for more items; False if nothing gives any yet: then `give` has to."""
        demand = self._demands.get(command.execution)
        if demand is not None:
            demand.ask(command.count)
            return True
        self._demands[command.execution] = Demand(command.count)
        return False

    async def give(
        self, command: PullItems, found: Entry | Plan | Called, *, is_once: bool, leaves: bool
    ) -> None:
        """Have a node give items until it has ended.

        Args:
            command: What for.
            found: The node, or why there is none.
            is_once: Whether it must not run twice in a recorded run.
            leaves: Whether it runs in the workers.
        """
        execution, given, tries = command.execution, command.skip, 1
        demand = self._demands[execution]
        while True:
            before = 0  # of what it gives now
            try:
                if isinstance(found, Called):
                    raise _EndedError(found)
                if is_once:
                    raise InvalidArgumentError(
                        f"{command.action} must not run twice: "
                        "it can't give items of a recorded run"
                    )
                async with aclosing(
                    self._batches(found, command, demand, leaves=leaves)
                ) as batches:
                    async for batch in batches:
                        new = batch[max(0, given - before) :]
                        before += len(batch)
                        if new:
                            given += len(new)
                            demand.take(len(new))
                            self._tell(ItemsGiven(execution, new, is_last=False))
                self._tell(ItemsGiven(execution, [], is_last=True))
                return
            except _EndedError as ended:
                called = ended.called
            except PronghornError as error:
                called = failed_by(error)
            except Exception as error:  # users' code raises what it likes
                assert isinstance(found, Entry), "nothing else runs users' code here"
                called = failed(found, error)
            if not await self._beside.wait_again(called.status, tries):
                break
            tries += 1
        status, result, message = called
        self._tell(
            ItemsGiven(execution, [], is_last=True, status=status, result=result, message=message)
        )

    async def _batches(
        self, found: Entry | Plan, command: PullItems, demand: Demand, *, leaves: bool
    ) -> AsyncGenerator[list[Any], None]:
        """Give items as they come, as many as are asked for.

        Raises:
            Exception: What the node raises, or an error of ours.
        """
        beside = self._beside
        is_nested = leaves and isinstance(found, Entry) and beside.is_nested(found)
        if isinstance(found, Plan) or not found.streams or is_nested:
            place = command.execution, None
            called = await beside.call(place, command.task, found, command.input, leaves=leaves)
            if called.status != "succeeded":
                raise _EndedError(called)
            yield items_of(command.action, called.result)
            return
        if leaves:
            assert beside.pool is not None, "nodes leave only where there are workers"
            batches = from_workers(
                beside.pool, found, command.input, demand, beside.sharing, beside.extras
            )
        else:
            context = beside.context_of(found, command.execution)
            batches = from_here(found, command.input, context, demand, beside.sharing)
        async with aclosing(batches):
            async for batch in batches:
                yield batch


class _EndedError(Exception):
    """A node that was to give items has ended otherwise."""

    def __init__(self, called: Called) -> None:
        super().__init__(called.message)
        self.called = called


def tell_nobody(event: Event) -> None:
    """Take what a run is told that has ended."""
