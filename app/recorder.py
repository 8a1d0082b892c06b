"""Record predictions and corrections without waiting for the database; lose no correction while it is unreachable.

A background thread writes to the database. New predictions go there directly, the last one of each drawing, a few times
per second; while the database is unreachable, they go into the spool, a file on this machine. A correction, or the
taking back of one, is in the spool before it is acknowledged, and leaves it once the database has it. A row may therefore
be sent twice; `Store.save` stores it once.
"""

import itertools
import logging
import sqlite3
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from app.spool import Spool, SpoolFull, one_each
from app.store import Drawing, Label, Store

logger = logging.getLogger("app.recorder")

SETTLING = 0.25  # seconds in which later predictions of a drawing take the place of earlier ones
TICK = 0.05  # seconds between two writes of predictions: often and few, so that answers are not held up
PATIENCE = 0.5  # seconds that a correction waits for the database to store it
RETRY = 1.0  # seconds between attempts while the database is unreachable
BATCH = 500  # rows per write to the database
RECENT = 4_096  # drawings kept in memory
SPOOL_LIMIT = 100_000  # rows; beyond that, and without the database, only corrections are kept


class UnknownDrawing(LookupError):
    """There is no prediction for this drawing."""


class AlreadyKnown(ValueError):
    """The drawing already has a correction."""


class NothingToTakeBack(ValueError):
    """The drawing has no correction."""


class DatabaseUnreachable(RuntimeError):
    """The request needs the database, which is unreachable."""


class Recorder:
    """Accepts predictions and corrections immediately, and writes them to the store when it is reachable."""

    def __init__(self, store: Store, spool: Spool) -> None:
        self._store, self._spool = store, spool
        self._lock = threading.Lock()  # guards the next three; never held during file or database access
        self._recent: OrderedDict[uuid.UUID, Drawing] = OrderedDict()
        self._pending: dict[uuid.UUID, tuple[float, Drawing]] = {}  # when to write it, and its latest prediction
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
            if known and known.retracted:
                row = replace(row, retracted=known.retracted)
            due, _ = self._pending.get(row.id, (time.monotonic() + SETTLING, row))
            self._pending[row.id] = due, row  # in its old place: the first to be written is the first of them
            self._recent[row.id] = row
            self._recent.move_to_end(row.id)
            while len(self._recent) > RECENT:
                self._recent.popitem(last=False)

    def corrected(self, id: uuid.UUID, truth: int) -> bool:
        """Record the correct digit of a drawing on disk. Returns True if the database has stored it too.

        Raises UnknownDrawing if there is no prediction for it, AlreadyKnown if it has another correction,
        DatabaseUnreachable if only the database could have the drawing, and SpoolFull if the disk is full. Of
        contradicting corrections that several servers get at once, the database decides which one counts.
        """
        known = self._find(id, lambda known: known.truth is None)
        if known.truth is not None:
            raise AlreadyKnown("a correction for this drawing is already recorded")
        return self._record(replace(known, truth=truth))

    def retracted(self, id: uuid.UUID) -> bool:
        """Take the correction of a drawing back, and record that on disk. Returns True if the database has it too.

        Raises NothingToTakeBack if the drawing has no correction, and otherwise what `corrected` raises.
        """
        known = self._find(id, lambda known: known.truth is not None)
        if known.truth is None:
            raise NothingToTakeBack("this drawing has no correction that could be taken back")
        return self._record(replace(known, truth=None, retracted=known.retracted + 1))

    def forget(self, id: uuid.UUID) -> None:
        """Drop what is in memory of a drawing, such as one that was deleted."""
        with self._lock:
            self._pending.pop(id, None)
            self._recent.pop(id, None)

    def _find(self, id: uuid.UUID, is_expected: Callable[[Drawing], bool]) -> Drawing:
        """Return what is known of a drawing. Looks into the database if it is unknown here, or not as expected: then
        another server may know better.
        """
        known = self._recent.get(id) or self._spool.find(id)
        if known is None:
            known = self._find_in_store(id)
        elif not is_expected(known) and self.online:
            with suppress(DatabaseUnreachable):
                stored = self._find_in_store(id)
                known = stored if stored and stored.turn > known.turn else known
        if known is None:
            raise UnknownDrawing("there is no prediction for this drawing, expected the id of a predicted drawing")
        return known

    def _record(self, row: Drawing) -> bool:
        """Record a row whose label has changed on disk. Returns True if the database has stored it too.

        Raises AlreadyKnown if the label was changed elsewhere before.
        """
        place = self._spool.add_turn(row)
        if place is None:
            raise AlreadyKnown("a correction for this drawing is already recorded")
        self._remember(row)
        self._wake.set()
        with self._drained:
            self._drained.wait_for(lambda: not self.online or not self._spool.holds(place), PATIENCE)
        if self._spool.holds(place):
            return False
        counts = self._label_in_store(row.id)
        if counts is None:
            return False
        if self._recent.get(row.id, row) is not row:  # it was stored, and has changed again
            return True
        if counts.truth is None and row.truth is not None:  # another server has taken an earlier correction back
            return self._record(replace(row, retracted=counts.retracted))
        if counts != (row.truth, row.retracted):
            self._remember(replace(row, truth=counts.truth, retracted=counts.retracted))
            raise AlreadyKnown("another correction for this drawing was recorded first")
        return True

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

    def _label_in_store(self, id: uuid.UUID) -> Label | None:
        try:
            return self._store.labels([id]).get(id)
        except SQLAlchemyError:  # it went away after it stored the correction
            return None

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
            self._wake.wait(RETRY if not self.online else TICK if self._pending else SETTLING)
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
        """Move predictions that are due to the store or, if it is unreachable, to the spool."""
        with self._lock:
            now = float("inf") if self._stopping.is_set() else time.monotonic()
            rows = [row for _, row in itertools.takewhile(lambda pending: pending[0] <= now, self._pending.values())]
            for row in rows:
                del self._pending[row.id]
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
        counting = self._store.labels(list(told))
        for id, row in told.items():
            if counting.get(id, Label(row.truth, row.retracted)) != (row.truth, row.retracted):
                logger.warning("a correction contradicts an earlier one and is kept in the spool's table `refused`")
                self._spool.set_aside(row)
