"""`python -m app`: serve the page and its API."""

import gc
import logging
import os
import socket
import sys
import time
from contextlib import suppress

import uvicorn
from pydantic import ValidationError
from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from app.connections import ConnectionLimits, LimitedProtocol
from app.memory import keep_freed_memory
from app.server import make_app
from app.settings import Settings

COLLECT = 20_000  # new objects after which Python looks for garbage: some twenty predictions make as many
SWITCH = 0.0005  # seconds after which a thread at work lets the one that answers go on; Python's own is ten times that


def main() -> None:
    """Serve until stopped. Invalid settings print one sentence to stderr and exit with code 2."""
    _log_as_json()
    try:
        settings = Settings()
        listening = _listen(settings)  # before anything is written to disk
        app = make_app(settings)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        sys.exit(_refuse(f"{'.'.join(map(str, first['loc']))} is invalid: {first['msg']}"))
    except (ValueError, OSError) as error:
        sys.exit(_refuse(str(error)))
    host, port = listening.getsockname()[:2]
    print(f"http://{host}:{port}/")
    token = app.state.printed_token
    print(f"for the teacher: http://{host}:{port}/teacher.html{f'#token={token}' if token else ''}", flush=True)
    server = uvicorn.Server(
        uvicorn.Config(
            app, http=_protocol(settings), ws="none", log_config=None, access_log=False, timeout_graceful_shutdown=5
        )
    )
    sys.setswitchinterval(SWITCH)
    keep_freed_memory()
    gc.freeze()  # what is loaded by now stays: looking through it again and again would hold predictions up
    gc.set_threshold(COLLECT)
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listening])


def _protocol(settings: Settings) -> type[LimitedProtocol]:
    """Uvicorn creates a protocol per connection; all share the limits."""

    class Protocol(LimitedProtocol):
        limits = ConnectionLimits(
            settings.connections, settings.connections_per_client, settings.header_seconds, settings.body_seconds
        )

    return Protocol


def _refuse(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return 2


def _listen(settings: Settings) -> socket.socket:
    try:
        return socket.create_server((settings.host, settings.port), backlog=512)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        address = f"{settings.host}:{settings.port}"
        raise OSError(f"cannot listen on {address} ({reason}): set APP_PORT to another port") from None


def _log_as_json() -> None:
    """Log one JSON object per line, with times in UTC. On a terminal, log only warnings and errors."""
    formatter = JsonFormatter(
        "%(asctime)s %(levelname)s %(name)s %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%SZ",
        rename_fields={"asctime": "time", "levelname": "level"},
        reserved_attrs=[*RESERVED_ATTRS, "color_message"],  # uvicorn's colored copy of the message
    )
    formatter.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    level = logging.WARNING if sys.stderr.isatty() else logging.INFO
    logging.basicConfig(level=level, handlers=[handler], force=True)


if __name__ == "__main__":
    main()
