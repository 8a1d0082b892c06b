"""Between the answers and the database: nobody waits for it, and what it was told while it was away is not lost.

What is to be recorded goes into a spool, a file on this machine, and from there into the database, in order, by a thread
of its own; it leaves the spool when the database has it. A row may so come twice, and is saved once (`Store.save`).
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

ROUND = 0.25  # seconds in which predictions are gathered
PATIENCE = 0.5  # seconds that a correction waits to see whether the database has it
RETRY = 1.0  # seconds between two tries while the database is away
BATCH = 500  # rows
RECENT = 4_096  # drawings that are kept in memory
SPOOL_LIMIT = 100_000  # rows of predictions; with a truth they are kept beyond that


class UnknownDrawing(LookupError):
    """No prediction was made for it."""


class AlreadyKnown(ValueError):
    """Somebody has said already what it was."""


class DatabaseAway(RuntimeError):
    """It cannot be told now, since the database is away."""


class Spool:
    """Rows in a file, in the order in which they came."""

    def __init__(self, path: Path) -> None:
        """Raises OSError for a file that cannot be written, or that is none of a spool."""
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=5)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")  # on disk when it is said to be
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS rows (place INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT, row TEXT)"
            )
            self._connection.execute("CREATE INDEX IF NOT EXISTS rows_by_id ON rows (id)")
            self._connection.execute("CREATE TABLE IF NOT EXISTS refused (row TEXT)")
        except (OSError, sqlite3.Error) as error:
            raise OSError(f"the spool {path} cannot be used ({error}): set APP_DATA to a folder for it") from None

    def add(self, rows: Sequence[Drawing]) -> None:
        with self._lock, self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(
                "INSERT INTO rows (id, row) VALUES (?, ?)", [(row.id.hex, _pack(row)) for row in rows]
            )

    def first(self, count: int) -> list[tuple[int, Drawing]]:
        """The oldest rows with their places."""
        with self._lock, closing(self._connection.cursor()) as cursor:
            found = cursor.execute("SELECT place, row FROM rows ORDER BY place LIMIT ?", [count]).fetchall()
        return [(place, _unpack(row)) for place, row in found]

    def drop(self, places: Sequence[int]) -> None:
        with self._lock, self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("DELETE FROM rows WHERE place = ?", [(place,) for place in places])

    def set_aside(self, row: Drawing) -> None:
        """Keep a row that the database does not take, out of the way of the others."""
        with self._lock:
            self._connection.execute("INSERT INTO refused VALUES (?)", [_pack(row)])

    def find(self, id: uuid.UUID) -> Drawing | None:
        """The last row of a drawing."""
        with self._lock, closing(self._connection.cursor()) as cursor:
            query = "SELECT row FROM rows WHERE id = ? ORDER BY place DESC LIMIT 1"
            found = cursor.execute(query, [id.hex]).fetchone()
        return _unpack(found[0]) if found else None

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
    """Takes predictions and truths, at once, and brings them into the store, when it can."""

    def __init__(self, store: Store, spool: Spool) -> None:
        self._store, self._spool = store, spool
        self._lock = threading.Lock()  # of the two below, and never held while a file or a database is waited for
        self._recent: OrderedDict[uuid.UUID, Drawing] = OrderedDict()
        self._pending: dict[uuid.UUID, Drawing] = {}  # of a drawing, the last prediction counts
        self._correcting = threading.Lock()
        self._wake, self._stopping, self._drained = threading.Event(), threading.Event(), threading.Condition()
        self.online = True  # whether the database took what it was last given
        self.dropped = 0  # predictions that found the spool full
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
        self._thread.start()

    def predicted(self, row: Drawing) -> None:
        """A prediction was made. Waits for nothing."""
        with self._lock:
            known = self._recent.get(row.id)
            if known and known.truth is not None:
                return
            self._recent[row.id] = self._pending[row.id] = row
            self._recent.move_to_end(row.id)
            while len(self._recent) > RECENT:
                self._recent.popitem(last=False)

    def corrected(self, id: uuid.UUID, truth: int) -> bool:
        """Somebody says what a drawing was: when this returns, it is on disk. Whether the database has it too.

        Raises UnknownDrawing, AlreadyKnown, and DatabaseAway where only the database could tell.
        """
        found = self._recent.get(id) or self._spool.find(id) or self._find_in_store(id)
        if found is None:
            raise UnknownDrawing("there is no prediction for this drawing, expected one that was made before")
        with self._correcting:
            row = self._recent.get(id, found)  # meanwhile somebody else may have told
            if row.truth is not None:
                raise AlreadyKnown("it is recorded already what this drawing was")
            row = replace(row, truth=truth)
            self._spool.add([row])
            with self._lock:
                self._pending.pop(id, None)
                self._recent[id] = row
        self._wake.set()
        with self._drained:
            return self.online and self._drained.wait_for(lambda: not self._spool.find(id), PATIENCE)

    def _find_in_store(self, id: uuid.UUID) -> Drawing | None:
        away = DatabaseAway("the database is away, and only it knows this drawing: try again later")
        if not self.online:
            raise away
        try:
            return self._store.find(id)
        except SQLAlchemyError:
            raise away from None

    def statistics(self) -> dict[str, object]:
        """Of the store. Raises DatabaseAway, at once where that is known."""
        away = DatabaseAway("the database is away: there are no statistics until it is back")
        if not self.online:
            raise away
        try:
            return self._store.statistics()
        except SQLAlchemyError:
            raise away from None

    def waiting(self) -> int:
        """Rows that the database does not have yet."""
        return len(self._spool) + len(self._pending)

    def stop(self) -> None:
        """Bring what is left into the store, or at least into the spool."""
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
        """Predictions into the spool."""
        with self._lock:
            rows, self._pending = list(self._pending.values()), {}
        if not rows:
            return
        if not self.online and len(self._spool) + len(rows) > SPOOL_LIMIT:
            self.dropped += len(rows)
            return
        try:
            self._spool.add(rows)
        except sqlite3.Error:
            self.dropped += len(rows)
            logger.exception("the spool cannot be written, predictions are not recorded")

    def _drain(self) -> None:
        """From the spool into the store, as long as that takes them."""
        try:
            while waiting := self._spool.first(BATCH):
                self._save(_one_each([row for _, row in waiting]))
                self._spool.drop([place for place, _ in waiting])
            if not self.online:
                self._store.check()
                logger.info("the database is back")
            self.online = True
        except (SQLAlchemyError, sqlite3.Error) as error:
            if self.online:
                reason = str(getattr(error, "orig", error)).split("\n")[0]
                logger.warning("the database is away, the spool keeps what comes", extra={"reason": reason})
            self.online = False
        with self._drained:
            self._drained.notify_all()

    def _save(self, rows: Sequence[Drawing]) -> None:
        """All of them at once; where one is not taken for what is in it, each by itself."""
        try:
            self._store.save(rows)
        except (DataError, IntegrityError):
            if len(rows) > 1:
                for row in rows:
                    self._save([row])
                return
            logger.exception("the database refuses a row, which is kept in the spool's table `refused`")
            self._spool.set_aside(rows[0])


def _one_each(rows: Sequence[Drawing]) -> list[Drawing]:
    """Of each drawing the row that counts: the first with a truth, else the last. One statement takes a row but once."""
    counting: dict[uuid.UUID, Drawing] = {}
    for row in rows:
        if row.id not in counting or counting[row.id].truth is None:
            counting[row.id] = row
    return list(counting.values())
