"""Mirror of client/cli/keys.py."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from key_folders import new_key

from pronghorn.broker.wire.errors import InvalidArgumentError, NotFoundError
from pronghorn.broker.wire.keyfiles import KeyFolder, read_private
from pronghorn.broker.wire.keys import Entry, Rights
from pronghorn.client.cli.keys import folder_of, make, revoke, show


@pytest.fixture
def folder(tmp_path: Path) -> KeyFolder:
    return KeyFolder(tmp_path / "keys")


def new(folder: KeyFolder, client: str, **options: Any) -> None:
    defaults: dict[str, Any] = {
        "nodes": ("*",),
        "reads": False,
        "administers": False,
        "out": None,
        "public": None,
        "as_json": True,
    }
    make(folder, client, **(defaults | options))


def test_a_new_key_may_connect_and_its_file_is_its_owners_alone(
    folder: KeyFolder, capfd: pytest.CaptureFixture[str]
) -> None:
    new(folder, "ada", nodes=("shop.*",), reads=True)
    told = json.loads(capfd.readouterr().out)
    key = read_private(Path(told["file"]))
    assert (key.public, key.server) == (told["public"], folder.server().public)
    assert key.server == told["server"]
    assert list(folder.entries()) == [
        Entry("ada", key.public, Rights(nodes=("shop.*",), reads=True))
    ]
    assert stat.S_IMODE(Path(told["file"]).stat().st_mode) == 0o600
    assert key.secret not in str(told)


def test_the_broker_keeps_its_key(folder: KeyFolder) -> None:
    new(folder, "ada")
    server = folder.server()
    new(folder, "bob")
    assert folder.server() == server


def test_the_key_is_written_where_it_is_wanted(
    folder: KeyFolder, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    new(folder, "ada", out=str(tmp_path / "mine.key"), as_json=False)
    shown = capfd.readouterr().out
    assert f"to it alone: {tmp_path}/mine.key\n" in shown
    assert read_private(tmp_path / "mine.key").server in shown
    assert read_private(tmp_path / "mine.key").secret not in shown


def test_a_client_may_have_made_its_own_pair(
    folder: KeyFolder, capfd: pytest.CaptureFixture[str]
) -> None:
    key = new_key()
    new(folder, "ada", public=key.public)
    assert json.loads(capfd.readouterr().out)["file"] is None
    assert not folder.private_file("ada").exists()
    with pytest.raises(InvalidArgumentError, match="that is the key of ada"):
        new(folder, "bob", public=key.public)


def test_a_name_is_given_once_and_what_is_there_stays(folder: KeyFolder, tmp_path: Path) -> None:
    new(folder, "ada")
    before = list(folder.entries())
    for out in (None, str(tmp_path / "new.key")):
        with pytest.raises(InvalidArgumentError, match="is there already"):
            new(folder, "ada", out=out)
    assert list(folder.entries()) == before
    assert not (tmp_path / "new.key").exists()
    assert folder.private_file("ada").exists()


@pytest.mark.parametrize(
    ("client", "options", "told"),
    [
        ("a/b", {}, "is no name for a key"),
        ("ada", {"nodes": ("a b",)}, "is no pattern"),
        ("ada", {"public": "short"}, "--public is no key"),
        ("ada", {"public": new_key().public, "out": "x"}, "stays where --public is"),
    ],
)
def test_what_makes_no_sense_is_refused(
    folder: KeyFolder, client: str, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=told):
        new(folder, client, **options)
    assert not folder.path.exists()


def test_clients_are_listed_with_their_rights(
    folder: KeyFolder, capfd: pytest.CaptureFixture[str]
) -> None:
    new(folder, "ada", nodes=("shop.*", "add"))
    new(folder, "operations", reads=True, administers=True)
    (folder.clients / "bad.toml").write_text("")
    capfd.readouterr()
    show(folder, as_json=False)
    shown = capfd.readouterr()
    ada, operations = (one.public for one in folder.entries() if isinstance(one, Entry))
    assert shown.out.splitlines() == [
        f"broker  {folder.server().public}",
        f"ada         {ada}  shop.* add",
        f"operations  {operations}  *, reads, administers",
    ]
    assert "not accepted:" in shown.err
    show(folder, as_json=True)
    listed = json.loads(capfd.readouterr().out)
    assert listed["clients"][1] == {
        "client": "operations",
        "public": operations,
        "nodes": ["*"],
        "reads": True,
        "administers": True,
    }


def test_a_revoked_client_is_gone(folder: KeyFolder, capfd: pytest.CaptureFixture[str]) -> None:
    new(folder, "ada")
    capfd.readouterr()
    revoke(folder, "ada", as_json=False)
    assert capfd.readouterr().out == "ada may not connect any more.\n"
    assert list(folder.entries()) == []
    with pytest.raises(NotFoundError):
        revoke(folder, "ada", as_json=False)


def test_the_folder_is_the_brokers_or_the_one_that_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert folder_of(None, None).path == tmp_path / "pronghorn" / "default" / "keys"
    assert folder_of(None, "shop").path == tmp_path / "pronghorn" / "shop" / "keys"
    assert folder_of("here", None).path == Path("here")
    with pytest.raises(InvalidArgumentError, match="not both"):
        folder_of("here", "shop")
