"""What a teacher sees and does: classes, their drawings, and hiding or deleting some of them."""

import hashlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Generic, Literal, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.recorder import DatabaseUnreachable, Recorder, UnknownDrawing
from app.store import (
    COLUMNS,
    CURRENT_KEEPS_IMAGES,
    DELETED,
    FOREVER,
    HIDDEN,
    NOT_DELETED,
    SHOWN,
    Drawing,
    Store,
    UtcDateTime,
    classes,
    drawings,
    in_class,
)

ON_WALL = 16  # drawings that the projector shows
ON_PAGE = 60  # drawings on one page of the teacher's list
EXPORTED = 500  # drawings that the export reads at a time
SECONDS = 1.0  # how long statistics may be old: thirty pages ask for them every few seconds

Which = Literal["all", "mistakes", "hidden"]
Value = TypeVar("Value")


class UnknownClass(LookupError):
    """There is no class with this number."""


class Kept(Generic[Value]):
    """A value that is made at most once per SECONDS, whoever asks."""

    def __init__(self, make: Callable[[], Value]) -> None:
        self._make, self._lock = make, threading.Lock()
        self._made: tuple[float, Value] | None = None
        self._outdated = 0  # how often

    def get(self) -> Value:
        """Return the value, which is at most SECONDS old. Raises what making it raises."""
        with self._lock:
            if self._made and time.monotonic() - self._made[0] <= SECONDS:
                return self._made[1]
            outdated, value = self._outdated, self._make()
            self._made = (time.monotonic(), value) if outdated == self._outdated else None
            return value

    def outdate(self) -> None:
        """Let the next `get` make the value again, also if one is being made now."""
        self._outdated += 1
        self._made = None


class Classroom:
    """Classes and their drawings in the store.

    While the database is unreachable, all but `keeps_images` raise DatabaseUnreachable, immediately if the recorder's last
    write failed.
    """

    def __init__(self, store: Store, recorder: Recorder) -> None:
        self._store, self._recorder = store, recorder
        self._statistics = Kept(lambda: self._counted(None))
        self._wall = Kept(self._seen)

    @contextmanager
    def _begin(self) -> Iterator[sa.Connection]:
        with self._reaching(), self._store.begin() as connection:
            yield connection

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        unreachable = DatabaseUnreachable("the database is unreachable: there are no statistics until it is back")
        if not self._recorder.online:
            raise unreachable
        try:
            yield
        except (InterfaceError, OperationalError, PoolTimeout):
            raise unreachable from None

    def outdate(self) -> None:
        """Let statistics and wall be read again, since something has changed."""
        self._statistics.outdate()
        self._wall.outdate()

    # -----------------------------------------------------------------------------------------------------------------
    # For everybody: the current class
    # -----------------------------------------------------------------------------------------------------------------

    def statistics(self, number: int | None = None) -> dict[str, object]:
        """Return `Store.statistics` of a class, by default the current one: then at most SECONDS old.

        Raises UnknownClass.
        """
        if number is None:
            with self._reaching():
                return self._statistics.get()
        self._expect(number)
        return self._counted(number)

    def _counted(self, number: int | None) -> dict[str, object]:
        with self._reaching():
            return self._store.statistics(number)

    def wall(self) -> dict[str, object]:
        """Return what the projector shows, at most SECONDS old: the latest drawings of the current class, newest first,
        with nothing about who drew them, and the statistics.
        """
        with self._reaching():
            return self._wall.get()

    def _seen(self) -> dict[str, object]:
        latest = sa.select(*COLUMNS).where(in_class(None), drawings.c.state == SHOWN)
        with self._begin() as connection:
            rows = connection.execute(latest.order_by(drawings.c.drawn_at.desc()).limit(ON_WALL)).all()
            name, number = connection.execute(
                sa.select(classes.c.name, classes.c.number).order_by(classes.c.started_at.desc()).limit(1)
            ).one()
        on_wall = [_on_wall(Drawing(**row._mapping)) for row in rows]
        return {"class": {"number": number, "name": name}, "drawings": on_wall, "statistics": self._statistics.get()}

    def keeps_images(self) -> bool:
        """Return whether the current class keeps images; while the database is unreachable, what it last said."""
        try:
            with self._begin() as connection:
                self._store.ask_for_images(connection)
        except DatabaseUnreachable:
            pass
        return self._store.keeps_images

    # -----------------------------------------------------------------------------------------------------------------
    # For the teacher
    # -----------------------------------------------------------------------------------------------------------------

    def classes(self) -> list[dict[str, object]]:
        """Return all classes, the current one first, with the number of their drawings that are shown."""
        end = sa.func.lead(classes.c.started_at, type_=UtcDateTime).over(order_by=classes.c.started_at)
        spans = sa.select(classes, end.label("ended_at")).cte("spans")
        belongs = sa.and_(
            drawings.c.drawn_at >= spans.c.started_at,
            drawings.c.drawn_at < sa.func.coalesce(spans.c.ended_at, sa.literal(FOREVER, UtcDateTime)),
            drawings.c.state == SHOWN,
        )
        counted = (
            sa.select(
                spans.c.number,
                spans.c.name,
                spans.c.started_at,
                sa.func.min(drawings.c.drawn_at, type_=UtcDateTime).label("first_drawn_at"),
                sa.func.count(drawings.c.id).label("drawings"),
                sa.func.count(drawings.c.truth).label("known"),
            )
            .select_from(spans.outerjoin(drawings, belongs))
            .group_by(spans.c.number, spans.c.name, spans.c.started_at)
            .order_by(spans.c.started_at.desc())
        )
        with self._begin() as connection:
            return [dict(row._mapping) for row in connection.execute(counted)]

    def start(self, name: str) -> int:
        """Start a new class, to which all drawings from now on belong. Returns its number."""
        with self._begin() as connection:
            keeps_images = connection.execute(CURRENT_KEEPS_IMAGES).scalar_one()
            number = connection.execute(sa.select(sa.func.max(classes.c.number) + 1)).scalar_one()
            values = {
                "number": number,
                "name": name,
                "started_at": datetime.now(timezone.utc),
                "keeps_images": keeps_images,
            }
            connection.execute(sa.insert(classes).values(values))
        self.outdate()
        return number

    def keep_images(self, keeps: bool) -> None:
        """Let the current class, and those after it, keep images of drawings or not. Images that are kept stay."""
        current = sa.select(sa.func.max(classes.c.started_at)).scalar_subquery()
        with self._begin() as connection:
            connection.execute(sa.update(classes).where(classes.c.started_at == current).values(keeps_images=keeps))
            self._store.ask_for_images(connection)

    def drawings(self, number: int, which: Which, page: int) -> dict[str, object]:
        """Return a page of a class's drawings, newest first, each with its id. Raises UnknownClass."""
        self._expect(number)
        chosen = sa.and_(in_class(number), _CHOSEN[which])
        listed = sa.select(*COLUMNS, drawings.c.state).where(chosen).order_by(*_NEWEST_FIRST)
        with self._begin() as connection:
            total = connection.execute(sa.select(sa.func.count()).select_from(drawings).where(chosen)).scalar_one()
            rows = connection.execute(listed.offset(ON_PAGE * page).limit(ON_PAGE)).all()
        return {"total": total, "per_page": ON_PAGE, "drawings": [_listed(row) for row in rows]}

    def hide(self, id: uuid.UUID, hidden: bool) -> None:
        """Hide a drawing, which is then neither shown nor counted, or show it again. Raises UnknownDrawing."""
        self._change(id, {"state": HIDDEN if hidden else SHOWN})

    def delete(self, id: uuid.UUID) -> None:
        """Delete what is stored of a drawing but its id, so that it does not come back. Raises UnknownDrawing."""
        nothing: dict[str, object] = {
            "network": "",
            "image": None,
            "probabilities": [],
            "prediction": 0,
            "confidence": 0.0,
            "truth": None,
            "doubt": "",
        }
        self._change(id, nothing | {"state": DELETED})
        self._recorder.forget(id)

    def _change(self, id: uuid.UUID, values: dict[str, object]) -> None:
        with self._begin() as connection:
            changed = connection.execute(sa.update(drawings).where(drawings.c.id == id, NOT_DELETED).values(values))
        if not changed.rowcount:
            raise UnknownDrawing("there is no such drawing in the database, expected the id of one")
        self.outdate()

    def exported(self, number: int) -> Iterator[list[Drawing]]:
        """Return all drawings of a class that are shown, oldest first, a few hundred at a time. Raises UnknownClass.

        No connection stays open between two parts, however slowly they are sent.
        """
        self._expect(number)
        chosen = sa.select(*COLUMNS).where(in_class(number), drawings.c.state == SHOWN)
        place = sa.tuple_(drawings.c.drawn_at, drawings.c.id)
        after = None
        while True:
            rest = chosen if after is None else chosen.where(place > sa.tuple_(*after, types=place.type.types))
            with self._begin() as connection:
                ordered = rest.order_by(drawings.c.drawn_at, drawings.c.id).limit(EXPORTED)
                part = [Drawing(**row._mapping) for row in connection.execute(ordered)]
            yield part
            if len(part) < EXPORTED:
                return
            after = (part[-1].drawn_at, part[-1].id)

    def _expect(self, number: int) -> None:
        with self._begin() as connection:
            numbers = connection.execute(sa.select(classes.c.number)).scalars().all()
        if number not in numbers:
            raise UnknownClass(f"there is no such class, expected a number from 1 to {max(numbers)}")


_NEWEST_FIRST = (drawings.c.drawn_at.desc(), drawings.c.id)
_CHOSEN: dict[Which, sa.ColumnElement[bool]] = {
    "all": NOT_DELETED,
    "mistakes": NOT_DELETED & drawings.c.truth.is_not(None) & (drawings.c.truth != drawings.c.prediction),
    "hidden": drawings.c.state == HIDDEN,
}


def _on_wall(drawing: Drawing) -> dict[str, object]:
    """Return what everybody may see. The key tells one drawing from another, but not its id, which allows to correct it."""
    key = hashlib.sha256(drawing.id.bytes).hexdigest()[:16]
    return {"key": key} | _answer(drawing)


def _answer(drawing: Drawing) -> dict[str, object]:
    return {
        "prediction": drawing.prediction,
        "confidence": drawing.confidence,
        "doubt": drawing.doubt,
        "truth": drawing.truth,
        "image": list(drawing.image) if drawing.image else None,
    }


def _listed(row: sa.Row) -> dict[str, object]:
    values = dict(row._mapping)
    state = values.pop("state")
    drawing = Drawing(**values)
    return {"id": drawing.id, "drawn_at": drawing.drawn_at, "state": state} | _answer(drawing)
