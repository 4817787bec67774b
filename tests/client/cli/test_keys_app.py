"""The commands of ``keys``: from a new key to calls with it, and to its end."""

import json

import pytest
from commands import Commands

pytestmark = pytest.mark.slow


def test_help_names_the_commands(commands: Commands) -> None:
    shown = commands("keys", "--help")
    assert shown.status == 0
    for name in ("new", "list", "revoke"):
        assert f"\n  {name} " in shown.output


def test_tcp_wants_keys_or_the_word_insecure(commands: Commands) -> None:
    refused = commands("serve", "nodes.py", "--bind", "tcp://127.0.0.1:0", "--keys", "keys")
    assert refused.status == 2
    assert "pronghorn keys new" in refused.errors
    assert "--insecure" in refused.errors


def test_insecure_is_loud(commands: Commands) -> None:
    bind = ("--bind", "tcp://127.0.0.1:0", "--insecure")
    with commands.serving("nodes.py", "--workers", "1", *bind) as serving:
        endpoint = serving.ready["endpoints"][1]
        assert commands("call", "add", "a=1", "b=2", "--endpoint", endpoint).output == "3\n"
        assert serving.ready["insecure"] is True


def test_a_key_is_made_used_and_revoked(commands: Commands) -> None:
    folder = ("--keys", str(commands.folder / "keys"))
    ada = json.loads(commands("keys", "new", "ada", "--node", "*.add", *folder, "--json").output)
    ops = json.loads(commands("keys", "new", "ops", "--administers", *folder, "--json").output)
    bind = ("--bind", "tcp://127.0.0.1:0", *folder)
    with commands.serving("nodes.py", "--workers", "1", *bind) as serving:
        at = ("--endpoint", serving.ready["endpoints"][1])
        as_ada, as_ops = ("--key", ada["file"]), ("--key", ops["file"])
        assert serving.ready["insecure"] is False
        assert commands(*as_ada, "call", "add", "a=1", "b=2", *at) == (0, b"3\n", "")
        denied = commands(*as_ada, "call", "words", "text=x", *at)
        assert "no right to call" in denied.errors
        assert "no right" in commands(*as_ada, "workers", "list", *at).errors
        assert commands(*as_ops, "workers", "list", *at).status == 0
        assert "it wants a key" in commands("call", "add", "a=1", "b=2", *at).errors
        assert commands("keys", "revoke", "ada", *folder).status == 0
        revoked = commands("--key", ops["file"], "call", "add", "a=1", "b=2", *at)
        assert revoked.status == 0, "others go on"
