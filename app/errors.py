"""Errors become one-sentence JSON that never echoes the input."""

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from app import digit
from app.classroom import UnknownClass
from app.recorder import AlreadyKnown, DatabaseUnreachable, NothingToTakeBack, UnknownDrawing
from app.spool import SpoolFull

STATUS = {  # HTTP status of each error
    digit.NotAPicture: 415,
    digit.TooLarge: 413,
    digit.Unreadable: 422,
    digit.NoDigit: 422,
    UnknownDrawing: 404,
    UnknownClass: 404,
    AlreadyKnown: 409,
    NothingToTakeBack: 409,
    DatabaseUnreachable: 503,
    SpoolFull: 507,
}
INVALID_ID = "the drawing's id is invalid, expected a UUID"
UNEXPECTED = "something went wrong on the server, see its log for details"


def add_errors(app: FastAPI) -> None:
    """Add the handlers of errors to the app."""

    async def refuse(request: Request, error: Exception) -> JSONResponse:
        status = STATUS.get(type(error), 500)
        sentence = str(error) if type(error) in STATUS else UNEXPECTED
        return JSONResponse({"error": sentence}, status)

    for kind in (*STATUS, Exception):
        app.add_exception_handler(kind, refuse)

    @app.exception_handler(StarletteHTTPException)
    async def refuse_request(request: Request, error: StarletteHTTPException) -> JSONResponse:
        known = {404: "there is nothing at this address", 405: "this address does not support this method"}
        sentence = error.detail if isinstance(error, HTTPException) else known.get(error.status_code, error.detail)
        return JSONResponse({"error": sentence}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def refuse_parameter(request: Request, error: RequestValidationError) -> JSONResponse:
        name = error.errors()[0]["loc"][-1]
        return JSONResponse({"error": INVALID_ID if name == "drawing" else f"the {name} is invalid"}, 422)
