"""The one door to LMDB: environments, named tables, and values that carry a CRC over themselves and their key."""

import contextlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import lmdb

from archive.disk import full_or_same
from archive.errors import Damaged, Exhausted
from archive.pack.checksum import crc32

_CRC = struct.Struct("<I")
READERS_MAX = 1024
READER_BYTES, LOCK_HEADER_BYTES = 64, 4096


class Environment:
    """An LMDB environment as one process sees it.

    Parameters
    ----------
    folder : Path
        Holds `data.mdb` and `lock.mdb`.
    tables : dict of str to bool
        Names of the tables; True where one key may have several values of one size.
    synced : bool
        Whether a commit is durable when it returns.
    bare : frozenset of str
        Tables whose values carry no CRC, for what they name proves them.
    """

    def __init__(
        self, folder: Path, tables: dict[str, bool], map_bytes_max: int, *, synced: bool, bare: frozenset[str] = frozenset()
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        _reserve(folder / "lock.mdb")
        with self._errors():
            self._env = lmdb.open(
                str(folder),
                map_size=map_bytes_max,
                max_dbs=len(tables),
                max_readers=READERS_MAX,
                sync=synced,
                metasync=synced,
                readahead=False,
                max_spare_txns=16,
            )
            self.tables = {n: self._env.open_db(n.encode(), dupsort=dup, dupfixed=dup) for n, dup in tables.items()}
        self.bare = bare

    def close(self) -> None:
        self._env.close()

    def check_readers(self) -> int:
        """Clear the reader slots of processes that died; returns how many."""
        return int(self._env.reader_check())

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except lmdb.Error as error:
            raise self.told(error) from error

    def told(self, error: lmdb.Error) -> Exception:
        """An error of LMDB by what the caller can do."""
        if isinstance(error, lmdb.MapFullError):
            return Exhausted(f"the index in {self.folder} has reached index.map_bytes_max")
        if isinstance(error, lmdb.ReadersFullError):
            return Exhausted("the index has too many readers at once", 1)
        if "No space left" in str(error) or isinstance(error, lmdb.DiskError):
            return Exhausted(f"the index in {self.folder} cannot be written: {error}", 30)
        return Damaged(f"the index in {self.folder} is damaged or unreadable: {error}")

    def reading(self) -> "_Entered":
        """A snapshot, as a context manager; keep it short, never while streaming."""
        return _Entered(self, self._env, writing=False)

    def writing(self) -> "_Entered":
        """One writer at a time over all processes, as a context manager; committed at the end, undone on an exception."""
        return _Entered(self, self._env, writing=True)

    def last_transaction(self) -> int:
        """Number of the last commit, of whichever process: where it is the same, nothing changed."""
        return int(self._env.info()["last_txnid"])

    def size_bytes(self) -> int:
        """Of the file, as far as it was ever used."""
        info, stat = self._env.info(), self._env.stat()
        return (int(info["last_pgno"]) + 1) * int(stat["psize"])


class _Entered:
    """A transaction for the length of a `with`. A class, since each object that comes in enters five, and generators cost more."""

    __slots__ = ("_environment", "_env", "_writing", "_transaction")

    def __init__(self, environment: Environment, env: lmdb.Environment, *, writing: bool) -> None:
        self._environment, self._env, self._writing = environment, env, writing

    def __enter__(self) -> "Transaction":
        try:
            self._transaction = self._env.begin(write=self._writing)
        except lmdb.Error as error:
            raise self._environment.told(error) from error
        return Transaction(self._transaction, self._environment.tables, self._environment.bare, writing=self._writing)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None:
            try:
                self._transaction.commit()
            except lmdb.Error as failed:
                raise self._environment.told(failed) from failed
            return
        self._transaction.abort()
        if isinstance(error, lmdb.Error):
            raise self._environment.told(error) from error


def _reserve(path: Path) -> None:
    """Give the lock file its blocks: it is written through a mapping, where a full disk kills the process instead of failing a call.

    Before LMDB opens it: closing any descriptor of the file drops every lock that the process has on it (POSIX), by which LMDB knows
    that a process lives.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        os.posix_fallocate(fd, 0, READERS_MAX * READER_BYTES + LOCK_HEADER_BYTES)
    except OSError as error:
        raise full_or_same(error) from error
    finally:
        os.close(fd)


class Transaction:
    """Keys and values of named tables, each value under its CRC (but for those of bare tables).

    Attributes
    ----------
    writing : bool
        What it sees may be undone, so nothing of it is to be remembered.
    """

    def __init__(
        self, transaction: lmdb.Transaction, tables: dict[str, Any], bare: frozenset[str] = frozenset(), *, writing: bool = False
    ) -> None:
        self._t, self._tables, self._bare, self.writing = transaction, tables, bare, writing
        self._cursors: dict[str, lmdb.Cursor] = {}

    def _cursor(self, table: str) -> lmdb.Cursor:
        """One that is kept for as long as the transaction; for a look that is over when its method ends."""
        found = self._cursors.get(table)
        if found is None:
            found = self._cursors[table] = self._t.cursor(db=self._tables[table])
        return found

    def _wrap(self, table: str, key: bytes, value: bytes) -> bytes:
        return value if table in self._bare else _CRC.pack(crc32(value, crc32(key))) + value

    def _unwrap(self, table: str, key: bytes, data: bytes) -> bytes:
        if table in self._bare:
            return data
        value = data[4:]
        if len(data) < 4 or _CRC.unpack_from(data)[0] != crc32(value, crc32(key)):
            raise Damaged(f"the index is damaged: a value of table {table!r} does not match its CRC; stop the node and run rebuild-index")
        return value

    def get(self, table: str, key: bytes) -> bytes | None:
        data = self._t.get(key, db=self._tables[table])
        return None if data is None else self._unwrap(table, key, bytes(data))

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self._t.put(key, self._wrap(table, key, value), db=self._tables[table])

    def append(self, table: str, key: bytes, value: bytes) -> None:
        """Put behind the last key, mostly: that fills pages, where a put halves them."""
        data = self._wrap(table, key, value)
        if not self._t.put(key, data, db=self._tables[table], append=True):
            self._t.put(key, data, db=self._tables[table])

    def add(self, table: str, key: bytes, value: bytes) -> None:
        """One more value under a key (of a table that allows it)."""
        self._t.put(key, self._wrap(table, key, value), db=self._tables[table], dupdata=True)

    def add_all(self, table: str, items: list[tuple[bytes, bytes]]) -> None:
        """Keys, each with one more value."""
        self._cursor(table).putmulti([(key, self._wrap(table, key, value)) for key, value in items], dupdata=True)

    def delete(self, table: str, key: bytes) -> None:
        self._t.delete(key, db=self._tables[table])

    def remove(self, table: str, key: bytes, value: bytes) -> None:
        """One of a key's values."""
        self._t.delete(key, self._wrap(table, key, value), db=self._tables[table])

    def get_all(self, table: str, key: bytes) -> list[bytes]:
        """Every value of a key."""
        with self._t.cursor(db=self._tables[table]) as cursor:
            if not cursor.set_key(key):
                return []
            return [self._unwrap(table, key, bytes(data)) for data in cursor.iternext_dup()]

    def get_from(self, table: str, key: bytes, start: bytes, prefix: bytes) -> list[bytes]:
        """Those values of a key that begin with a prefix, from `start` on, which is as long as they are."""
        cursor = self._cursor(table)
        out: list[bytes] = []
        found = cursor.set_range_dup(key, start)
        while found and (data := bytes(cursor.value())).startswith(prefix):
            out.append(self._unwrap(table, key, data))
            found = cursor.next_dup()
        return out

    def get_last(self, table: str, key: bytes) -> tuple[bytes, bytes] | None:
        """The last key that does not lie behind another, and its value."""
        cursor = self._cursor(table)
        if not (cursor.set_range(key) and (bytes(cursor.key()) == key or cursor.prev()) or cursor.last() and bytes(cursor.key()) <= key):
            return None
        found = bytes(cursor.key())
        return found, self._unwrap(table, found, bytes(cursor.value()))

    def scan(self, table: str, prefix: bytes = b"", start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Keys with a prefix (from `start` on) and their values, in order of key."""
        with self._t.cursor(db=self._tables[table]) as cursor:
            first = max(prefix, start)
            if not (cursor.set_range(first) if first else cursor.first()):
                return
            for found, data in cursor:
                key = bytes(found)
                if not key.startswith(prefix):
                    return
                yield key, self._unwrap(table, key, bytes(data))

    def keys_before(self, table: str, prefix: bytes, before: bytes, most: int) -> list[bytes]:
        """Up to `most` keys with a prefix that lie before a key, from the last to the first."""
        out: list[bytes] = []
        with self._t.cursor(db=self._tables[table]) as cursor:
            found = cursor.prev() if cursor.set_range(before) else cursor.last()
            while found and len(out) < most and (key := bytes(cursor.key())).startswith(prefix):
                out.append(key)
                found = cursor.prev()
        return out

    def count(self, table: str) -> int:
        return int(self._t.stat(db=self._tables[table])["entries"])

    def last_key(self, table: str) -> bytes | None:
        with self._t.cursor(db=self._tables[table]) as cursor:
            return bytes(cursor.key()) if cursor.last() else None

    def empty(self, table: str) -> None:
        self._t.drop(self._tables[table], delete=False)
