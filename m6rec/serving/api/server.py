"""The service as a process: where it listens, how it stops and reloads, what it logs."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from m6rec.errors import ConfigError
from m6rec.serving.api.app import create_app
from m6rec.serving.api.gate import Gate
from m6rec.serving.api.problems import ReloadError
from m6rec.serving.backend import LocalBackend
from m6rec.serving.settings import Settings

if TYPE_CHECKING:
    from m6rec.foundation.states import CacheStatistics
    from m6rec.serving.deployment import Deployment
    from m6rec.serving.project_files import ProjectFiles

log = logging.getLogger("m6rec.serving")


def serve(
    backend: LocalBackend,
    settings: Settings,
    *,
    reload: Callable[[], None] | None = None,
    statistics: Callable[[], CacheStatistics] | None = None,
    deployment: Callable[[], Deployment] | None = None,
    files: Callable[[], ProjectFiles] | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, and returns when the last answer is out. SIGHUP reloads.

    Args:
        backend: See ``create_app``.
        settings: See there.
        reload: See there.
        statistics: See there.
        deployment: See there.
        files: See there.

    Raises:
        ConfigError: The address can't be listened at, or the file of keys can't be used.
    """
    gate = create_app(backend, settings, reload=reload, statistics=statistics, deployment=deployment, files=files)
    Server(gate).run(sockets=[bind(settings)])


def log_to_stderr() -> None:
    """Writes the log to stderr from here on, one line of JSON a record."""
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonLines())
    for name, level in (("m6rec", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.addHandler(handler)


def bind(settings: Settings) -> socket.socket:
    """The socket to serve from. Raises ConfigError where the address can't be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # asyncio turns Nagle's delay of 40 ms off only where the protocol is named.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise ConfigError(f"can't listen at {settings.host}:{settings.port} ({error}); give another --port") from error
    return listener


class Server(uvicorn.Server):
    """Drains before it stops, reloads at SIGHUP, and ends without passing the signal on, so that the exit code is 0.

    Args:
        gate: What ``create_app`` made.
    """

    def __init__(self, gate: Gate) -> None:
        self._service = gate.service
        config = uvicorn.Config(
            gate,
            lifespan="on",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=int(gate.service.settings.deadline_s) + 1,
        )
        super().__init__(config)
        self._swaps: set[asyncio.Task[None]] = set()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """First signal: drain, then stop. Second: stop as soon as the answers are out."""
        self.should_exit = self._service.draining_since is not None
        self._service.drain()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to stop."""
        since = self._service.draining_since
        if since is not None and time.monotonic() - since >= self._service.settings.drain_s:
            self.should_exit = True
        return await super().on_tick(counter)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to listen, and tells where."""
        await super().startup(sockets)
        if threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._swap)
        for listener in sockets or ():
            host, port = listener.getsockname()[:2]
            log.info("listening", extra={"facts": {"host": host, "port": port}})

    def _swap(self) -> None:
        task = asyncio.ensure_future(self._swap_and_tell())
        self._swaps.add(task)
        task.add_done_callback(self._swaps.discard)

    async def _swap_and_tell(self) -> None:
        try:
            await self._service.swap()
            log.info("reloaded")
        except ReloadError as error:
            log.error("reload failed", extra={"facts": {"error": str(error)}})


class _JsonLines(logging.Formatter):
    """A record as one line of JSON; ``extra={"facts": …}`` are its further fields."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        return json.dumps(line)
