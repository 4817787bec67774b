"""``pronghorn validate`` and ``pronghorn graph``: look at definitions of workflows. Ask no broker.

Mirror: tests/client/cli/test_definitions.py.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec

from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.worker.flow.builtin import BUILTIN
from pronghorn.worker.flow.document import DefinitionError
from pronghorn.worker.flow.drawing import FORMS, as_json, drawing_of
from pronghorn.worker.flow.plan import NOOP
from pronghorn.worker.flow.rendering import WAIT
from pronghorn.worker.flow.validation import validate
from pronghorn.worker.loader import load

from .arguments import read_file
from .output import write
from .status import Status


def validate_files(files: Sequence[str], modules: Sequence[str], *, as_json: bool) -> None:
    """Print all that is wrong with definitions: ``FILE:LINE:COLUMN: FIELD: MESSAGE``.

    Args:
        files: YAML or JSON.
        modules: Modules whose nodes are all there are, beside the workflows themselves; none if any
            action may be right.
        as_json: Print an array of objects instead.

    Raises:
        InvalidArgumentError: A file can't be read or a module can't be loaded.
        SystemExit: Something is wrong.
    """
    texts = {file: read_file(file) for file in files}
    actions = _actions(modules, files) if modules else None
    wrong: list[dict[str, object]] = []
    for file, text in texts.items():
        try:
            workflow = validate(text, actions=actions)
        except DefinitionError as error:
            wrong += [{"file": file, **msgspec.to_builtins(each)} for each in error.problems]
            if not as_json:
                write("".join(f"{file}:{problem}\n" for problem in error.problems))
        else:
            if not as_json:
                write(f"{file}: {len(workflow.tasks)} tasks, nothing is wrong\n")
    if as_json:
        write(msgspec.json.encode(wrong) + b"\n")
    if wrong:
        raise SystemExit(Status.NODE_ERROR)


def draw_file(file: str, form: str, *, as_data: bool) -> None:
    """Draw a definition to standard output.

    Raises:
        InvalidArgumentError: It can't be read, or is no workflow.
    """
    try:
        drawing = drawing_of(validate(read_file(file)))
    except DefinitionError as error:
        raise InvalidArgumentError(f"{file} is no workflow:\n{error}") from error
    if as_data:
        write(msgspec.json.encode(as_json(drawing)) + b"\n")
    else:
        write(FORMS[form](drawing))


def _actions(modules: Sequence[str], files: Sequence[str]) -> Collection[str]:
    loaded = load(modules)
    if loaded.failures:
        first = loaded.failures[0]
        raise InvalidArgumentError(f"{first.subject} can't be loaded: {first.message}")
    names = loaded.table().node_table.names()
    return {*names, *BUILTIN, NOOP, WAIT, *(Path(file).stem for file in files)}
