"""A way to a service on which requests and answers get lost."""

import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit


@contextmanager
def proxy(url: str, losses: Iterable[str]) -> Iterator[str]:
    """Passes connections on to a service; yields its own URL.

    Args:
        url: Of the service.
        losses: What of the next connection gets lost: "request" (nothing reaches the service), "answer" (the service
            does what it was asked, its answer is cut) or "none"; the last one for ever.
    """
    host = urlsplit(url)
    left, loss = iter(losses), "none"
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def pass_on(client: socket.socket, loss: str) -> None:
            with client, suppress(OSError):
                request = _whole(client)
                if loss == "request" or not request:
                    return
                with socket.create_connection((host.hostname, host.port)) as service:
                    service.sendall(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
                    answer = _to_the_end(service)
                client.sendall(answer[: len(answer) // 2] if loss == "answer" else answer)

        def accept() -> None:
            nonlocal loss
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    loss = next(left, loss)
                    threading.Thread(target=pass_on, args=(client, loss), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def _whole(client: socket.socket) -> bytes:
    """A request: its head, and a body of the length that the head tells."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += (more := client.recv(1 << 16))
        if not more:
            return b""
    head, _, body = received.partition(b"\r\n\r\n")
    told = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    while len(body) < int(told[0] if told else 0):
        body += client.recv(1 << 16)
    return head + b"\r\n\r\n" + body


def _to_the_end(service: socket.socket) -> bytes:
    received = b""
    while more := service.recv(1 << 16):
        received += more
    return received
