"""Record predictions and corrections without waiting for the database; lose no correction while it is unreachable.

Rows go into a spool, a file on this machine. A background thread writes them to the database in order, and removes them
from the spool once the database has them. A row may therefore be sent twice; `Store.save` stores it once.
"""

import json
import logging
import sqlite3
import threading
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path

from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from app.store import Drawing, Store

logger = logging.getLogger("app.recorder")

ROUND = 0.25  # seconds between two writes of predictions to the spool
PATIENCE = 0.5  # seconds that a correction waits for the database to store it
RETRY = 1.0  # seconds between attempts while the database is unreachable
BATCH = 500  # rows per write to the database
RECENT = 4_096  # drawings kept in memory
SPOOL_LIMIT = 100_000  # rows; beyond that, and without the database, only corrections are kept


class UnknownDrawing(LookupError):
    """There is no prediction for this drawing."""


class AlreadyKnown(ValueError):
    """The drawing already has a correction."""


class DatabaseUnreachable(RuntimeError):
    """The request needs the database, which is unreachable."""


class Spool:
    """A queue of rows in a SQLite file, oldest first."""

    def __init__(self, path: Path) -> None:
        """Open or create the file. Raises OSError if it cannot be written or is not a spool."""
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
        except (OSError, sqlite3.Error) as error:
            raise OSError(f"the spool {path} cannot be used ({error}): set APP_DATA to another folder") from None

    def add(self, rows: Sequence[Drawing]) -> None:
        """Append rows; when this returns, they are on disk."""
        with self._lock, self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(
                "INSERT INTO rows (id, row) VALUES (?, ?)", [(row.id.hex, _pack(row)) for row in rows]
            )

    def first(self, count: int) -> list[tuple[int, Drawing]]:
        """Return up to `count` of the oldest rows, each with its place in the queue."""
        with self._lock, closing(self._connection.cursor()) as cursor:
            found = cursor.execute("SELECT place, row FROM rows ORDER BY place LIMIT ?", [count]).fetchall()
        return [(place, _unpack(row)) for place, row in found]

    def drop(self, places: Sequence[int]) -> None:
        """Remove the rows at these places."""
        with self._lock, self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("DELETE FROM rows WHERE place = ?", [(place,) for place in places])

    def set_aside(self, row: Drawing) -> None:
        """Keep a row that the database rejects in the table `refused`, so that it does not block the others."""
        with self._lock:
            self._connection.execute("INSERT INTO refused VALUES (?)", [_pack(row)])

    def find(self, id: uuid.UUID) -> Drawing | None:
        """Return the row of a drawing that counts, or None: a prediction may have come in after its correction."""
        with self._lock, closing(self._connection.cursor()) as cursor:
            found = cursor.execute("SELECT row FROM rows WHERE id = ? ORDER BY place", [id.hex]).fetchall()
        return _one_each([_unpack(row) for (row,) in found])[0] if found else None

    def __len__(self) -> int:
        with self._lock, closing(self._connection.cursor()) as cursor:
            return cursor.execute("SELECT count(*) FROM rows").fetchone()[0]

    def close(self) -> None:
        with self._lock:
            self._connection.close()


def _pack(row: Drawing) -> str:
    plain = asdict(row) | {"id": row.id.hex, "drawn_at": row.drawn_at.isoformat()}
    return json.dumps(plain | {"image": row.image.hex() if row.image else None})


def _unpack(text: str) -> Drawing:
    plain = json.loads(text)
    plain["id"], plain["drawn_at"] = uuid.UUID(plain["id"]), datetime.fromisoformat(plain["drawn_at"])
    plain["image"] = bytes.fromhex(plain["image"]) if plain["image"] else None
    return Drawing(**plain)


class Recorder:
    """Accepts predictions and corrections immediately, and writes them to the store when it is reachable."""

    def __init__(self, store: Store, spool: Spool) -> None:
        self._store, self._spool = store, spool
        self._lock = threading.Lock()  # guards the next three; never held during file or database access
        self._recent: OrderedDict[uuid.UUID, Drawing] = OrderedDict()
        self._pending: dict[uuid.UUID, Drawing] = {}  # by drawing: its latest prediction
        self._moving = 0  # predictions on their way from there to the spool
        self._correcting = threading.Lock()
        self._wake, self._stopping, self._drained = threading.Event(), threading.Event(), threading.Condition()
        self.online = True  # whether the last write to the database succeeded
        self.dropped = 0  # predictions lost because the spool was full or not writable
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
        self._thread.start()

    def predicted(self, row: Drawing) -> None:
        """Queue a prediction for the spool. Returns immediately."""
        with self._lock:
            known = self._recent.get(row.id)
            if known and known.truth is not None:
                return
            self._recent[row.id] = self._pending[row.id] = row
            self._recent.move_to_end(row.id)
            while len(self._recent) > RECENT:
                self._recent.popitem(last=False)

    def corrected(self, id: uuid.UUID, truth: int) -> bool:
        """Record the correct digit of a drawing on disk. Returns True if the database has stored it too.

        Raises UnknownDrawing if there is no prediction for it, AlreadyKnown if it has a correction, and
        DatabaseUnreachable if only the database could have the drawing.
        """
        found = self._recent.get(id) or self._spool.find(id) or self._find_in_store(id)
        if found is None:
            raise UnknownDrawing("there is no prediction for this drawing, expected the id of a predicted drawing")
        with self._correcting:
            row = self._recent.get(id, found)  # another thread may have corrected it meanwhile
            if row.truth is not None:
                raise AlreadyKnown("a correction for this drawing is already recorded")
            row = replace(row, truth=truth)
            self._spool.add([row])
            with self._lock:
                self._pending.pop(id, None)
                self._recent[id] = row
        self._wake.set()
        with self._drained:
            return self.online and self._drained.wait_for(lambda: not self._spool.find(id), PATIENCE)

    def _find_in_store(self, id: uuid.UUID) -> Drawing | None:
        unreachable = DatabaseUnreachable("the database is unreachable, and only it has this drawing: try again later")
        if not self.online:
            raise unreachable
        try:
            return self._store.find(id)
        except SQLAlchemyError:
            raise unreachable from None

    def statistics(self) -> dict[str, object]:
        """Return `Store.statistics`. Raises DatabaseUnreachable, immediately if the last write failed."""
        unreachable = DatabaseUnreachable("the database is unreachable: there are no statistics until it is back")
        if not self.online:
            raise unreachable
        try:
            return self._store.statistics()
        except SQLAlchemyError:
            raise unreachable from None

    def waiting(self) -> int:
        """Return the number of rows not yet in the database."""
        return len(self._spool) + len(self._pending) + self._moving

    def stop(self) -> None:
        """Write the remaining rows to the store or, if it is unreachable, to the spool, and close both."""
        self._stopping.set()
        self._wake.set()
        self._thread.join()
        self._spool.close()
        self._store.close()

    def _work(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait(ROUND if self.online else RETRY)
            self._wake.clear()
            self._gather()
            self._drain()
        self._gather()
        self._drain()

    def _gather(self) -> None:
        """Move pending predictions into the spool."""
        with self._lock:
            rows, self._pending = list(self._pending.values()), {}
            self._moving = len(rows)  # at once: no row is out of sight while it moves
        try:
            self._spool_or_drop(rows)
        finally:
            self._moving = 0

    def _spool_or_drop(self, rows: list[Drawing]) -> None:
        if not rows:
            return
        if not self.online and len(self._spool) + len(rows) > SPOOL_LIMIT:
            self.dropped += len(rows)
            return
        try:
            self._spool.add(rows)
        except sqlite3.Error:
            self.dropped += len(rows)
            logger.exception("cannot write to the spool, predictions are not recorded")

    def _drain(self) -> None:
        """Move rows from the spool to the store until the spool is empty or the store fails."""
        try:
            while waiting := self._spool.first(BATCH):
                self._save(_one_each([row for _, row in waiting]))
                self._spool.drop([place for place, _ in waiting])
            if not self.online:
                self._store.check()
                logger.info("the database is reachable again")
            self.online = True
        except (SQLAlchemyError, sqlite3.Error) as error:
            if self.online:
                reason = str(getattr(error, "orig", error)).split("\n")[0]
                logger.warning("the database is unreachable, new rows stay in the spool", extra={"reason": reason})
            self.online = False
        with self._drained:
            self._drained.notify_all()

    def _save(self, rows: Sequence[Drawing]) -> None:
        """Save all rows at once. If the database rejects the batch, save them one by one and set the bad ones aside."""
        try:
            self._store.save(rows)
        except (DataError, IntegrityError):
            if len(rows) > 1:
                for row in rows:
                    self._save([row])
                return
            logger.exception("the database rejected a row, which is kept in the spool's table `refused`")
            self._spool.set_aside(rows[0])


def _one_each(rows: Sequence[Drawing]) -> list[Drawing]:
    """Keep one row per drawing, since one upsert cannot change a row twice: the first with a label, else the last."""
    counting: dict[uuid.UUID, Drawing] = {}
    for row in rows:
        if row.id not in counting or counting[row.id].truth is None:
            counting[row.id] = row
    return list(counting.values())
