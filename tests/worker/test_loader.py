"""Mirror of worker/loader.py."""

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from pronghorn.broker.wire.embedding import importing_nodes
from pronghorn.worker.loader import LoadedNodes, load

Write = Callable[[str, str], Path]

HEAD = "from pronghorn.worker import node\n"
ADD = HEAD + "@node\ndef add(a: int, b: int) -> int: return a + b\n"


@pytest.fixture(autouse=True)
def restored_modules() -> Iterator[None]:
    modules, path = dict(sys.modules), list(sys.path)
    yield
    for name in sys.modules.keys() - modules.keys():
        del sys.modules[name]
    sys.modules.update(modules)
    sys.path[:] = path


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


def names(loaded: LoadedNodes) -> list[str]:
    assert [entry.index for entry in loaded.entries] == list(range(len(loaded.entries)))
    return [entry.name for entry in loaded.entries]


def failures(loaded: LoadedNodes) -> list[tuple[str, str]]:
    return [(failure.subject, failure.message) for failure in loaded.failures]


# Files


def test_a_file(write: Write) -> None:
    path = write("lnodes.py", ADD + "plus = add\nconstant = 5\ndef other(): ...\n")
    loaded = load([str(path)])
    assert names(loaded) == ["lnodes.add"]
    assert loaded.failures == ()
    assert loaded.unsafe_to_fork == ()
    assert sys.modules["lnodes"].__file__ == str(path)
    entry = loaded.entries[0]
    assert entry.function is sys.modules["lnodes"].add
    assert entry.invoke(SimpleNamespace(p0=1, p1=2)) == 3


def test_a_relative_path(write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write("lnodes.py", ADD)
    monkeypatch.chdir(tmp_path)
    assert names(load(["lnodes.py", "./lnodes.py"])) == ["lnodes.add"]


def test_a_script_without_the_suffix(write: Write) -> None:
    assert names(load([str(write("lscript", ADD))])) == ["lscript.add"]


def test_modules_beside_the_file_are_found(write: Write, tmp_path: Path) -> None:
    write("lsibling.py", ADD + "THREE = 3\n")
    path = write(
        "lnodes.py", HEAD + "from lsibling import THREE, add\n@node\ndef three(): return THREE\n"
    )
    assert names(load([str(path)])) == ["lnodes.three"]
    assert sys.path[0] == str(tmp_path)
    assert sys.path.count(str(tmp_path)) == 1


def test_several_files_in_order(write: Write) -> None:
    paths = [str(write(f"{name}.py", ADD)) for name in ("lb", "la", "lc")]
    assert names(load(paths)) == ["lb.add", "la.add", "lc.add"]


def test_two_files_of_one_name(write: Write) -> None:
    first, second = write("x/lnodes.py", ADD), write("y/lnodes.py", ADD)
    loaded = load([str(first), str(second)])
    assert names(loaded) == ["lnodes.add"]
    assert failures(loaded) == [
        (
            str(second),
            f"{second} can't be loaded as lnodes: {first} is loaded under that name: rename one",
        )
    ]


@pytest.mark.parametrize("name", ["json", "calendar", "sys", "pronghorn"])
def test_a_file_that_would_hide_a_module_others_need(write: Write, name: str) -> None:
    path = write(f"{name}.py", ADD)
    loaded = load([str(path)])
    assert failures(loaded) == [
        (str(path), f"{path} would hide the module {name} that others import: rename it")
    ]
    assert str(path.parent) not in sys.path


def test_a_file_that_would_hide_a_loaded_module(write: Write) -> None:
    path = write("msgspec.py", ADD)
    ((_, message),) = failures(load([str(path)]))
    assert f"{path} can't be loaded as msgspec: " in message


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no_such_file.py", "there is no file"),
        ("folder/no_such_file", "there is no file, entry point or module named"),
        ("no_such_module", "there is no file, entry point or module named 'no_such_module'"),
        ("no_such.module", "there is no file, entry point or module named 'no_such.module'"),
        ("os.path.nothing", "there is no file, entry point or module named 'os.path.nothing'"),
        ("..up", "there is no file, entry point or module named '..up'"),
        ("", "there is no file, entry point or module named ''"),
    ],
)
def test_what_is_not_there(
    spec: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = load([spec])
    assert loaded.entries == ()
    ((subject, text),) = failures(loaded)
    assert subject == spec
    assert text.startswith(message)
    assert loaded.failures[0].traceback == ""


def test_a_dot_in_the_name_of_a_file(write: Write) -> None:
    ((_, message),) = failures(load([str(write("a.b.py", ADD))]))
    assert message.endswith("its name has a dot: rename it")


# Failures


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n1 / 0\n", "ZeroDivisionError: division by zero"),
        ("import lnowhere\n", "ModuleNotFoundError: No module named 'lnowhere'"),
        ("import sys\nsys.exit(3)\n", "SystemExit: 3"),
        ("def (\n", "SyntaxError: invalid syntax (lbroken.py, line 1)"),
        ("raise BaseException('odd')\n", "BaseException: odd"),
    ],
)
def test_a_module_that_fails_stops_no_other(write: Write, text: str, message: str) -> None:
    broken, fine = write("lbroken.py", text), write("lfine.py", ADD)
    loaded = load([str(broken), str(fine)])
    assert names(loaded) == ["lfine.add"]
    assert failures(loaded) == [(str(broken), message)]
    assert "lbroken" not in sys.modules
    lines = loaded.failures[0].traceback.splitlines()
    shown = lines[0] if message.startswith("SyntaxError") else lines[1]
    assert shown.startswith(f'  File "{broken}", line ')


def test_a_keyboard_interrupt_goes_through(write: Write) -> None:
    path = write("lbroken.py", "raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load([str(path)])
    assert not importing_nodes()


def test_a_refused_node_stops_no_other(write: Write) -> None:
    path = write("lnodes.py", ADD + "@node\ndef bad(*args): ...\n@node\ndef good(): ...\n")
    loaded = load([str(path)])
    assert names(loaded) == ["lnodes.add", "lnodes.good"]
    ((subject, message),) = failures(loaded)
    assert subject == "lnodes.bad"
    assert message == (
        f"node lnodes.bad ({path}:4): parameter `*args`: can't be served: take a list instead"
    )


def test_a_node_whose_types_raise_anything_stops_no_other(write: Write) -> None:
    path = write(
        "lodd.py",
        ADD + "class Odd:\n    def __hash__(self): raise SystemExit(3)\n"
        "@node\ndef odd(a: int = Odd()): ...\n",
    )
    loaded = load([str(path)])
    assert names(loaded) == ["lodd.add"]
    assert failures(loaded) == [("lodd.odd", "SystemExit: 3")]
    assert "__hash__" in loaded.failures[0].traceback


def test_two_nodes_of_one_name(write: Write) -> None:
    path = write("lnodes.py", ADD + "@node(name='add')\ndef plus(): ...\n")
    loaded = load([str(path)])
    assert names(loaded) == ["lnodes.add"]
    assert failures(loaded) == [
        (
            "lnodes.add",
            "lnodes.add is the name of another node already: give one a name of its own",
        )
    ]


# Packages


@pytest.fixture
def shop(write: Write, tmp_path: Path) -> Path:
    write("lshop/__init__.py", HEAD + "from .orders import place\n@node\ndef top(): ...\n")
    write("lshop/orders.py", HEAD + "@node\nasync def place(): ...\n")
    write("lshop/__main__.py", "1 / 0\n")
    write("lshop/broken.py", "1 / 0\n")
    write("lshop/deep/__init__.py", "")
    write("lshop/deep/inner.py", HEAD + "@node\ndef low(): ...\n")
    return tmp_path


def test_a_package_with_its_submodules(shop: Path) -> None:
    sys.path.insert(0, str(shop))
    loaded = load(["lshop"])
    assert names(loaded) == ["lshop.top", "lshop.deep.inner.low", "lshop.orders.place"]
    assert failures(loaded) == [("lshop.broken", "ZeroDivisionError: division by zero")]
    assert sys.modules["lshop"].deep.inner is sys.modules["lshop.deep.inner"]


def test_a_package_by_its_folder(shop: Path) -> None:
    assert "lshop.top" in names(load([f"{shop}/lshop/"]))
    assert sys.path[0] == str(shop)


def test_one_module_of_a_package(shop: Path) -> None:
    sys.path.insert(0, str(shop))
    assert names(load(["lshop.deep"])) == ["lshop.deep.inner.low"]
    assert names(load(["lshop.orders", "lshop.orders"])) == ["lshop.orders.place"]


def test_a_parent_that_misses_a_module_is_a_failure_with_its_traceback(
    write: Write, tmp_path: Path
) -> None:
    write("lparent/__init__.py", "import lnowhere\n")
    write("lparent/child.py", ADD)
    sys.path.insert(0, str(tmp_path))
    loaded = load(["lparent.child"])
    assert failures(loaded) == [
        ("lparent.child", "ModuleNotFoundError: No module named 'lnowhere'")
    ]
    assert "lparent/__init__.py" in loaded.failures[0].traceback


def test_a_module_may_put_something_else_in_its_place(write: Write) -> None:
    path = write(
        "lnodes.py",
        ADD + "import sys, types\nit = types.ModuleType('lnodes')\nit.add = add\n"
        "sys.modules['lnodes'] = it\n",
    )
    assert names(load([str(path)])) == ["lnodes.add"]


def test_names_of_our_own_are_refused(write: Write) -> None:
    path = write("lnodes.py", ADD + "add.__module__ = __name__ = 'pronghorn.mine'\n")
    ((subject, _),) = failures(load([str(path)]))
    assert subject == "pronghorn.mine.add"


# Entry points


@pytest.fixture
def installed(write: Write, tmp_path: Path) -> None:
    write("ldist.py", ADD + "@node\ndef other(): ...\nclass Box:\n    add = add\n")
    write("lpack/__init__.py", "")
    write("lpack/inner.py", ADD)
    write("lbad.py", "1 / 0\n")
    write("ldist-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: ldist\nVersion: 1.0\n")
    write(
        "ldist-1.0.dist-info/entry_points.txt",
        "[pronghorn.nodes]\nwhole = ldist\npack = lpack\none = ldist:add\nboxed = ldist:Box.add\n"
        "none = ldist:nothing\ngone = lgone\ngone-one = lgone:add\nbad-one = lbad:add\n",
    )
    sys.path.insert(0, str(tmp_path))


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("spec", "served"),
    [
        ("whole", ["ldist.add", "ldist.other"]),
        ("pack", ["lpack.inner.add"]),
        ("one", ["ldist.add"]),
        ("boxed", ["ldist.add"]),
    ],
)
def test_an_entry_point(spec: str, served: list[str]) -> None:
    loaded = load([spec])
    assert names(loaded) == served
    assert loaded.failures == ()


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("none", "entry point none: no node is named ldist:nothing"),
        ("gone", "there is no file, entry point or module named 'lgone'"),
        ("gone-one", "there is no file, entry point or module named 'lgone'"),
        ("bad-one", "ZeroDivisionError: division by zero"),
    ],
)
def test_an_entry_point_that_leads_nowhere(spec: str, message: str) -> None:
    assert failures(load([spec])) == [(spec, message)]


# Hooks


HOOKS = HEAD + "from pronghorn.worker import on_start, on_stop\n"


def hooks(loaded: LoadedNodes) -> tuple[list[str], list[str]]:
    start, stop = ([hook.__qualname__ for hook in each] for each in loaded.hooks)
    return start, stop


def test_hooks_in_the_order_of_modules_and_definitions(write: Write) -> None:
    first = write(
        "lfirst.py",
        HOOKS + "@on_stop\ndef a(): ...\n@on_start\ndef b(): ...\n"
        "@on_start\n@on_stop\nasync def c(): ...\nd = b\n",
    )
    second = write("lsecond.py", HOOKS + "@on_start\ndef e(): ...\nimport lfirst\n" + ADD)
    loaded = load([str(second), str(first)])
    assert loaded.failures == ()
    assert hooks(loaded) == (["e", "b", "c"], ["a", "c"])


def test_a_hook_that_is_imported_by_name_is_run_and_once(write: Write) -> None:
    write("lhelper.py", HOOKS + "@on_start\ndef a(): ...\n@on_start\ndef b(): ...\n")
    path = write("luser.py", "from lhelper import b\n" + ADD)
    assert hooks(load([str(path)])) == (["b"], [])
    assert hooks(load([str(path), str(path.parent / "lhelper.py")])) == (["b", "a"], [])


def test_hooks_of_a_module_that_was_imported_before(write: Write) -> None:
    path = write("lbefore.py", HOOKS + "@on_start\ndef a(): ...\n" + ADD)
    assert hooks(load([str(path)])) == hooks(load([str(path)])) == (["a"], [])


@pytest.mark.usefixtures("installed")
def test_hooks_of_an_entry_point_that_is_one_function(write: Write) -> None:
    write("ldist.py", HOOKS + "@on_start\ndef a(): ...\n" + ADD)
    loaded = load(["one"])
    assert names(loaded) == ["ldist.add"]
    assert hooks(loaded) == (["a"], [])


def test_a_hook_that_can_be_none_fails_its_module(write: Write) -> None:
    path = write("lwrong.py", HOOKS + "@on_start\ndef a(path): ...\n" + ADD)
    loaded = load([str(path)])
    assert names(loaded) == []
    ((_, message),) = failures(loaded)
    assert "hook lwrong.a" in message
    assert "drop path" in message


# Scripts that serve themselves


STOP = (
    "from pronghorn.broker.wire.embedding import StopImport, importing_nodes\n"
    "if importing_nodes(): raise StopImport\n1 / 0\n"
)


def test_a_script_that_starts_a_pool_of_itself(write: Write) -> None:
    path = write("lscript.py", ADD + STOP + "@node\ndef never(): ...\n")
    loaded = load([str(path)])
    assert names(loaded) == ["lscript.add"]
    assert loaded.failures == ()
    assert not importing_nodes()


def test_a_module_of_a_package_that_starts_a_pool(write: Write, tmp_path: Path) -> None:
    write("lself/__init__.py", "")
    write("lself/app.py", ADD + STOP)
    sys.path.insert(0, str(tmp_path))
    assert names(load(["lself"])) == ["lself.app.add"]
    assert "lself.app" in sys.modules


# Forking


def test_what_does_not_survive_a_fork_is_named_with_its_module(write: Write) -> None:
    fine = write("lfine.py", ADD)
    path = write(
        "lthread.py",
        ADD + "import threading\nstop = threading.Event()\n"
        "thread = threading.Thread(target=stop.wait)\nthread.start()\n",
    )
    loaded = load([str(path), str(fine)])
    module = sys.modules["lthread"]
    module.stop.set()
    thread = module.thread
    assert isinstance(thread, threading.Thread)
    thread.join()
    assert names(loaded) == ["lthread.add", "lfine.add"]
    (reason,) = loaded.unsafe_to_fork
    assert reason.startswith("module lthread has started 1 thread (")


# --- what is to be watched ---------------------------------------------------------------------


def test_sources_are_what_was_asked_for_and_all_imported_from_beside_it(
    write: Write, tmp_path: Path
) -> None:
    write("shelf.py", "ITEMS = 1\n")
    write("inner/__init__.py", "")
    write("inner/deep.py", "")
    write("site-packages/installed_one.py", "")
    sys.path.insert(0, str(tmp_path / "site-packages"))
    module = write("sources_shop.py", "import json, shelf, inner.deep, installed_one\n" + ADD)
    sources = load([str(module)]).sources
    assert sources == tuple(
        str(tmp_path / name)
        for name in ("inner/__init__.py", "inner/deep.py", "shelf.py", "sources_shop.py")
    )


def test_sources_have_what_is_not_there_or_can_not_be_imported(
    write: Write, tmp_path: Path
) -> None:
    broken = write("sources_broken.py", "import no_such_module\n")
    loaded = load([str(broken), str(tmp_path / "sources_gone.py")])
    assert len(loaded.failures) == 2
    assert loaded.sources == (str(broken), str(tmp_path / "sources_gone.py"))
