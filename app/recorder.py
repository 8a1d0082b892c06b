"""Record predictions and corrections without waiting for the database; lose no correction while it is unreachable.

A background thread writes to the database. New predictions go there directly, the last one of each drawing, a few times
per second; while the database is unreachable, they go into the spool, a file on this machine. A correction is in the
spool before it is acknowledged, and leaves it once the database has it. A row may therefore be sent twice; `Store.save`
stores it once.
"""

import logging
import sqlite3
import threading
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from app.spool import Spool, SpoolFull, one_each
from app.store import Drawing, Store

logger = logging.getLogger("app.recorder")

ROUND = 0.25  # seconds between two writes of predictions
PATIENCE = 0.5  # seconds that a correction waits for the database to store it
RETRY = 1.0  # seconds between attempts while the database is unreachable
BATCH = 100  # rows per write to the database: few enough that predictions are not held up meanwhile
RECENT = 4_096  # drawings kept in memory
SPOOL_LIMIT = 100_000  # rows; beyond that, and without the database, only corrections are kept


class UnknownDrawing(LookupError):
    """There is no prediction for this drawing."""


class AlreadyKnown(ValueError):
    """The drawing already has a correction."""


class DatabaseUnreachable(RuntimeError):
    """The request needs the database, which is unreachable."""


class Recorder:
    """Accepts predictions and corrections immediately, and writes them to the store when it is reachable."""

    def __init__(self, store: Store, spool: Spool) -> None:
        self._store, self._spool = store, spool
        self._lock = threading.Lock()  # guards the next three; never held during file or database access
        self._recent: OrderedDict[uuid.UUID, Drawing] = OrderedDict()
        self._pending: dict[uuid.UUID, Drawing] = {}  # by drawing: its latest prediction
        self._moving = 0  # predictions on their way from there to the store or the spool
        self._wake, self._stopping, self._drained = threading.Event(), threading.Event(), threading.Condition()
        self.online = True  # whether the last write to the database succeeded
        self.dropped = 0  # predictions lost because the spool was full or not writable
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread that writes to the database runs."""
        return self._thread.is_alive()

    def predicted(self, row: Drawing) -> None:
        """Queue a prediction. Returns immediately."""
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

        Raises UnknownDrawing if there is no prediction for it, AlreadyKnown if it has another correction,
        DatabaseUnreachable if only the database could have the drawing, and SpoolFull if the disk is full. Of
        contradicting corrections that several servers get at once, the database decides which one counts.
        """
        found = self._recent.get(id) or self._spool.find(id) or self._find_in_store(id)
        if found is None:
            raise UnknownDrawing("there is no prediction for this drawing, expected the id of a predicted drawing")
        place = None if found.truth is not None else self._spool.add_correction(replace(found, truth=truth))
        if place is None:
            raise AlreadyKnown("a correction for this drawing is already recorded")
        self._remember(replace(found, truth=truth))
        self._wake.set()
        with self._drained:
            if not self.online or not self._drained.wait_for(lambda: not self._spool.holds(place), PATIENCE):
                return False
        counts = self._truth_in_store(id)
        if counts is not None and counts != truth:
            self._remember(replace(found, truth=counts))
            raise AlreadyKnown("another correction for this drawing was recorded first")
        return counts is not None

    def _remember(self, corrected: Drawing) -> None:
        with self._lock:
            self._pending.pop(corrected.id, None)
            self._recent[corrected.id] = corrected

    def _find_in_store(self, id: uuid.UUID) -> Drawing | None:
        unreachable = DatabaseUnreachable("the database is unreachable, and only it has this drawing: try again later")
        if not self.online:
            raise unreachable
        try:
            return self._store.find(id)
        except SQLAlchemyError:
            raise unreachable from None

    def _truth_in_store(self, id: uuid.UUID) -> int | None:
        try:
            return self._store.truths([id]).get(id)
        except SQLAlchemyError:  # it went away after it stored the correction
            return None

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

    # -----------------------------------------------------------------------------------------------------------------
    # In the background thread
    # -----------------------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait(ROUND if self.online else RETRY)
            self._wake.clear()
            self._move()
        self._move()

    def _move(self) -> None:
        """Move rows to the store: first those of the spool, which are older, then new predictions."""
        try:
            self._drain()
            self._move_predictions()
        except Exception:  # the thread must go on: without it, nothing would be recorded until the next start
            logger.exception("rows could not be moved to the database")
        with self._drained:
            self._drained.notify_all()

    def _drain(self) -> None:
        """Move rows from the spool to the store until the spool is empty or the store fails."""
        try:
            while waiting := self._spool.first(BATCH):
                rows = one_each([row for _, row in waiting])
                self._save(rows)
                self._report_contradicted(rows)
                self._spool.drop([place for place, _ in waiting])
            if not self.online:
                self._store.check()
                logger.info("the database is reachable again")
            self.online = True
        except (SQLAlchemyError, sqlite3.Error, SpoolFull) as error:
            self._note_unreachable(error)

    def _note_unreachable(self, error: Exception) -> None:
        if self.online:
            reason = str(getattr(error, "orig", error)).split("\n")[0]
            logger.warning("the database is unreachable, new rows stay in the spool", extra={"reason": reason})
        self.online = False

    def _move_predictions(self) -> None:
        """Move new predictions to the store or, if it is unreachable, to the spool."""
        with self._lock:
            rows, self._pending = list(self._pending.values()), {}
            self._moving = len(rows)  # at once: no row is out of sight while it moves
        try:
            while rows and self.online:
                try:
                    self._save(rows[:BATCH])
                    rows = rows[BATCH:]
                except (SQLAlchemyError, SpoolFull) as error:
                    self._note_unreachable(error)
            self._spool_or_drop(rows)
        finally:
            self._moving = 0

    def _spool_or_drop(self, rows: list[Drawing]) -> None:
        if not rows:
            return
        try:
            if len(self._spool) + len(rows) <= SPOOL_LIMIT:
                self._spool.add(rows)
                return
        except (sqlite3.Error, SpoolFull):
            logger.exception("cannot write to the spool, predictions are not recorded")
        self.dropped += len(rows)

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

    def _report_contradicted(self, rows: Sequence[Drawing]) -> None:
        """Set corrections aside that came too late: another server's counts. A correction sent twice is no such case."""
        told = {row.id: row for row in rows if row.truth is not None}
        if not told:
            return
        counting = self._store.truths(list(told))
        for id, row in told.items():
            if counting.get(id, row.truth) != row.truth:
                logger.warning("a correction contradicts an earlier one and is kept in the spool's table `refused`")
                self._spool.set_aside(row)
