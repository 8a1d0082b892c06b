"""Settings from environment variables. By default the app serves this machine only, with SQLite."""

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

HERE = Path(__file__).parent


def _words(text: object) -> object:
    return re.split(r"[,\s]+", text.strip()) if isinstance(text, str) else text


def _as_sources(words: list[str]) -> list[str]:
    for word in words:
        if not re.fullmatch(r"[a-z][a-z0-9.+-]*:(//[*a-zA-Z0-9.:\[\]-]+/?)?", word):
            raise ValueError("expected sites such as https://example.org, separated by spaces")
    return words


def _as_address(text: str) -> str:
    if text and not re.fullmatch(r"https?://[^\s/]\S{0,500}", text):
        raise ValueError("expected an address such as https://digits.school.org/")
    return text


def _as_token(token: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[!-~]{16,}", token.get_secret_value()):
        raise ValueError("expected at least 16 letters, digits or signs of ASCII, without spaces")
    return token


Token = Annotated[SecretStr, AfterValidator(_as_token)]
Words = Annotated[list[str], NoDecode, BeforeValidator(_words)]  # separated by spaces or commas


class Settings(BaseSettings):
    """Variables are `APP_` plus the field's name in capitals; those of the database have their usual names."""

    model_config = SettingsConfigDict(env_prefix="APP_", env_ignore_empty=True, populate_by_name=True)

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65_535)  # 0: any free port
    network: Path = HERE / "step3.onnx"
    compare: Path = HERE / "step1.onnx"  # that the page shows beside it on request
    data: Path = Path("app-data")  # folder of the SQLite file and the spool
    store_drawings: bool = True  # if false, the database stores predictions without images
    database_timeout: int = Field(2, ge=1)  # seconds without an answer before the database counts as unreachable

    # What other sites may do. An IP address and localhost are always accepted as this server's name.
    hosts: Words = []  # names of this server, such as digits.school.org or *.school.org; * accepts any
    frames: Annotated[Words, AfterValidator(_as_sources)] = []  # sites that may show the page in a frame

    # For a class
    token: Token | None = None  # the teacher's; without it, a new one is printed at each start
    address: Annotated[str, AfterValidator(_as_address)] = (
        ""  # that students open; without it, the one a teacher opened
    )

    # Limits. A client is an address: a whole class may be behind one.
    requests_per_second: float = Field(500.0, gt=0)  # per client, on average; a large picture counts as several
    burst: int = Field(1_500, ge=1)  # requests that one client may make at once
    corrections_per_second: float = Field(20.0, gt=0)  # per client, on average, apart from other requests
    corrections_burst: int = Field(100, ge=1)
    in_work: int = Field(64, ge=1)  # requests of one client that may be in work; a large picture counts as several
    workers: int = Field(min(4, os.cpu_count() or 1), ge=1)  # threads that decode large pictures
    waiting: int = Field(32, ge=0)  # large pictures that may queue for a worker
    connections: int = Field(512, ge=1)  # open at a time
    connections_per_client: int = Field(256, ge=1)
    header_seconds: float = Field(10.0, gt=0)  # in which a request's header must arrive
    body_seconds: float = Field(30.0, gt=0)  # in which its body must arrive, and its response be read

    database_url: SecretStr | None = Field(None, validation_alias="DATABASE_URL")
    db_host: str | None = Field(None, validation_alias="DB_HOST")
    db_port: int = Field(5432, validation_alias="DB_PORT")
    db_name: str | None = Field(None, validation_alias="DB_NAME")
    db_user: str | None = Field(None, validation_alias="DB_USER")
    db_password: SecretStr | None = Field(None, validation_alias="DB_PASSWORD")

    @property
    def database(self) -> URL:
        """The SQLAlchemy URL: PostgreSQL if the environment configures it, else a SQLite file.

        Raises ValueError if DATABASE_URL is not a URL or has another driver.
        """
        if self.database_url:
            return _parse(self.database_url.get_secret_value())
        if self.db_host:
            return URL.create(
                "postgresql+psycopg",
                username=self.db_user,
                password=self.db_password.get_secret_value() if self.db_password else None,
                host=self.db_host,
                port=self.db_port,
                database=self.db_name,
            )
        return URL.create("sqlite", database=str(self.data / "drawings.sqlite"))


def _parse(address: str) -> URL:
    try:
        url = make_url(address)
    except ArgumentError:  # its message would show the URL, and with it the password
        raise ValueError("DATABASE_URL is not a valid URL, expected postgresql://USER:PASSWORD@HOST/NAME") from None
    if url.drivername in ("postgres", "postgresql"):
        return url.set(drivername="postgresql+psycopg")
    if url.drivername in ("sqlite", "postgresql+psycopg"):
        return url
    raise ValueError(f"DATABASE_URL has the driver {url.drivername}, expected postgresql or sqlite")
