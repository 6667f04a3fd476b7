"""Errors as OpenAI's clients read them: {"error": {"message", "type", "param", "code"}} and a status.

add_refusals(app)
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from app.errors import (
    EaselError,
    Filtered,
    FilterUnavailable,
    Forbidden,
    InputRefused,
    NotFound,
    QuotaExceeded,
    StoreError,
    TooLarge,
    TooMany,
    Unauthorized,
)
from dialog_mllm.errors import ContextTooLong, DialogError, DialogTimeout, DialogUnavailable, MessageError
from generator.errors import GeneratorError, QueueFull, RequestError

UNEXPECTED = "Something went wrong that should not have. Try again; the server's log says more."


def add_refusals(app: FastAPI) -> None:
    @app.exception_handler(EaselError)
    @app.exception_handler(DialogError)
    @app.exception_handler(GeneratorError)
    async def refuse(request: Request, error: Exception) -> JSONResponse:
        return refusal(error)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return refusal(InputRefused(f"The request is no valid JSON: {first['ctx']['error']}."))
        field = ".".join(str(part) for part in first["loc"] if part != "body")
        return refusal(InputRefused(f"The request is malformed: {field or 'body'}: {first['msg']}."), field or None)

    @app.exception_handler(HTTPException)
    async def not_there(request: Request, error: HTTPException) -> JSONResponse:
        kind = {400: InputRefused, 404: NotFound, 413: TooLarge}.get(error.status_code, EaselError)
        return JSONResponse(error_body(kind(str(error.detail)), status=error.status_code), error.status_code)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        return refusal(EaselError(UNEXPECTED))


def refusal(error: Exception, param: str | None = None) -> JSONResponse:
    status = status_of(error)
    headers = {"Connection": "close"} if status == 413 else {"WWW-Authenticate": "Bearer"} if status == 401 else None
    if isinstance(error, TooMany):
        headers = {"Retry-After": str(error.retry_after)}
    return JSONResponse(error_body(error, param), status, headers)


def status_of(error: Exception | None) -> int:
    match error:
        case InputRefused() | Filtered() | MessageError() | ContextTooLong() | RequestError():
            return 400
        case Unauthorized():
            return 401
        case Forbidden() | QuotaExceeded():
            return 403
        case NotFound():
            return 404
        case TooLarge():
            return 413
        case QueueFull() | TooMany():
            return 429
        case StoreError():
            return 507
        case DialogTimeout():
            return 504
        case DialogUnavailable() | FilterUnavailable():
            return 503
    return 500


def error_body(error: Exception, param: str | None = None, status: int | None = None) -> dict[str, Any]:
    kind = "invalid_request_error" if (status or status_of(error)) < 500 else "server_error"
    return {"error": {"message": str(error), "type": kind, "param": param, "code": type(error).__name__}}
