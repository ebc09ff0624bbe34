"""How the service is run: where it listens, who may call it, how much it takes on."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, get_args

from m6rec.config import Count, NonNegative, Positive, Range, validate
from m6rec.errors import ConfigError

# What one request may hold, besides ``data.schema.Limits``. These are part of the contract: the OpenAPI states them.
MAX_QUERY_CHARS = 4_000  # of a query, a document, a text to embed or a message: what is longer is read up to here
MAX_CANDIDATES = 1_000  # items to rank, documents to rerank, ids to leave out
MAX_COUNT = 100
MAX_OFFSET = 9_999  # pages end at ``ServingLimits.num_retrieved`` already
MAX_WRITES = 1_000  # events or items
MAX_HISTORY = 1_000  # events that come with a request
MAX_TEXTS = 2_048  # texts to embed
MAX_CREATED = 10  # texts to create
MAX_MESSAGES = 64  # of a conversation that are read, the latest
MAX_STOPS = 16  # stop strings of a reply
MAX_REPLY_TOKENS = 512
MAX_KEY_CHARS = 128  # of an Idempotency-Key

Role = Literal["read", "write", "admin"]
"""What an API key allows; each role allows what those before it do."""
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the service.

    Attributes:
        host: Address to listen on; one that other machines can reach needs ``keys``.
        port: Port to listen on; 0 for a free one.
        keys: File of hashed API keys (see ``ApiKeys``); None allows all local callers.
        insecure: Allow other machines without keys.
        max_body_bytes: Larger bodies are rejected (413).
        traces: URL of an OpenTelemetry collector (OTLP over HTTP) that gets a span of each request; "" for none.
        key_rate: Requests per second that one API key may send; more are rejected (429). 0 for no limit.
        key_burst: Requests that a key may send at once after a pause.
        max_concurrent: Maximum number of concurrent requests; more are rejected (429).
        max_queue: Maximum number of requests waiting for the model, and of those waiting for the disk; more are
            rejected (429).
        max_batch: Maximum batch size of ranking.
        max_texts: Maximum number of texts generated concurrently; ``max_queue`` more may wait.
        deadline_s: Time limit for a request to start (503), for its body to arrive (408), and for its response to be
            read.
        drain_s: Seconds in which requests are still accepted after SIGTERM, while ``/readyz`` returns 503.
        round_s: Longest time of slices of text generation while requests wait; a decoding step of 16 texts takes less.

    Raises:
        ConfigError: A number is out of range, or the service would be open to other machines without keys.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Range(0, 65_535)] = 8300
    keys: Path | None = None
    insecure: bool = False
    max_body_bytes: Count = 1 << 20
    traces: str = ""
    key_rate: NonNegative = 0.0
    key_burst: Count = 20
    max_concurrent: Count = 256
    max_queue: Count = 16
    max_batch: Count = 8
    max_texts: Count = 16
    deadline_s: Positive = 5.0
    drain_s: NonNegative = 1.0
    round_s: NonNegative = 0.02

    def __post_init__(self) -> None:
        validate(self)
        if self.traces and not self.traces.startswith(("http://", "https://")):
            raise ConfigError(
                f"traces is {self.traces!r}; give the URL of a collector, such as http://127.0.0.1:4318/v1/traces"
            )
        if self.keys is None and not self.insecure and not is_loopback(self.host):
            raise ConfigError(
                f"at {self.host} other machines could call the service without a key. Give it keys "
                "(m6rec key FILE; m6rec serve --keys FILE), listen at 127.0.0.1, or allow it with --insecure"
            )


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of an API key.

    Attributes:
        role: What it allows.
        name: The operator's comment, which the audit log names it by.
        digest: Of the key, which tells it from others; empty where there are no keys.
    """

    role: Role
    name: str = ""
    digest: bytes = field(default=b"", compare=False, repr=False)

    def allows(self, role: Role) -> bool:
        """Whether its role is this one or one above it."""
        return ROLES.index(self.role) >= ROLES.index(role)


class ApiKeys:
    """API keys, known by their sha256 only: they are random, so a hash without salt or stretching is safe.

    A file holds one key a line: the hash in hexadecimal, ``role=read``, ``role=write`` or ``role=admin``, then what it
    is for; ``#`` begins a comment. A line without a role, as earlier versions wrote it, is of an admin.

    Args:
        keys: What is known of each.
    """

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        self._keys = tuple(keys)

    @classmethod
    def load(cls, file: Path) -> ApiKeys:
        """Reads a file of hashes.

        Raises:
            ConfigError: It can't be read, holds no key, or a line is not a hash or has no such role.
        """
        keys = []
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"the keys in {file} can't be read ({error}); make one with `m6rec key {file}`"
            ) from error
        for number, line in enumerate(lines, start=1):
            words = line.partition("#")[0].split()
            if words:
                keys.append(_parse_key(words, f"line {number} of {file}", file))
        if not keys:
            raise ConfigError(f"{file} holds no key; make one with `m6rec key {file}`")
        return cls(keys)

    def find(self, key: str) -> ApiKey | None:
        """What is known of a key; None of others. Takes the same time whichever it is."""
        digest = _digest(key)
        found = [known for known in self._keys if hmac.compare_digest(digest, known.digest)]
        return found[0] if found else None


def _parse_key(words: Sequence[str], where: str, file: Path) -> ApiKey:
    try:
        digest = bytes.fromhex(words[0])
    except ValueError:
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        raise ConfigError(f"{where} does not begin with a sha256 in hexadecimal; make a key with `m6rec key {file}`")
    given, is_role, role = words[1].partition("=") if len(words) > 1 else ("", "", "")
    if not (is_role and given == "role"):
        return ApiKey("admin", " ".join(words[1:]), digest)
    return ApiKey(_role(role, where), " ".join(words[2:]), digest)


def _role(name: str, where: str) -> Role:
    for role in ROLES:
        if role == name:
            return role
    raise ConfigError(f"{where} has the role {name!r}; it must be one of {', '.join(ROLES)}")


def make_key(file: Path, name: str = "", role: str = "admin") -> str:
    """Makes an API key, appends its hash to ``file`` and returns it; it can't be had a second time.

    Raises:
        ConfigError: The file can't be written, the name has more than one line, or there is no such role.
    """
    if len(name.splitlines()) > 1:
        raise ConfigError(f"the name {name!r} has several lines; give it one")
    key = f"m6rec_{secrets.token_urlsafe(32)}"
    line = f"{_digest(key).hex()} role={_role(role, 'the new key')} {name}".rstrip()
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as lines:
            lines.write(line + "\n")
    except OSError as error:
        raise ConfigError(f"the key can't be added to {file} ({error}); give another file") from error
    return key


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()


def is_loopback(host: str) -> bool:
    """Whether a name or an address can only mean this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
