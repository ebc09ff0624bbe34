"""What happens to every request before and after its route: who may come in, how much, for how long."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import traceback
import uuid
from contextlib import suppress
from urllib.parse import urlsplit

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from m6rec.serving.api.page import is_page
from m6rec.serving.api.problems import TYPES, problem, problem_of
from m6rec.serving.api.rate_limit import RateLimit
from m6rec.serving.api.routes import Service
from m6rec.serving.settings import ApiKey, is_loopback

log = logging.getLogger("m6rec.serving")

OPEN = ("/healthz", "/readyz")  # without a key, and whatever the load
EVERYTHING = ApiKey("admin")  # what callers of a service without keys may do
KEY_NEEDED = "an API key is needed: send the header 'Authorization: Bearer KEY'"
GONE = 499  # the client left before its answer; seen in logs and measurements only
_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)


class Gate:
    """What happens to every request before and after its route.

    Args:
        app: The routes.
        service: What they share.
    """

    def __init__(self, app: FastAPI, service: Service) -> None:
        self.app, self.service = app, service
        self._rate_limit = RateLimit(service.settings.key_rate, service.settings.key_burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request (ASGI)."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        scope["request_id"] = request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        traffic, began = self.service.traffic, time.perf_counter()
        status = GONE
        failure: Exception | None = None

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            try:
                async with asyncio.timeout(self.service.settings.deadline_s):
                    await send(message)
            except TimeoutError:
                raise _ClientGoneError from None  # it reads nothing

        traffic.running += 1
        try:
            refusal = self._refuse(scope)
            if refusal is None:
                body = await self._read(receive)
                await _until_gone(self.app, scope, body, receive, answer)
            else:
                await refusal(scope, receive, answer)
        except _ClientGoneError:
            pass
        except HTTPException as error:
            await (await problem_of(Request(scope), error))(scope, receive, answer)
        except Exception as error:
            # The framework has answered with 500 already; the trace, without any value in it, goes to the log only.
            failure = error
        finally:
            traffic.running -= 1
            self._tell(scope, status, time.perf_counter() - began, failure)

    def _refuse(self, scope: Scope) -> JSONResponse | None:
        """The answer to a request that must not come in."""
        if scope["path"] in OPEN:
            return None
        headers, service = Headers(scope=scope), self.service
        if service.keys is None and not service.settings.insecure and not is_loopback(_hostname(headers)):
            # A page in a browser of this machine can give its own name our address (DNS rebinding).
            message = "the service has no keys, so it must be called by a loopback name such as 127.0.0.1"
            return problem(scope, 403, TYPES[403], message)
        if is_page(scope["path"]):
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        key = EVERYTHING
        if service.keys is not None:
            found = service.keys.find(given.strip()) if scheme.lower() == "bearer" else None
            if found is None:
                return problem(scope, 401, TYPES[401], KEY_NEEDED, {"WWW-Authenticate": "Bearer"})
            key = found
            if wait_s := self._rate_limit.wait_s(key.digest):
                message = f"this key may send {service.settings.key_rate:g} requests a second; wait {wait_s} s"
                return problem(scope, 429, TYPES[429], message, {"Retry-After": str(wait_s)})
        scope["api_key"] = key
        if service.traffic.running > service.settings.max_concurrent or service.work.overloaded(scope["path"]):
            return problem(scope, 429, TYPES[429], "too many requests wait already; try again later")
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > service.settings.max_body_bytes:
            return problem(scope, 413, TYPES[413], self._too_large())
        return None

    def _too_large(self) -> str:
        return f"the body may have {self.service.settings.max_body_bytes} bytes; send less at once"

    async def _read(self, receive: Receive) -> bytes:
        """The whole body; HTTPException where it is too long or too slow."""
        body = bytearray()
        try:
            async with asyncio.timeout(self.service.settings.deadline_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _ClientGoneError
                    body += message.get("body", b"")
                    if len(body) > self.service.settings.max_body_bytes:
                        raise HTTPException(413, self._too_large())
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            raise HTTPException(408, f"the body did not come within {self.service.settings.deadline_s} s") from None

    def _tell(self, scope: Scope, status: int, seconds: float, failure: Exception | None) -> None:
        """Measures and logs a request, by the pattern of its route: paths and bodies can hold what users wrote."""
        route = getattr(scope.get("route"), "path", "unknown")
        self.service.measurements.requests.labels(route, status).inc()
        self.service.measurements.request_s.labels(route).observe(seconds)
        kind = scope.get("problem", "internal" if failure else "")
        self.service.traffic.add(route, scope["method"], status, seconds, scope["request_id"], kind)
        facts = {"request_id": scope["request_id"], "method": scope["method"], "route": route, "status": status}
        facts["ms"] = round(1e3 * seconds, 3)
        if failure is None:
            log.info("request", extra={"facts": facts})
        else:
            facts |= {"error": type(failure).__name__, "trace": traceback.format_tb(failure.__traceback__)}
            log.error("request", extra={"facts": facts})


def _hostname(headers: Headers) -> str:
    try:
        return urlsplit(f"//{headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""


class _ClientGoneError(Exception):
    """Nobody waits for an answer."""


async def _until_gone(app: ASGIApp, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
    """Runs the routes on a body that was read, and cancels them when the client leaves."""
    unread = [body]

    async def replay() -> Message:
        if unread:
            return {"type": "http.request", "body": unread.pop(), "more_body": False}
        return await receive()

    async def leave() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    route, left = asyncio.ensure_future(app(scope, replay, send)), asyncio.ensure_future(leave())
    try:
        await asyncio.wait((route, left), return_when=asyncio.FIRST_COMPLETED)
        if not route.done():
            route.cancel()
            with suppress(asyncio.CancelledError):
                await route
            raise _ClientGoneError
        await route
    finally:
        route.cancel()
        left.cancel()
