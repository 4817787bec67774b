"""The files of keys: who may read them, and how they are written. An IO shell.

::

    FOLDER/server.key           the broker's own private key, 0600
    FOLDER/clients/NAME.toml    one for each client that may connect: public key and rights
    FOLDER/private/NAME.key     the private key that was made for it, to be handed over, 0600

A folder or a private key that others can read or change is refused, as OpenSSH does.

Mirror: tests/broker/wire/test_keyfiles.py.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from .errors import InvalidArgumentError, NotFoundError
from .keys import Entry, PrivateKey, parse_entry, parse_private, written_entry, written_private

SERVER_FILE = "server.key"
CLIENTS_FOLDER = "clients"
PRIVATE_FOLDER = "private"
ENTRY_SUFFIX = ".toml"
KEY_SUFFIX = ".key"

_FILE_BYTES_MAX = 64 * 1024  # of a file that has some lines
_READABLE, _WRITABLE = 0o077, 0o022  # by others than the owner


class KeyFolder:
    """The keys of one broker."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clients = path / CLIENTS_FOLDER

    @property
    def has_server(self) -> bool:
        """Whether there is a key for the broker, so that it can be asked for by others' keys."""
        return (self.path / SERVER_FILE).exists()

    def server(self) -> PrivateKey:
        """Read the broker's key.

        Raises:
            InvalidArgumentError: There is none, or others could read it.
        """
        _check_folder(self.path)
        return read_private(self.path / SERVER_FILE)

    def entries(self) -> Iterator[Entry | InvalidArgumentError]:
        """Read all clients that may connect, by name; in place of one that can't be read, why."""
        try:
            _check_folder(self.path)
            _check_folder(self.clients)
            files = sorted(self.clients.glob(f"*{ENTRY_SUFFIX}"))
        except InvalidArgumentError as error:
            yield error
            return
        for file in files:
            try:
                yield parse_entry(_read(file, _WRITABLE), file.stem, str(file))
            except InvalidArgumentError as error:
                yield error

    def make(self) -> None:
        """Make the folders that are not there.

        Raises:
            InvalidArgumentError: They can't be made, or others could change them.
        """
        for folder in (self.path, self.clients, self.path / PRIVATE_FOLDER):
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise InvalidArgumentError(f"can't make {folder}: {error.strerror}") from error
            _check_folder(folder)

    def add_server(self, key: PrivateKey) -> None:
        """Write the broker's key."""
        write_new(self.path / SERVER_FILE, written_private(key, "Private key of a broker"))

    def add(self, entry: Entry) -> None:
        """Let a client connect from now on.

        Raises:
            InvalidArgumentError: There is one of that name.
        """
        write_new(self._entry_file(entry.name), written_entry(entry))

    def remove(self, name: str) -> None:
        """Let a client connect no more; what was made of its private key is removed too.

        Raises:
            NotFoundError: There is none of that name.
        """
        try:
            self._entry_file(name).unlink()
        except FileNotFoundError:
            raise NotFoundError(f"{self.clients} has no client {name!r}") from None
        self.private_file(name).unlink(missing_ok=True)

    def private_file(self, name: str) -> Path:
        """Return where a client's private key is kept until it is handed over."""
        return self.path / PRIVATE_FOLDER / f"{name}{KEY_SUFFIX}"

    def _entry_file(self, name: str) -> Path:
        return self.clients / f"{name}{ENTRY_SUFFIX}"


def read_private(path: Path) -> PrivateKey:
    """Read the file of a private key.

    Raises:
        InvalidArgumentError: There is none, others could read it, or it holds something else.
    """
    return parse_private(_read(path, _READABLE), str(path))


def write_new(path: Path, text: str) -> None:
    """Write a file for its owner alone, whole or not at all.

    Raises:
        InvalidArgumentError: There is one, or it can't be written.
    """
    # Linked when it is whole: whoever looks at the folder meanwhile must not find half of it.
    begun = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fd = os.open(begun, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.link(begun, path)
        finally:
            begun.unlink()
    except FileExistsError:
        raise InvalidArgumentError(f"{path} is there already") from None
    except OSError as error:
        raise InvalidArgumentError(f"can't write {path}: {error.strerror}") from error


def _read(path: Path, forbidden: int) -> str:
    """Read a small file of ours.

    Raises:
        InvalidArgumentError: It can't be read, belongs to another user, or its mode has one of the
            `forbidden` bits.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            _check(path, os.fstat(fd), forbidden)
            data = file.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise InvalidArgumentError(f"can't read {path}: {error.strerror}") from error
    if len(data) > _FILE_BYTES_MAX:
        raise InvalidArgumentError(f"{path} is too long for a file of a key")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidArgumentError(f"{path} is no text") from None


def _check_folder(path: Path) -> None:
    try:
        found = path.stat()
    except OSError as error:
        raise InvalidArgumentError(f"can't read {path}: {error.strerror}") from error
    _check(path, found, _WRITABLE)


def _check(path: Path, found: os.stat_result, forbidden: int) -> None:
    if found.st_uid not in (os.geteuid(), 0):
        raise InvalidArgumentError(f"{path} belongs to another user (uid {found.st_uid})")
    if found.st_mode & forbidden:
        mode, fit = stat.S_IMODE(found.st_mode), stat.S_IMODE(found.st_mode) & ~forbidden
        raise InvalidArgumentError(
            f"{path} is open to others (mode {mode:04o}): chmod {fit:04o} {path}"
        )
