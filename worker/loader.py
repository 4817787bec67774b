"""Imports users' modules and compiles the nodes found in them; one that fails harms no other.

What can be named, tried in this order:

- a definition of a workflow: a path that ends in ``.yaml``, ``.yml`` or ``.json``;
- a file: a path that ends in ``.py``, or any path with a slash in it;
- a folder with an ``__init__.py``: a package, with its submodules;
- an entry point of the group ``pronghorn.nodes``: a module, a package or one function;
- a module or package, by its dotted name.

A file is imported as a script would be: under its stem, with its folder first on ``sys.path``, so
that it finds the modules beside it. A stem that a module of the standard library has, or a module
that is loaded already, is refused; other installed modules are hidden by the file, as by a script.

A node belongs to the module that defines it: one that is merely imported there is not served twice.
A hook is run once, however many of the modules have it.

Mirror: tests/worker/test_loader.py.
"""

import re
import sys
from collections.abc import Callable, Collection, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, Final

import msgspec

from pronghorn.broker.wire.embedding import StopImport, import_of_nodes
from pronghorn.broker.wire.table import BUILTIN_PREFIX, WORKFLOW_SUFFIXES
from pronghorn.broker.wire.values import class_name

from .conducting import Conducting, builtin_calls
from .dispatch import DispatchTable, Entry
from .failures import (
    MESSAGE_BYTES_MAX,
    TRACEBACK_BYTES_MAX,
    bounded,
    format_traceback,
    message_of,
)
from .forking import fork_hazards
from .hooks import is_hook
from .lifecycle import Hook, Hooks
from .node import NodeDefinitionError, spec_of

ENTRY_POINT_GROUP: Final = "pronghorn.nodes"

_WORKFLOW_NAME: Final = re.compile(r"[^\W\d][\w-]*(\.[^\W\d][\w-]*)*")


class LoadFailure(msgspec.Struct, frozen=True):
    """Something that is not served, and why.

    Attributes:
        subject: A module as it was asked for, a submodule, or a node by its full name.
        message: Why.
        traceback: From the user's code on; empty where the message says it all.
    """

    subject: str
    message: str
    traceback: str = ""


class LoadedNodes(msgspec.Struct, frozen=True):
    """What came of loading.

    Attributes:
        entries: The nodes, in order of definition, as a `DispatchTable` takes them.
        hooks: The hooks of the modules, in the same order.
        failures: What is not served, in the order in which it failed.
        unsafe_to_fork: What imports have started that does not survive a fork, each with its
            module: ``module shop has started 1 thread (pool-0)``. Empty when workers may be forked.
        sources: Files of what was asked for, found or not, and of all that was imported from their
            folders.
        conducting: What the workflows among the nodes are made with.
    """

    entries: tuple[Entry, ...]
    hooks: Hooks
    failures: tuple[LoadFailure, ...]
    unsafe_to_fork: tuple[str, ...]
    sources: tuple[str, ...] = ()
    conducting: Conducting = msgspec.field(default_factory=Conducting)

    def table(self) -> DispatchTable:
        """Seal the nodes."""
        return DispatchTable(self.entries, builtin_calls(self.conducting))


class _NotLoadedError(Exception):
    """What was asked for can't be found or may not be loaded; the message is for the user."""


def load(specs: Sequence[str]) -> LoadedNodes:
    """Import modules in order, in this process, and compile their nodes.

    Whatever a module does at import is reported, `SystemExit` too; only `KeyboardInterrupt` goes
    through. What an import has put into ``sys.modules`` and ``sys.path`` stays.
    """
    loader = _Loader()
    with import_of_nodes():
        for spec in specs:
            loader.load(spec)
    return LoadedNodes(
        entries=tuple(loader.entries),
        hooks=Hooks(tuple(loader.start_hooks), tuple(loader.stop_hooks)),
        failures=tuple(loader.failures),
        unsafe_to_fork=tuple(loader.unsafe_to_fork),
        sources=_sources(loader.asked_for),
        conducting=loader.conducting,
    )


class _Loader:
    """What has been loaded so far."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.start_hooks: list[Hook] = []
        self.stop_hooks: list[Hook] = []
        self.failures: list[LoadFailure] = []
        self.unsafe_to_fork: list[str] = []
        self.asked_for: set[str] = set()  # files
        self.conducting = Conducting()
        self._functions: dict[str, Any] = {}  # full name -> function, whether served or refused
        self._hazards = fork_hazards()  # as of the last import

    def load(self, spec: str) -> None:
        path = Path(spec).expanduser()
        try:
            if spec.endswith(WORKFLOW_SUFFIXES):
                self._load_workflow(spec, path.resolve())
            elif spec.endswith(".py") or ("/" in spec and path.is_file()):
                self._load_file(spec, path.resolve())
            elif (path / "__init__.py").is_file():
                _prepend_to_path(path.resolve().parent)
                self._load_package(path.resolve().name)
            elif (entry_point := _entry_point(spec)) is not None:
                self._load_entry_point(spec, entry_point)
            else:
                self._load_package(spec)
        except _NotLoadedError as error:
            self.failures.append(LoadFailure(spec, str(error)))

    def _load_file(self, spec: str, path: Path) -> None:
        name = path.stem
        self.asked_for.add(str(path))
        _check_file(name, path)
        _prepend_to_path(path.parent)
        file_loader = SourceFileLoader(name, str(path))
        found = spec_from_file_location(name, path, loader=file_loader)
        self._serve_module(self._import(name, lambda: found, shown=spec))

    def _load_workflow(self, spec: str, path: Path) -> None:
        # The engine and its libraries are for who has workflows.
        from .flow.document import DefinitionError
        from .flow.serving import entry_of, read_workflow

        self.asked_for.add(str(path))
        try:
            name, workflow = read_workflow(path)
        except OSError as error:
            raise _NotLoadedError(f"{path} can't be read: {error.strerror}") from error
        except DefinitionError as error:
            lines = "\n".join(f"{spec}:{problem}" for problem in error.problems)
            raise _NotLoadedError(f"it is no workflow:\n{lines}") from error
        if not _WORKFLOW_NAME.fullmatch(name):
            raise _NotLoadedError(
                f"{name!r} can't be a workflow's name: give it one of letters, digits, _, - and ."
            )
        if self._is_taken(name):
            return
        self._functions[name] = workflow
        self.entries.append(entry_of(len(self.entries), name, workflow, self.conducting))

    def _load_package(self, name: str) -> None:
        """Load a module and, if it is a package, all that is in it."""
        module = self._import(name, lambda: _find(name), shown=name)
        self._serve_module(module)
        for inner in iter_modules(getattr(module, "__path__", ()), f"{name}."):
            if not inner.name.endswith(".__main__"):
                self._load_package(inner.name)

    def _load_entry_point(self, spec: str, entry_point: EntryPoint) -> None:
        if not entry_point.attr:
            self._load_package(entry_point.module)
            return
        module = entry_point.module
        target = self._import(module, lambda: _find(module), shown=spec)
        if target is None:
            return
        for name in entry_point.attr.split("."):
            target = getattr(target, name, None)
        if spec_of(target) is None:
            raise _NotLoadedError(f"entry point {spec}: no node is named {entry_point.value}")
        self._take_hooks(sys.modules[module])
        self._serve(target)

    def _import(self, name: str, find: Callable[[], ModuleSpec | None], *, shown: str) -> Any:
        """Import a module; when it fails report that under the name `shown` and give `None`."""

        def find_and_note() -> ModuleSpec | None:
            found = find()
            if found is not None and found.has_location and found.origin is not None:
                self.asked_for.add(found.origin)
            return found

        try:
            return _import(name, find_and_note)
        except (KeyboardInterrupt, _NotLoadedError):
            raise
        except BaseException as error:  # users' code: a failed import is what we are here to report
            self._report(shown, error)
            return None
        finally:
            self._note_hazards(name)

    def _note_hazards(self, name: str) -> None:
        now = fork_hazards()
        self.unsafe_to_fork += [f"module {name} {what}" for what in now.since(self._hazards)]
        self._hazards = now

    def _report(self, subject: str, error: BaseException) -> None:
        message = bounded(f"{class_name(type(error))}: {message_of(error)}", MESSAGE_BYTES_MAX)
        formatted = bounded(format_traceback(error), TRACEBACK_BYTES_MAX)
        self.failures.append(LoadFailure(subject, message, formatted))

    def _serve_module(self, module: Any) -> None:
        self._take_hooks(module)
        name = getattr(module, "__name__", None)
        for value in list(getattr(module, "__dict__", {}).values()):
            if spec_of(value) is not None and getattr(value, "__module__", None) == name:
                self._serve(value)

    def _take_hooks(self, module: Any) -> None:
        for value in list(getattr(module, "__dict__", {}).values()):
            if is_hook(value, "start") and value not in self.start_hooks:
                self.start_hooks.append(value)
            if is_hook(value, "stop") and value not in self.stop_hooks:
                self.stop_hooks.append(value)

    def _serve(self, function: Any) -> None:
        marked = spec_of(function)
        assert marked is not None, "callers have looked"
        name = f"{function.__module__}.{marked.name}"
        if self._functions.get(name) is function or self._is_taken(name):
            return
        self._functions[name] = function
        try:
            self.entries.append(Entry.of(len(self.entries), name, function))
        except NodeDefinitionError as error:
            self.failures.append(LoadFailure(name, str(error)))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # raised by users' types, when they are looked at
            self._report(name, error)

    def _is_taken(self, name: str) -> bool:
        """Whether a node can't have a name, which is reported then."""
        if name in self._functions:
            message = f"{name} is the name of another node already: give one a name of its own"
        elif name.startswith(BUILTIN_PREFIX):
            message = f"{name}: names that begin with {BUILTIN_PREFIX} are Pronghorn's own"
        else:
            return False
        self.failures.append(LoadFailure(name, message))
        return True


def _sources(asked_for: Collection[str]) -> tuple[str, ...]:
    """Give files, and those of the modules that were imported from their folders or below.

    What was installed there, as into a ``.venv``, is left out: it does not change while one works.
    """
    folders = {Path(file).parent for file in asked_for}
    files = set(asked_for)
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or "site-packages" in file:
            continue
        if not folders.isdisjoint(Path(file).parents):
            files.add(file)
    return tuple(sorted(files))


def _check_file(name: str, path: Path) -> None:
    """Refuse a file that can't be imported under its stem."""
    if not path.is_file():
        raise _NotLoadedError(f"there is no file {path}")
    if "." in name or not name:
        raise _NotLoadedError(f"{path} can't be a module: its name has a dot: rename it")
    if name in sys.stdlib_module_names or name == BUILTIN_PREFIX.rstrip("."):
        raise _NotLoadedError(f"{path} would hide the module {name} that others import: rename it")
    loaded = sys.modules.get(name)
    file = getattr(loaded, "__file__", None)
    if loaded is not None and (file is None or Path(file).resolve() != path):
        raise _NotLoadedError(
            f"{path} can't be loaded as {name}: {file or 'another module'} is loaded under that "
            "name: rename one"
        )


def _prepend_to_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _entry_point(name: str) -> EntryPoint | None:
    return next(iter(entry_points(group=ENTRY_POINT_GROUP, name=name)), None)


def _find(name: str) -> ModuleSpec | None:
    """Find a module by its dotted name; its parents are imported for that."""
    try:
        return find_spec(name) if all(name.split(".")) else None
    except ModuleNotFoundError as error:
        # Raised for a missing parent; a module that a parent misses is a failure of that parent.
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            return None
        raise


def _import(name: str, find: Callable[[], ModuleSpec | None]) -> Any:
    """Import a module as the import statement does, but keep what `StopImport` cut short.

    The import statement would throw the module away with what it has defined.
    """
    if (loaded := sys.modules.get(name)) is not None:
        return loaded
    found = find()
    if found is None or found.loader is None:
        raise _NotLoadedError(f"there is no file, entry point or module named {name!r}")
    module = module_from_spec(found)
    sys.modules[name] = module
    try:
        found.loader.exec_module(module)
    except StopImport:
        pass
    except BaseException:
        sys.modules.pop(name, None)
        raise
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)
    return sys.modules[name]  # a module may put something else in its place
