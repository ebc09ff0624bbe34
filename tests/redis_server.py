"""A real Redis or Valkey server for tests, started as `make redis` and `make redis-durable` start it."""

import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests import running

SCRIPT = Path(__file__).parents[1] / "scripts" / "redis.sh"


class Server:
    """A server on a port of its own, to be stopped, frozen, restarted and filled.

    Args:
        folder: Where its files are.
        durable: Whether it keeps what it has taken.

    Attributes:
        url: Of its one database.
    """

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        self.port = running.free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.folder, self._kind = folder, ["--durable"] if durable else []

    def start(self, *options: str) -> "Server":
        """Starts it and waits until it answers; skips the test where no server can be had."""
        folder = self.folder
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / "log"
        with log.open("w") as output:
            command = [str(SCRIPT), *self._kind, str(self.port), str(folder), *options]
            self._process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        until = time.monotonic() + 120  # the first time the server is downloaded
        while "Ready to accept connections" not in log.read_text():
            if self._process.poll() is not None:
                pytest.skip(f"there is no Redis or Valkey server: {log.read_text()[-300:]}")
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.02)
        return self

    def stop(self) -> None:
        """Ends it at once, and waits for its end."""
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """Connections are accepted, but nothing is answered."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Undoes ``freeze``."""
        self._process.send_signal(signal.SIGCONT)
