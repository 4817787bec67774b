"""Mirror of broker/journal/store.py; what happens to a full or broken disk is in tests/fault."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from pronghorn.broker.journal.errors import DamageError, LostStoreError, UnusableStoreError
from pronghorn.broker.journal.place import DATA_NAME
from pronghorn.broker.journal.rows import Table, sealed_row
from pronghorn.broker.journal.store import MAP_BYTES, Delete, Put, Puts, Store, page_problems


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open_to_write(tmp_path)
    yield opened
    opened.close()


def put(key: bytes, row: object = 0) -> Put:
    return Put(Table.LOG, key, sealed_row(Table.LOG, key, row))


def puts(*keys: bytes, append: bool = False) -> Puts:
    return Puts(Table.LOG, [(key, sealed_row(Table.LOG, key, 0)) for key in keys], append)


def keys(store: Store, start: bytes = b"", *, backwards: bool = False) -> list[bytes]:
    with store.view() as view:
        return [key for key, _ in view.walk(Table.LOG, start, backwards=backwards)]


def in_child(code: str, path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_it_is_opened_with_synced_flags_and_the_format_of_lmdb_09(store: Store) -> None:
    flags = store._environment.flags()
    assert flags == {
        "subdir": True,
        "readonly": False,
        "metasync": True,
        "sync": True,
        "map_async": False,
        "readahead": True,
        "writemap": False,
        "meminit": True,
        "lock": True,
    }
    assert store._environment.lib_version()[:2] == (0, 9)
    assert store.map_bytes() == MAP_BYTES
    assert (store.path / DATA_NAME).stat().st_mode & 0o777 == 0o600


def test_changes_are_made_all_or_none(store: Store) -> None:
    store.apply([put(b"a"), put(b"b")])
    store.apply([put(b"c"), Delete(Table.LOG, b"a")])
    assert keys(store) == [b"b", b"c"]
    with pytest.raises(AssertionError):
        store.apply([put(b"d"), Delete(Table.LOG, b"gone")])
    with pytest.raises(AssertionError):
        store.apply([put(b"d"), puts(b"e", b"a", append=True)])
    assert keys(store) == [b"b", b"c"]


def test_many_rows_are_put_in_any_order_or_behind_all_others(store: Store) -> None:
    store.apply([puts(b"d", b"b"), puts(b"e", b"f", append=True), puts(b"b", b"a")])
    assert keys(store) == [b"a", b"b", b"d", b"e", b"f"]


def test_rows_are_checked_when_they_are_read(store: Store) -> None:
    store.apply([put(b"a", [1]), Put(Table.LOG, b"b", b"damaged")])
    with store.view() as view:
        assert view.get(Table.LOG, b"a") == b"\x91\x01"
        assert view.get(Table.LOG, b"c") is None
        assert view.get(Table.DONE, b"a") is None
        with pytest.raises(DamageError, match="log 62: the checksum is wrong"):
            view.get(Table.LOG, b"b")


@pytest.mark.parametrize(
    ("start", "forwards", "backwards"),
    [
        (b"", [b"b", b"d", b"f"], [b"f", b"d", b"b"]),
        (b"a", [b"b", b"d", b"f"], []),
        (b"b", [b"b", b"d", b"f"], []),
        (b"c", [b"d", b"f"], [b"b"]),
        (b"d", [b"d", b"f"], [b"b"]),
        (b"f", [b"f"], [b"d", b"b"]),
        (b"g", [], [b"f", b"d", b"b"]),
    ],
)
def test_walks_begin_at_a_key_or_before_it(
    store: Store, start: bytes, forwards: list[bytes], backwards: list[bytes]
) -> None:
    assert keys(store, start) == keys(store, start, backwards=True) == []
    store.apply([put(key) for key in (b"b", b"d", b"f")])
    assert keys(store, start) == forwards
    assert keys(store, start, backwards=True) == backwards


def test_a_view_sees_one_state(store: Store) -> None:
    store.apply([put(b"a")])
    with store.view() as view:
        store.apply([put(b"b")])
        assert [key for key, _ in view.walk(Table.LOG)] == [b"a"]
        assert view.count(Table.LOG) == 1
    assert keys(store) == [b"a", b"b"]


def test_others_read_while_it_is_written_to(store: Store) -> None:
    store.apply([put(b"a")])
    code = """
import sys; from pathlib import Path
from pronghorn.broker.journal.store import Store, Table
store = Store.open_to_read(Path(sys.argv[1]))
with store.view() as view:
    print(view.count(Table.LOG))
"""
    assert in_child(code, store.path) == "1"
    with store.view() as view:
        assert view.used_bytes() > 0
    assert store.file_bytes() > 0


def test_a_store_that_is_not_there_or_not_ours_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(UnusableStoreError, match="can't open the journal in"):
        Store.open_to_read(tmp_path / "gone")
    lmdb.open(os.fspath(tmp_path), lib_version=0).close()
    with pytest.raises(UnusableStoreError, match="holds no journal of ours"):
        Store.open_to_read(tmp_path)


def test_the_map_grows_by_itself_and_readers_follow(tmp_path: Path) -> None:
    store = Store.open_to_write(tmp_path, map_bytes=1024**2)
    code = """
import sys; from pathlib import Path
from pronghorn.broker.journal import store as module
module.MAP_BYTES = 2**20
store = module.Store.open_to_read(Path(sys.argv[1]))
with store.view() as view:
    before = view.count(module.Table.LOG)
print(before, flush=True); input()
with store.view() as view:
    print(view.count(module.Table.LOG), flush=True)
"""
    reader = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "0\n"
        for number in range(100):
            store.apply([put(b"%d" % number, "x" * 100_000)])
        assert store.map_bytes() >= 8 * 1024**2
        assert reader.communicate("\n")[0] == "100\n"
    store.close()


def test_where_address_space_is_limited_the_map_is_smaller(tmp_path: Path) -> None:
    code = """
import resource, sys; from pathlib import Path
from pronghorn.broker.journal.store import Store
resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
print(Store.open_to_write(Path(sys.argv[1])).map_bytes() < 2**30)
"""
    assert in_child(code, tmp_path) == "True"
    assert resource.getrlimit(resource.RLIMIT_AS)[0] != 2**30


def test_a_child_can_not_use_what_its_parent_opened(store: Store) -> None:
    pid = os.fork()
    if pid == 0:
        refused = 0
        for use in (lambda: store.apply([put(b"a")]), lambda: keys(store), store.clear_readers):
            try:
                use()
            except LostStoreError:
                refused += 1
        store.close()
        os._exit(refused)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    store.apply([put(b"a")])
    assert keys(store) == [b"a"]


def test_readers_that_were_killed_are_forgotten(store: Store) -> None:
    code = """
import os, sys; from pathlib import Path
from pronghorn.broker.journal.store import Store
store = Store.open_to_read(Path(sys.argv[1]))
with store.view():
    os.kill(os.getpid(), 9)
"""
    with pytest.raises(subprocess.CalledProcessError):
        in_child(code, store.path)
    assert store.clear_readers() == 1
    assert store.clear_readers() == 0


@pytest.mark.parametrize("compact", [True, False])
def test_a_copy_is_a_store(store: Store, tmp_path: Path, compact: bool) -> None:
    store.apply([put(b"a")])
    target = tmp_path / "copy"
    target.mkdir()
    with open(target / DATA_NAME, "wb") as file:
        store.copy_to(file.fileno(), compact=compact)
    copy = Store.open_to_read(target)
    assert keys(copy) == [b"a"]
    copy.close()
    assert page_problems(target) == []


def test_a_copy_that_can_not_be_written_is_told(store: Store) -> None:
    refused = pytest.raises(LostStoreError, match="copying the journal")
    with open("/dev/full", "wb", buffering=0) as full, refused:
        store.copy_to(full.fileno(), compact=False)


def test_pages_that_are_no_pages_are_told(tmp_path: Path) -> None:
    (tmp_path / DATA_NAME).write_bytes(b"x" * 8192)
    assert len(page_problems(tmp_path)) == 1
