"""Who may import what, read off the syntax trees: layers, pure modules, users of ZeroMQ.

Imports that only a type checker sees count too. A module that starts another by its name (``python
-m pronghorn...``) does not import it.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("broker", "worker", "client", "bench")

# layer -> the layers it may import besides itself. A module is of the first layer that matches.
LAYERS: dict[str, tuple[str, ...]] = {
    "broker.wire": (),
    "broker.journal": ("broker.wire",),
    "broker": ("broker.wire", "broker.journal"),
    "bench.children": (),
    "bench.environment": (),
    "bench.load": ("bench.children", "bench.environment", "broker.wire", "client"),
    "client.cli": (
        "bench.load",
        "broker",
        "broker.wire",
        "broker.journal",
        "client",
        "client.conformance",
        "worker",
    ),
    "client.conformance": ("broker", "broker.wire", "worker"),
    "client": ("broker.wire",),
    "worker": ("broker.wire", "client"),
    "bench": (
        "bench.children",
        "bench.environment",
        "bench.load",
        "broker",
        "broker.wire",
        "broker.journal",
        "client",
        "client.cli",
        "worker",
    ),
}
# What a module may import all the same.
ACROSS_LAYERS = {
    # The in-process pool runs nodes, so it lives with the workers. Type checkers are told its name;
    # at run time it is imported when somebody asks for it.
    "client/__init__.py": {"pronghorn.worker.local.LocalPool"},
}

# Modules of the shared protocol that act: they are shared because both of their ends are ours.
WIRE_SHELLS = (
    "broker/wire/channel.py",  # sockets that carry file descriptors between our processes
    "broker/wire/keyfiles.py",  # files of keys, whose owner and mode have to be right
    "broker/wire/locking.py",  # lock files that tell who holds them
    "broker/wire/linux.py",  # calls of the kernel's for which Python has no name
    "broker/wire/stream.py",  # the writing half of a stream
    "broker/wire/logs.py",  # where all our processes log to
    "broker/wire/places.py",  # where a broker's files are, from environment and file system
)

# Pure modules decide and do nothing: what happens, and when, comes in as arguments.
PURE = (
    "bench/load/compare.py",
    "bench/load/histogram.py",
    "bench/load/knee.py",
    "bench/load/mix.py",
    "bench/load/plan.py",
    "bench/load/record.py",
    "bench/load/replay.py",
    "bench/load/scenario.py",
    "bench/load/tally.py",
    "bench/load/verdict.py",
    "broker/audit.py",
    "broker/clients.py",
    "broker/connections.py",
    "broker/core.py",
    "broker/catalog.py",
    "broker/crew.py",
    "broker/dealings.py",
    "broker/deadlines.py",
    "broker/durable.py",
    "broker/egress.py",
    "broker/events.py",
    "broker/ingress.py",
    "broker/journal/backlog.py",
    "broker/journal/batch.py",
    "broker/journal/errors.py",
    "broker/journal/fold.py",
    "broker/journal/messages.py",
    "broker/journal/record.py",
    "broker/journal/rows.py",
    "broker/lifecycle.py",
    "broker/nested.py",
    "broker/orders.py",
    "broker/parts.py",
    "broker/placement.py",
    "broker/quarantine.py",
    "broker/recorder.py",
    "broker/recycling.py",
    "broker/requests.py",
    "broker/rights.py",
    "broker/routes.py",
    "broker/queue.py",
    "broker/gates.py",
    "broker/restart.py",
    "broker/retries.py",
    "broker/sessions.py",
    "broker/statistics.py",
    "broker/tracing.py",
    "broker/verdicts.py",
    "broker/window.py",
    "broker/workers.py",
    "broker/zap.py",
    "broker/wire/*.py",
    "client/bundling.py",
    "client/completions.py",
    "client/conformance/findings.py",
    "client/conformance/walk.py",
    "client/core.py",
    "client/inbox.py",
    "client/mapping.py",
    "client/stopwatch.py",
    "client/waiting.py",
    "worker/core.py",
    "worker/dispatch.py",
    "worker/referred.py",
    "worker/flow/comparison.py",
    "worker/flow/conductor.py",
    "worker/flow/context.py",
    "worker/flow/document.py",
    "worker/flow/drawing.py",
    "worker/flow/events.py",
    "worker/flow/expressions.py",
    "worker/flow/feed.py",
    "worker/flow/graph.py",
    "worker/flow/items.py",
    "worker/flow/limits.py",
    "worker/flow/measure.py",
    "worker/flow/model.py",
    "worker/flow/nodegraph.py",
    "worker/flow/paths.py",
    "worker/flow/placing.py",
    "worker/flow/placeholders.py",
    "worker/flow/plan.py",
    "worker/flow/rehearsal.py",
    "worker/flow/rendering.py",
    "worker/flow/resuming.py",
    "worker/flow/run.py",
    "worker/flow/sandbox.py",
    "worker/flow/scope.py",
    "worker/flow/snapshot.py",
    "worker/flow/state.py",
    "worker/flow/tasks.py",
    "worker/flow/transitions.py",
    "worker/flow/validation.py",
    "worker/signature.py",
)

# What only workflows need: everything else starts without it.
FLOW_LIBRARIES = frozenset({"jinja2", "yaml", "markupsafe"})
IMPURE_IMPORTS = frozenset(
    {"asyncio", "lmdb", "logging", "os", "socket", "threading", "time", "uvloop", "zmq"}
)
EXCEPTIONS = {
    # An uncontended lock is the only fence that Python has; nothing ever waits for it.
    "broker/wire/slots.py": {"threading.Lock"},
    # Pure modules only name the class; what acts in it is for the nodes that are handed one.
    "worker/context.py": {"logging", "logging.Logger", "logging.LoggerAdapter", "time.monotonic"},
}

# The IO shells that hold a ZeroMQ socket. The benchmarks drive bare sockets as well.
ZMQ_SHELLS = (
    "broker/frontend.py",
    "broker/secure.py",
    "client/cli/keys.py",  # makes pairs of keys
    "client/conformance/peers.py",
    "client/conformance/walking.py",
    "client/keys.py",  # finds the public half of a secret
    "client/sockets.py",
    "client/zmqsocket.py",
)


# Served by Pronghorn as files, which have no package that an import could be relative to.
SERVED_FILES = ("bench/nodes.py", "client/conformance/nodes.py")


class Import(NamedTuple):
    """One imported name: `pronghorn.broker.core.Core` where it says ``from .core import Core``."""

    name: str
    relative: bool
    line: int


def imports(path: Path) -> Iterator[Import]:
    package = ["pronghorn", *path.relative_to(ROOT).parent.parts]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, False, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield Import(f"{module}.{alias.name}", node.level > 0, node.lineno)


def modules() -> list[str]:
    return sorted(
        path.relative_to(ROOT).as_posix()
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
    )


def expand(patterns: tuple[str, ...]) -> list[str]:
    """Give the files that a list of names stands for; a name of no file stands for itself."""
    return [
        file
        for pattern in patterns
        for file in (
            sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern)) or [pattern]
        )
    ]


def layer_of(module: str) -> str:
    for layer in LAYERS:
        if f"{module}.".startswith(f"pronghorn.{layer}."):
            return layer
    raise AssertionError(f"{module} is of no layer")


def file_of(name: str) -> str | None:
    """Find the file of an imported module or of the module that an imported name is from."""
    parts = name.split(".")[1:]
    while parts:
        path = ROOT.joinpath(*parts)
        if path.with_suffix(".py").is_file():
            return path.with_suffix(".py").relative_to(ROOT).as_posix()
        if (path / "__init__.py").is_file():
            return (path / "__init__.py").relative_to(ROOT).as_posix()
        parts.pop()
    return None


def is_ours(name: str) -> bool:
    return name.split(".")[0] == "pronghorn"


def module_name(file: str) -> str:
    return "pronghorn." + file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@pytest.mark.parametrize("file", modules())
def test_module_imports_only_the_layers_below_it(file: str) -> None:
    layer = layer_of(module_name(file))
    allowed = {layer, *LAYERS[layer]}
    exceptions = ACROSS_LAYERS.get(file, set())
    assert [
        f"{file}:{each.line} imports {each.name}"
        for each in imports(ROOT / file)
        if is_ours(each.name) and layer_of(each.name) not in allowed and each.name not in exceptions
    ] == []


@pytest.mark.parametrize("file", [file for file in modules() if file not in SERVED_FILES])
def test_imports_are_relative_within_a_package_and_absolute_across(file: str) -> None:
    own = f"pronghorn.{file.split('/')[0]}"
    assert [
        f"{file}:{each.line} imports {each.name}"
        for each in imports(ROOT / file)
        if each.relative != f"{each.name}.".startswith(f"{own}.")
    ] == []


@pytest.mark.parametrize("file", expand(("broker/wire/*.py",)))
def test_wire_imports_only_the_standard_library_and_msgspec(file: str) -> None:
    assert [
        f"{file}:{each.line} imports {each.name}"
        for each in imports(ROOT / file)
        if each.name.split(".")[0] not in {*sys.stdlib_module_names, "msgspec", "pronghorn"}
    ] == []


@pytest.mark.parametrize("file", [file for file in expand(PURE) if file not in WIRE_SHELLS])
def test_pure_module_reaches_nothing_that_acts(file: str) -> None:
    seen = {file}
    pending = [file]  # the module and the modules of ours that it imports, directly or not
    found: list[str] = []
    while pending:
        reached = pending.pop()
        exceptions = EXCEPTIONS.get(reached, set())
        for each in imports(ROOT / reached):
            if each.name.split(".")[0] in IMPURE_IMPORTS and each.name not in exceptions:
                found.append(f"{reached}:{each.line} imports {each.name}")
            target = file_of(each.name) if is_ours(each.name) else None
            if target is not None and target not in seen:
                seen.add(target)
                pending.append(target)
    assert found == []


@pytest.mark.parametrize("file", WIRE_SHELLS)
def test_shells_in_the_wire_are_shells(file: str) -> None:
    roots = {each.name.split(".")[0] for each in imports(ROOT / file)}
    assert roots & IMPURE_IMPORTS


@pytest.mark.parametrize("file", sorted(EXCEPTIONS | ACROSS_LAYERS))
def test_exceptions_are_needed(file: str) -> None:
    exceptions = EXCEPTIONS.get(file, set()) | ACROSS_LAYERS.get(file, set())
    assert exceptions <= {each.name for each in imports(ROOT / file)}


def test_zmq_is_imported_in_the_named_shells_only() -> None:
    users = {
        file
        for file in modules()
        if not file.startswith("bench/")
        and any(each.name.split(".")[0] == "zmq" for each in imports(ROOT / file))
    }
    assert sorted(users) == sorted(ZMQ_SHELLS)


def test_only_the_workflow_engine_imports_its_libraries() -> None:
    users = {
        file
        for file in modules()
        if any(each.name.split(".")[0] in FLOW_LIBRARIES for each in imports(ROOT / file))
    }
    assert users
    assert {str(Path(file).parent) for file in users} == {"worker/flow"}


def test_serving_nodes_imports_no_workflow_engine() -> None:
    program = (
        "import sys, pronghorn.worker.process, pronghorn.worker.local, pronghorn.client, "
        "pronghorn.broker.program; print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not FLOW_LIBRARIES & set(loaded)
    assert not [name for name in loaded if name.startswith("pronghorn.worker.flow")]


def test_lmdb_is_imported_by_the_store_only() -> None:
    users = {
        file
        for file in modules()
        if not file.startswith("bench/")
        and any(each.name.split(".")[0] == "lmdb" for each in imports(ROOT / file))
    }
    assert users == {"broker/journal/store.py"}
