"""A queue of rows on disk: what the database does not have yet."""

import logging
import sqlite3
import threading
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from app.store import Drawing

logger = logging.getLogger("app.recorder")

ROW = TypeAdapter(Drawing)  # to JSON and back


class SpoolFull(RuntimeError):
    """The disk takes no more rows."""


class Spool:
    """A queue of rows in a SQLite file, oldest first. Several processes may share the file."""

    def __init__(self, path: Path) -> None:
        """Open or create the file. Raises OSError if it cannot be written, is damaged, or is not a spool."""
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=5)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")  # a commit returns once the data is on disk
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS rows (place INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT, row TEXT)"
            )
            self._connection.execute("CREATE INDEX IF NOT EXISTS rows_by_id ON rows (id)")
            self._connection.execute("CREATE TABLE IF NOT EXISTS refused (row TEXT)")
            (found,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise sqlite3.DatabaseError(found.splitlines()[-1])
        except (OSError, sqlite3.Error) as error:
            raise OSError(f"the spool {path} cannot be used ({error}): set APP_DATA to another folder") from None

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Cursor]:
        """A transaction; when it ends, its rows are on disk. Raises SpoolFull if they cannot be written."""
        try:
            with self._lock, self._connection, closing(self._connection.cursor()) as cursor:
                cursor.execute("BEGIN IMMEDIATE")
                yield cursor
        except sqlite3.Error as error:
            logger.error("cannot write to the spool", extra={"reason": str(error)})  # noqa: TRY400 (the reason is all)
            raise SpoolFull("this server's disk is full or cannot be written: this was not recorded") from None

    def add(self, rows: Sequence[Drawing]) -> None:
        """Append rows; when this returns, they are on disk. Raises SpoolFull."""
        with self._writing() as cursor:
            cursor.executemany("INSERT INTO rows (id, row) VALUES (?, ?)", [(row.id.hex, _pack(row)) for row in rows])

    def add_turn(self, row: Drawing) -> int | None:
        """Append a row whose label has changed and return its place, or None if this or a later turn of it is waiting.

        Of several threads and processes that share the file, one succeeds. Raises SpoolFull.
        """
        with self._writing() as cursor:
            found = _readable(cursor.execute("SELECT place, row FROM rows WHERE id = ?", [row.id.hex]))
            if any(waiting.turn >= row.turn for _, waiting in found):
                return None
            cursor.execute("INSERT INTO rows (id, row) VALUES (?, ?)", [row.id.hex, _pack(row)])
            return cursor.lastrowid

    def first(self, count: int) -> list[tuple[int, Drawing]]:
        """Return up to `count` of the oldest rows, each with its place in the queue.

        Rows that cannot be read (damaged, or of another version) are set aside, so that they do not block the others.
        """
        while True:
            with self._lock, closing(self._connection.cursor()) as cursor:
                found = cursor.execute("SELECT place, row FROM rows ORDER BY place LIMIT ?", [count]).fetchall()
            rows = list(_readable(found))
            readable = {place for place, _ in rows}
            if len(rows) == len(found):
                return rows
            for place, text in found:
                if place not in readable:
                    self._set_aside(place, text)

    def _set_aside(self, place: int, text: str) -> None:
        logger.error("a row of the spool cannot be read and is kept in its table `refused`", extra={"place": place})
        with self._writing() as cursor:
            cursor.execute("INSERT INTO refused VALUES (?)", [text])
            cursor.execute("DELETE FROM rows WHERE place = ?", [place])

    def set_aside(self, row: Drawing) -> None:
        """Keep a row that the database rejects in the table `refused`, so that it does not block the others."""
        with self._writing() as cursor:
            cursor.execute("INSERT INTO refused VALUES (?)", [_pack(row)])

    def drop(self, places: Sequence[int]) -> None:
        """Remove the rows at these places."""
        with self._writing() as cursor:
            cursor.executemany("DELETE FROM rows WHERE place = ?", [(place,) for place in places])

    def find(self, id: uuid.UUID) -> Drawing | None:
        """Return the row of a drawing that counts, or None: a prediction may have come in after its correction."""
        with self._lock, closing(self._connection.cursor()) as cursor:
            found = cursor.execute("SELECT place, row FROM rows WHERE id = ? ORDER BY place", [id.hex]).fetchall()
        rows = one_each([row for _, row in _readable(found)])
        return rows[0] if rows else None

    def holds(self, place: int) -> bool:
        """Return whether the row at this place is still there."""
        with self._lock, closing(self._connection.cursor()) as cursor:
            return cursor.execute("SELECT 1 FROM rows WHERE place = ?", [place]).fetchone() is not None

    def __len__(self) -> int:
        with self._lock, closing(self._connection.cursor()) as cursor:
            return cursor.execute("SELECT count(*) FROM rows").fetchone()[0]

    def close(self) -> None:
        with self._lock:
            self._connection.close()


def one_each(rows: Sequence[Drawing]) -> list[Drawing]:
    """Keep one row per drawing, since one upsert cannot change a row twice: the one that counts."""
    counting: dict[uuid.UUID, Drawing] = {}
    for row in rows:
        if row.id not in counting or row.replaces(counting[row.id]):
            counting[row.id] = row
    return list(counting.values())


def _pack(row: Drawing) -> str:
    return ROW.dump_json(row).decode()


def _readable(found: Iterable[tuple[int, str]]) -> Iterator[tuple[int, Drawing]]:
    """Parse rows; leave out what is no row of this version."""
    for place, text in found:
        with suppress(ValidationError):
            yield place, ROW.validate_json(text)
