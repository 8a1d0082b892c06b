"""Drawings in a SQLite or PostgreSQL database, the classes that they belong to, and statistics over them."""

import sqlite3
import time
import uuid
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from datetime import datetime, timezone
from typing import Any, ClassVar, NamedTuple

import sqlalchemy as sa
from pydantic import ConfigDict, TypeAdapter
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.pool import QueuePool
from sqlalchemy.schema import CreateColumn, CreateIndex, CreateTable

from app.network import DIGITS

ASK_AGAIN = 1.0  # seconds after which the database is asked again whether images are kept
LATEST = 12  # number of mistakes in the statistics
SHOWN, HIDDEN, DELETED = "shown", "hidden", "deleted"  # a deleted drawing leaves its id, so that it does not come back
BEGINNING = datetime(1970, 1, 1, tzinfo=timezone.utc)  # when the first class started
FOREVER = datetime(9999, 12, 31, tzinfo=timezone.utc)


class UtcDateTime(sa.TypeDecorator):
    """A timestamp in UTC. SQLite drops the time zone, so it is added back on reading."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return value.astimezone(timezone.utc) if value else None

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return value.replace(tzinfo=timezone.utc) if value and not value.tzinfo else value


metadata = sa.MetaData()
drawings = sa.Table(
    "drawings",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),  # chosen by the client, so that a row sent twice is stored once
    sa.Column("drawn_at", UtcDateTime, nullable=False, index=True),
    sa.Column("network", sa.Text, nullable=False),
    sa.Column("image", sa.LargeBinary, nullable=True),  # 28 x 28 bytes, the network's input
    sa.Column("probabilities", sa.JSON, nullable=False),
    sa.Column("prediction", sa.SmallInteger, nullable=False),
    sa.Column("confidence", sa.Float, nullable=False),
    sa.Column("truth", sa.SmallInteger, nullable=True),
    # added when missing, to a table that an earlier version created
    sa.Column("retracted", sa.SmallInteger, nullable=False, server_default="0"),  # how many labels were taken back
    sa.Column("state", sa.Text, nullable=False, server_default=SHOWN),
    sa.Column("doubt", sa.Text, nullable=False, server_default=""),  # why the digit may be none, as the page said it
    sa.CheckConstraint(f"prediction BETWEEN 0 AND {DIGITS - 1}"),
    sa.CheckConstraint(f"truth BETWEEN 0 AND {DIGITS - 1}"),
)
# A class is what was drawn from its start until the start of the next. So every server agrees on a drawing's class, also
# on that of a drawing that waited for the database.
classes = sa.Table(
    "classes",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("started_at", UtcDateTime, nullable=False, unique=True),
    sa.Column("keeps_images", sa.Boolean, nullable=False),
)
FIRST_CLASS = {"number": 1, "name": "", "started_at": BEGINNING, "keeps_images": True}


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
    retracted: int = 0  # how many labels of this drawing were taken back
    doubt: str = ""  # why the digit may be none, see `app.doubt`

    @property
    def turn(self) -> int:
        """The number of times that the label changed: given, taken back, given again ..."""
        return 2 * self.retracted + (self.truth is not None)

    def replaces(self, other: "Drawing") -> bool:
        """Return whether this row takes the place of the other, of the same drawing, that came before it.

        The label's later turn counts; of contradicting labels, the first; of predictions, the last. `Store.save` does the
        same, so the order in which servers save rows does not matter, and neither does saving one twice.
        """
        return self.turn > other.turn or (self.turn == other.turn and self.truth is None)


ROWS = TypeAdapter(Sequence[Drawing])  # to JSON
COLUMNS = [drawings.c[field.name] for field in fields(Drawing)]
NOT_DELETED = drawings.c.state != DELETED
CURRENT_KEEPS_IMAGES = sa.select(classes.c.keeps_images).order_by(classes.c.started_at.desc()).limit(1)


def in_class(number: int | None) -> sa.ColumnElement[bool]:
    """Return the condition that a drawing belongs to the class with this number; None: to the current class."""
    if number is None:
        return drawings.c.drawn_at >= sa.select(sa.func.max(classes.c.started_at)).scalar_subquery()
    start = sa.select(classes.c.started_at).where(classes.c.number == number).scalar_subquery()
    following = classes.alias()
    end = sa.select(sa.func.min(following.c.started_at)).where(following.c.started_at > start).scalar_subquery()
    forever = sa.literal(FOREVER, UtcDateTime)
    return sa.and_(drawings.c.drawn_at >= start, drawings.c.drawn_at < sa.func.coalesce(end, forever))


class Label(NamedTuple):
    """The label of a drawing in the database."""

    truth: int | None
    retracted: int


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
        self._upsert = _make_upsert(_insert_json() if self._postgres else sqlite.insert(drawings))
        self._has_tables = False
        self.keeps_images = True  # whether the current class does, when last asked
        self._asked_at = -ASK_AGAIN

    def begin(self) -> AbstractContextManager[sa.Connection]:
        """Begin a transaction in a database that has the tables."""
        if not self._has_tables:
            self._create_tables()
        return self._engine.begin()

    def _create_tables(self) -> None:
        """Create missing tables and columns. If several processes start at once, one does and the others wait."""
        with self._engine.begin() as connection:
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(7)" if self._postgres else "BEGIN IMMEDIATE"))
            for table in metadata.sorted_tables:
                connection.execute(CreateTable(table, if_not_exists=True))
                for index in table.indexes:
                    connection.execute(CreateIndex(index, if_not_exists=True))
            present = {column["name"] for column in sa.inspect(connection).get_columns("drawings")}
            for column in drawings.columns:
                if column.name not in present:
                    added = CreateColumn(column).compile(dialect=connection.dialect)
                    connection.execute(sa.text(f"ALTER TABLE drawings ADD COLUMN {added}"))
            first = (postgresql if self._postgres else sqlite).insert(classes).values(FIRST_CLASS)
            connection.execute(first.on_conflict_do_nothing())
        self._has_tables = True

    def expect_intact(self) -> None:
        """Raise ValueError if the database is a SQLite file that is damaged or cannot be opened."""
        if self._postgres:
            return
        advice = "move the file away, or set APP_DATA or DATABASE_URL to another place"
        try:
            with self.begin() as connection:
                found = connection.execute(sa.text("PRAGMA quick_check(1)")).scalar_one()
        except sa.exc.DatabaseError as error:
            found = str(error.orig)
        if found not in ("ok", "database is locked"):  # locked: by a server that works with it
            raise ValueError(
                f"the database {self._engine.url.database} cannot be used ({found.splitlines()[-1]}): {advice}"
            )

    def check(self) -> None:
        """Raise an SQLAlchemyError if the database is unreachable."""
        with self.begin() as connection:
            connection.execute(sa.select(1))

    def save(self, rows: Sequence[Drawing]) -> None:
        """Save all rows or none, each of another drawing, where `Drawing.replaces` lets them, so saving a row twice is safe.

        If the current class keeps no images, rows are saved without theirs; of a class that another server changed, a
        server knows this after ASK_AGAIN seconds.
        """
        if not rows:
            return
        with self.begin() as connection:
            if time.monotonic() - self._asked_at >= ASK_AGAIN:  # not each time: rows come by the hundred per second
                self.ask_for_images(connection)
            kept = rows if self.keeps_images else [replace(row, image=None) for row in rows]
            if self._postgres:
                connection.execute(self._upsert, {"rows": ROWS.dump_json(kept).decode()})
            else:
                connection.execute(self._upsert, [vars(row) for row in kept])

    def ask_for_images(self, connection: sa.Connection) -> None:
        """Ask the database whether the current class keeps images."""
        self.keeps_images = connection.execute(CURRENT_KEEPS_IMAGES).scalar_one()
        self._asked_at = time.monotonic()

    def find(self, id: uuid.UUID) -> Drawing | None:
        """Return the drawing with this id, or None. A deleted one is not found."""
        with self.begin() as connection:
            row = connection.execute(sa.select(*COLUMNS).where(drawings.c.id == id, NOT_DELETED)).one_or_none()
        return Drawing(**row._mapping) if row else None

    def labels(self, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, Label]:
        """Return the labels of those of these drawings that are in the database."""
        found = sa.select(drawings.c.id, drawings.c.truth, drawings.c.retracted).where(
            drawings.c.id.in_(ids), NOT_DELETED
        )
        with self.begin() as connection:
            return {row.id: Label(row.truth, row.retracted) for row in connection.execute(found)}

    def statistics(self, number: int | None = None) -> dict[str, object]:
        """Return what the page shows of a class, by default the current one: counts, accuracy in percent of the labeled
        drawings, and the latest mistakes. Hidden drawings do not count.
        """
        shown = in_class(number) & (drawings.c.state == SHOWN)
        known = shown & drawings.c.truth.is_not(None)
        wrong = known & (drawings.c.truth != drawings.c.prediction)
        total = sa.select(sa.func.count()).select_from(drawings).where(shown)
        pairs = sa.select(
            drawings.c.truth, drawings.c.prediction, sa.func.count(), sa.func.avg(drawings.c.confidence)
        ).where(known)
        latest = sa.select(*COLUMNS).where(wrong).order_by(drawings.c.drawn_at.desc()).limit(LATEST)
        with self.begin() as connection:
            predictions = connection.execute(total).scalar_one()
            counts = connection.execute(pairs.group_by(drawings.c.truth, drawings.c.prediction)).all()
            mistakes = [Drawing(**row._mapping) for row in connection.execute(latest)]
        return _summarize(predictions, counts) | {"latest_mistakes": [_shown(mistake) for mistake in mistakes]}

    def close(self) -> None:
        self._engine.dispose()


def _insert_json() -> postgresql.Insert:
    """Return a statement that inserts all rows of a JSON array: PostgreSQL, and not this process, takes them apart."""
    array = sa.cast(sa.bindparam("rows", type_=sa.Text), sa.JSON)
    columns = [sa.column(column.name, sa.Text() if column.name == "image" else column.type) for column in COLUMNS]
    given = sa.func.json_to_recordset(array).table_valued(*columns).render_derived("given", with_types=True)
    values = [sa.func.decode(column, "hex") if column.name == "image" else column for column in given.c]
    return postgresql.insert(drawings).from_select([column.name for column in COLUMNS], sa.select(*values))


def _make_upsert(insert: postgresql.Insert | sqlite.Insert) -> postgresql.Insert | sqlite.Insert:
    """Return the statement of `Store.save`. It is made once, and its constants are no parameters: both cost time per row."""
    old, new = drawings.c, insert.excluded
    before, after = (
        sa.literal_column(f"(2 * {row}.retracted + CASE WHEN {row}.truth IS NULL THEN 0 ELSE 1 END)", sa.Integer)
        for row in ("drawings", "excluded")
    )  # `Drawing.turn`
    replaces = sa.or_(after > before, sa.and_(after == before, new.truth.is_(None)))
    is_there = old.state != sa.literal_column(f"'{DELETED}'")
    changed: dict[str, sa.ColumnElement[Any]] = {
        column.name: new[column.name] for column in COLUMNS if column.name != "id"
    }
    # A label does not take the image away that was kept before.
    changed["image"] = sa.case((after > before, sa.func.coalesce(new.image, old.image)), else_=new.image)
    return insert.on_conflict_do_update(index_elements=["id"], set_=changed, where=sa.and_(replaces, is_there))


def _set_up_sqlite(connection: sqlite3.Connection, record: object) -> None:
    for patience in (*[0.02] * 250, 0):  # SQLite does not wait by itself while another connection changes this
        try:
            connection.execute("PRAGMA journal_mode=WAL")  # readers do not wait for writers
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or not patience:
                raise
            time.sleep(patience)


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
