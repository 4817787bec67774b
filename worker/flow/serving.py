"""Makes a node of a workflow: what a dispatch table holds of a served definition.

Its parameters are the workflow's input, by name or by position in that order; whatever a caller
leaves out is what the definition says. It is an ``async def`` to all others, and only run hosts run
it where there are some.

Mirror: tests/worker/flow/test_serving.py.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from pronghorn.broker.wire.table import HOST_LABEL

from ..conducting import Conducting
from ..context import Context
from ..dispatch import Entry
from ..signature import EMPTY, Parameter, Signature
from .model import Workflow, content_hash
from .validation import validate

_DEFAULT_TEXT_MAX: Final = 40


def read_workflow(path: Path) -> tuple[str, Workflow]:
    """Read a definition; gives its name, that of the file if it has none itself.

    Raises:
        DefinitionError: It is wrong.
        OSError: It can't be read.
    """
    workflow = validate(path.read_bytes())
    return workflow.name or path.stem, workflow


def entry_of(index: int, name: str, workflow: Workflow, conducting: Conducting) -> Entry:
    """Make the node of a workflow."""
    names = [variable for variable, _ in workflow.input]

    async def run(context: Context, values: Sequence[Any]) -> Any:
        given = zip(names, values, strict=True)
        inputs = {name: value for name, value in given if value is not msgspec.UNSET}
        return await conducting.call(workflow, inputs, context)

    run.__doc__ = workflow.description
    parameters = tuple(
        Parameter(
            name=variable,
            field=f"p{number}",
            annotation=Any,
            default=msgspec.UNSET,
            copied=False,
            by_position=True,
        )
        for number, variable in enumerate(names)
    )
    values = "".join(f"p.{parameter.field}, " for parameter in parameters)
    shown = ", ".join(f"{variable}={_shown(default)}" for variable, default in workflow.input)
    signature = Signature(
        name=name,
        kind="async",
        function=run,
        parameters=parameters,
        arguments=f"ctx, ({values})",
        takes_context=True,
        awaits_wrapped=False,
        result=EMPTY,
        text=f"{name}({shown})",
        identity=f"{name} workflow {content_hash(workflow)}",
        labels=(HOST_LABEL,),
    )
    entry = Entry(index, signature)
    entry.workflow = workflow
    entry.is_ours = True
    return entry


def _shown(default: Any) -> str:
    text = repr(default)
    return text if len(text) <= _DEFAULT_TEXT_MAX else f"{text[:_DEFAULT_TEXT_MAX]}..."
