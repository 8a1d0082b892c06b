"""Drawings in a SQLite or PostgreSQL database, and statistics over them."""

import sqlite3
import uuid
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import ClassVar

import sqlalchemy as sa
from pydantic import ConfigDict
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.pool import QueuePool
from sqlalchemy.schema import CreateIndex, CreateTable

from app.network import DIGITS

LATEST = 12  # number of mistakes in the statistics


class UtcDateTime(sa.TypeDecorator):
    """A timestamp in UTC. SQLite drops the time zone, so it is added back on reading."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return value.astimezone(timezone.utc) if value else None

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return value.replace(tzinfo=timezone.utc) if value and not value.tzinfo else value


drawings = sa.Table(
    "drawings",
    sa.MetaData(),
    sa.Column("id", sa.Uuid, primary_key=True),  # chosen by the client, so that a row sent twice is stored once
    sa.Column("drawn_at", UtcDateTime, nullable=False, index=True),
    sa.Column("network", sa.Text, nullable=False),
    sa.Column("image", sa.LargeBinary, nullable=True),  # 28 x 28 bytes, the network's input
    sa.Column("probabilities", sa.JSON, nullable=False),
    sa.Column("prediction", sa.SmallInteger, nullable=False),
    sa.Column("confidence", sa.Float, nullable=False),
    sa.Column("truth", sa.SmallInteger, nullable=True),
    sa.CheckConstraint(f"prediction BETWEEN 0 AND {DIGITS - 1}"),
    sa.CheckConstraint(f"truth BETWEEN 0 AND {DIGITS - 1}"),
)


@dataclass(frozen=True)
class Drawing:
    """One drawing with the network's prediction and, if a user gave one, the correct label (`truth`)."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid", ser_json_bytes="hex", val_json_bytes="hex")  # as JSON

    id: uuid.UUID
    drawn_at: datetime
    network: str
    image: bytes | None
    probabilities: list[float]
    prediction: int
    confidence: float
    truth: int | None = None


class Store:
    """A database of drawings. If it is unreachable, methods raise SQLAlchemy's DBAPIError, soon."""

    def __init__(self, url: sa.URL, timeout: int) -> None:
        """`timeout`: seconds to wait for a database that does not answer."""
        self._postgres = url.get_backend_name() == "postgresql"
        milliseconds = 1_000 * timeout
        if self._postgres:
            connect = {
                "connect_timeout": max(2, timeout),  # libpq's minimum
                "tcp_user_timeout": milliseconds,  # for connections whose peer has gone
                "options": f"-c statement_timeout={milliseconds} -c timezone=UTC",
            }
        else:
            connect = {"timeout": timeout, "check_same_thread": False}
        self._engine = sa.create_engine(
            url,
            connect_args=connect,
            poolclass=QueuePool,
            pool_size=2,
            max_overflow=2,
            pool_timeout=timeout,
            pool_pre_ping=True,
        )
        if not self._postgres:
            sa.event.listen(self._engine, "connect", _set_up_sqlite)
        self._has_tables = False

    def _begin(self) -> AbstractContextManager[sa.Connection]:
        if not self._has_tables:
            self._create_tables()
        return self._engine.begin()

    def _create_tables(self) -> None:
        """Create missing tables. If several processes start at once, one creates them and the others wait."""
        with self._engine.begin() as connection:
            if self._postgres:
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(7)"))
            connection.execute(CreateTable(drawings, if_not_exists=True))
            for index in drawings.indexes:
                connection.execute(CreateIndex(index, if_not_exists=True))
        self._has_tables = True

    def expect_intact(self) -> None:
        """Raise ValueError if the database is a SQLite file that is damaged or cannot be opened."""
        if self._postgres:
            return
        advice = "move the file away, or set APP_DATA or DATABASE_URL to another place"
        try:
            with self._begin() as connection:
                found = connection.execute(sa.text("PRAGMA quick_check(1)")).scalar_one()
        except sa.exc.DatabaseError as error:
            found = str(error.orig)
        if found not in ("ok", "database is locked"):  # locked: by a server that works with it
            raise ValueError(f"the database {self._engine.url.database} cannot be used ({found}): {advice}")

    def check(self) -> None:
        """Raise an SQLAlchemyError if the database is unreachable."""
        with self._begin() as connection:
            connection.execute(sa.select(1))

    def save(self, rows: Sequence[Drawing]) -> None:
        """Save all rows or none. An existing row is replaced unless it has a label, so saving a row twice is safe."""
        if not rows:
            return
        insert = (postgresql if self._postgres else sqlite).insert(drawings)
        changed = {column.name: insert.excluded[column.name] for column in drawings.columns if column.name != "id"}
        statement = insert.on_conflict_do_update(index_elements=["id"], set_=changed, where=drawings.c.truth.is_(None))
        with self._begin() as connection:
            connection.execute(statement, [vars(row) for row in rows])

    def find(self, id: uuid.UUID) -> Drawing | None:
        """Return the drawing with this id, or None."""
        with self._begin() as connection:
            row = connection.execute(sa.select(drawings).where(drawings.c.id == id)).one_or_none()
        return Drawing(**row._mapping) if row else None

    def truths(self, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, int]:
        """Return the labels of those of these drawings that have one."""
        known = sa.select(drawings.c.id, drawings.c.truth).where(drawings.c.id.in_(ids), drawings.c.truth.is_not(None))
        with self._begin() as connection:
            return {row.id: row.truth for row in connection.execute(known)}

    def statistics(self) -> dict[str, object]:
        """Return what the page shows: counts, accuracy in percent of the labeled drawings, and the latest mistakes."""
        known = drawings.c.truth.is_not(None)
        wrong = known & (drawings.c.truth != drawings.c.prediction)
        pairs = sa.select(
            drawings.c.truth, drawings.c.prediction, sa.func.count(), sa.func.avg(drawings.c.confidence)
        ).where(known)
        latest = sa.select(drawings).where(wrong).order_by(drawings.c.drawn_at.desc()).limit(LATEST)
        with self._begin() as connection:
            total = connection.execute(sa.select(sa.func.count()).select_from(drawings)).scalar_one()
            counts = connection.execute(pairs.group_by(drawings.c.truth, drawings.c.prediction)).all()
            mistakes = [Drawing(**row._mapping) for row in connection.execute(latest)]
        return _summarize(total, counts) | {"latest_mistakes": [_shown(mistake) for mistake in mistakes]}

    def close(self) -> None:
        self._engine.dispose()


def _set_up_sqlite(connection: sqlite3.Connection, record: object) -> None:
    connection.execute("PRAGMA journal_mode=WAL")  # readers do not wait for writers


def _summarize(total: int, counts: Sequence[tuple[int, int, int, float]]) -> dict[str, object]:
    matrix = [[0] * DIGITS for _ in range(DIGITS)]
    sums = {True: [0, 0.0], False: [0, 0.0]}  # correct or not: [images, sum of confidences]
    for truth, prediction, count, confidence in counts:
        matrix[truth][prediction] = count
        sums[truth == prediction][0] += count
        sums[truth == prediction][1] += count * confidence
    (right, sure_right), (wrong, sure_wrong) = sums[True], sums[False]
    return {
        "predictions": total,
        "known": right + wrong,
        "right": right,
        "accuracy": _percent(right, right + wrong),
        "confidence_right": _percent(sure_right, right),
        "confidence_wrong": _percent(sure_wrong, wrong),
        "confusion_matrix": matrix,  # rows: labels, columns: predictions
        "digits": [
            {"known": sum(row), "right": row[digit], "accuracy": _percent(row[digit], sum(row))}
            for digit, row in enumerate(matrix)
        ],
    }


def _percent(part: float, whole: float) -> float | None:
    return 100 * part / whole if whole else None


def _shown(mistake: Drawing) -> dict[str, object]:
    """Return what the page shows of a mistake: nothing about who drew it, or when."""
    return {
        "truth": mistake.truth,
        "prediction": mistake.prediction,
        "confidence": 100 * mistake.confidence,
        "image": list(mistake.image) if mistake.image else None,
    }
