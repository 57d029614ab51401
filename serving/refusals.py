"""Every refusal in the shape of OpenAI's API: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as AnyHTTPException

from serving.schemas import ErrorBody, ErrorDetail


class Refusal(HTTPException):
    """A request that is not answered, and why. `param` names the field that is at fault."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers)
        self.param, self.code = param, code


def body(status: int, message: str, param: str | None = None, code: str | None = None) -> ErrorBody:
    """The body of an error. Lone surrogates, which JSON can smuggle in but UTF-8 cannot carry, are replaced."""
    clean = message.encode(errors="replace").decode()
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return ErrorBody(error=ErrorDetail(message=clean, type=kind, param=param, code=code))


def response(error: AnyHTTPException) -> JSONResponse:
    """The response for a refusal, or for one of the framework's own."""
    param, code = getattr(error, "param", None), getattr(error, "code", None)
    content = body(error.status_code, str(error.detail), param, code).model_dump()
    return JSONResponse(content, error.status_code, error.headers)


def install(app: FastAPI) -> None:
    """Answer in this shape whatever goes wrong."""
    app.add_exception_handler(AnyHTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _failed)


async def _http(request: Request, error: Exception) -> JSONResponse:
    known = cast("AnyHTTPException", error)
    if isinstance(error, Refusal) or known.status_code not in (404, 405):
        return response(known)
    message = f"{known.detail}: {request.method} {request.url.path}; GET /openapi.json lists the routes"
    return response(AnyHTTPException(known.status_code, message, known.headers))


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """The first field that does not fit, with all that was said about it: a union says one thing for each arm."""
    errors = cast("RequestValidationError", error).errors()
    fields = [_field(e) for e in errors]
    said = [e["msg"] for e, field in zip(errors, fields, strict=True) if field == fields[0]]
    message = "; ".join(dict.fromkeys(s.removeprefix("Value error, ") for s in said))
    return response(Refusal(400, f"{fields[0]}: {message}" if fields[0] else message, param=fields[0]))


def _field(error: Mapping[str, object]) -> str | None:
    """The name of the field: that of the rule that was broken, or else the first step into the body."""
    context, location = cast("dict[str, str]", error.get("ctx", {})), cast("tuple[str | int, ...]", error["loc"])
    name = context.get("param") or (location[1] if len(location) > 1 else None)
    return name.encode(errors="replace").decode() if isinstance(name, str) else None


async def _failed(request: Request, error: Exception) -> JSONResponse:
    return response(Refusal(500, "the server failed; its log says why"))
