"""One answer of one origin: the bytes behind a URL, from a position on, and in words what went wrong.

An origin is a scheme, a host and a port, or the files of this machine. Whatever it can do wrong becomes an
OriginError with one sentence; what is worth asking again is told from what is not.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

if TYPE_CHECKING:
    import httpx

    from sandboxfile.inputs.settings import Settings

CHUNK = 1 << 18
CONNECT_TIMEOUT = 15.0
"""Seconds for a connection and its TLS handshake, when an answer may take longer than that."""
REDIRECTS = 8
HEADERS = {"User-Agent": "sandboxfile", "Accept-Encoding": "identity"}
"""No content coding: what is hashed is the file as it lies on the origin."""
RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
CLOCK_HINT = "certificate is not yet valid: this machine's clock may be wrong"


class Fault(StrEnum):
    """What kind of wrong an origin did.

    ABSENT:  it has no such file; it may have others
    BUSY:    it answered that it cannot now
    DOWN:    no connection, no answer in time, or not one that can be understood
    BROKEN:  the answer ended before the file did
    SLOW:    fewer bytes a second than the settings ask for
    LYING:   other bytes than were promised
    REFUSED: it will say the same the next time (a certificate, a loop, a status)
    """

    ABSENT = "absent"
    BUSY = "busy"
    DOWN = "down"
    BROKEN = "broken"
    SLOW = "slow"
    LYING = "lying"
    REFUSED = "refused"

    @property
    def final(self) -> bool:
        """Whether asking again for the same is no use."""
        return self in (Fault.ABSENT, Fault.LYING, Fault.REFUSED)


class OriginError(Exception):
    """One origin did not answer with the bytes.

    reason: what it said or did, to be read after its URL: `answered 404 Not Found`
    after:  in how many seconds it wants to be asked again
    gained: how many bytes came all the same, which need not be asked for again
    """

    def __init__(self, reason: str, fault: Fault, *, after: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.fault = fault
        self.after = after
        self.gained = 0


@dataclass(frozen=True)
class Answer:
    """An answer on its way: `start` is the position of its first byte, `length` how many it says to have
    (None when it does not say), `validator` what a request for the rest can name."""

    start: int
    length: int | None
    validator: str | None
    chunks: AsyncIterator[bytes]


def shown(url: str) -> str:
    """A URL as it may be shown: without user name and password."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def origin_of(url: str) -> str:
    """The origin of a URL, as its health is kept and as people are told of it."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        path = Path(unquote(parts.path))
        return str(path if parts.fragment else path.parent)
    return parts.netloc.rpartition("@")[2] or url


def is_local(url: str) -> bool:
    """Whether a URL needs no network."""
    return urlsplit(url).scheme == "file"


def is_there(url: str) -> bool:
    """Whether a file URL leads to something."""
    return Path(unquote(urlsplit(url).path)).exists()


def new_client(settings: Settings) -> httpx.AsyncClient:
    """A client with the settings' certificates; proxies are the environment's."""
    import httpx

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=settings.connections * 2)
    return httpx.AsyncClient(
        verify=tls_context(settings),
        limits=limits,
        follow_redirects=True,
        max_redirects=REDIRECTS,
        headers=HEADERS,
        event_hooks={"response": [_no_downgrade]},
    )


def tls_context(settings: Settings) -> ssl.SSLContext:
    """What certificates are checked with; reading a bundle of them takes a while, so it is done once."""
    bundle = str(settings.ca_bundle) if settings.ca_bundle else None
    context = _CONTEXTS.get(bundle)
    if context is None:
        context = _CONTEXTS[bundle] = ssl.create_default_context(cafile=bundle)
    return context


_CONTEXTS: dict[str | None, ssl.SSLContext] = {}


def warm_up(settings: Settings) -> None:
    """Import and read what the first request would have to wait for. Meant for a thread."""
    import httpx  # noqa: F401

    try:
        tls_context(settings)
    except OSError:
        # The request that needs it says what is wrong.
        return


async def _no_downgrade(answer: httpx.Response) -> None:
    """What was asked for over TLS is not taken over a plain connection."""
    following = answer.next_request
    if following and answer.request.url.scheme == "https" and following.url.scheme != "https":
        raise OriginError(f"sends on to {shown(str(following.url))}, which is not https", Fault.REFUSED)


Client = Callable[[], "httpx.AsyncClient"]


@asynccontextmanager
async def open_url(
    client: Client, url: str, *, silence: float, start: int = 0, validator: str | None = None
) -> AsyncIterator[Answer]:
    """The answer of an origin. With `start` the bytes before it are not asked for; an origin that sends the
    whole all the same says so in `Answer.start`. A file URL may name a part: `#bytes=FIRST-LAST`.

    silence: seconds without a byte after which it counts as down
    Raises OriginError for whatever an origin can do wrong, here and while the bytes are read.
    """
    if is_local(url):
        yield _local(url, start)
        return
    import httpx

    headers = {}
    if start:
        headers["Range"] = f"bytes={start}-"
        if validator:
            headers["If-Range"] = validator
    try:
        limits = httpx.Timeout(silence, connect=min(silence, CONNECT_TIMEOUT), pool=None)
        async with client().stream("GET", url, headers=headers, timeout=limits) as answer:
            yield _checked(answer, start)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as failure:
        raise OriginError(f"is no URL that can be fetched: {failure}", Fault.REFUSED) from None
    except httpx.TooManyRedirects:
        raise OriginError(f"redirects more than {REDIRECTS} times", Fault.REFUSED) from None
    except httpx.HTTPError as failure:
        raise _in_words(failure) from None


def _checked(answer: httpx.Response, start: int) -> Answer:
    status = answer.status_code
    if status not in (200, 206) or (status == 206 and not start):
        # The usual words for it, not the server's.
        reason = f"answered {status} {_phrase(status)}".strip()
        if status in (404, 410):
            raise OriginError(reason, Fault.ABSENT)
        if status == 416 and start:
            raise OriginError(reason, Fault.BROKEN)
        fault = Fault.BUSY if status in RETRIED else Fault.REFUSED
        raise OriginError(reason, fault, after=_retry_after(answer.headers.get("Retry-After", "")))
    text = answer.headers.get("Content-Length", "")
    length = int(text) if text.isdigit() else None
    # A weak validator says that the meaning is the same, not the bytes (RFC 9110 section 13.1.5).
    tag = answer.headers.get("ETag", "")
    validator = tag if tag.startswith('"') else answer.headers.get("Last-Modified")
    if status == 206:
        found = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
        if not found or int(found[1]) != start:
            raise OriginError("answered with another part than was asked for", Fault.BROKEN)
        return Answer(start, length, validator, answer.aiter_raw())
    return Answer(0, length, validator, answer.aiter_raw())


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _in_words(failure: httpx.HTTPError) -> OriginError:
    import httpx

    text = str(failure)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        reason = CLOCK_HINT if "not yet valid" in text else f"certificate is not trusted: {text}"
        return OriginError(f"its {reason}", Fault.REFUSED)
    if isinstance(failure, httpx.ConnectTimeout):
        return OriginError("did not take a connection in time", Fault.DOWN)
    if isinstance(failure, httpx.TimeoutException):
        return OriginError("sent nothing for too long", Fault.DOWN)
    if isinstance(failure, httpx.ConnectError):
        return OriginError(f"cannot be reached: {text or 'no connection'}", Fault.DOWN)
    if isinstance(failure, httpx.RemoteProtocolError) and "peer closed connection" in text:
        return OriginError("ended the connection before the file was complete", Fault.BROKEN)
    if isinstance(failure, httpx.RemoteProtocolError):
        return OriginError(f"gave an answer that is not HTTP: {text}", Fault.DOWN)
    if isinstance(failure, httpx.ReadError | httpx.WriteError):
        return OriginError(f"broke the connection off{f': {text}' if text else ''}", Fault.BROKEN)
    return OriginError(text or type(failure).__name__, Fault.DOWN)


def _retry_after(value: str) -> float:
    """Seconds, or a date (RFC 9110 section 10.2.3); 0 when it says neither."""
    if value.strip().isdigit():
        return float(value)
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _local(url: str, start: int) -> Answer:
    parts = urlsplit(url)
    path = Path(unquote(parts.path))
    part = re.fullmatch(r"bytes=(\d+)-(\d+)", parts.fragment)
    first, end = (int(part[1]), int(part[2]) + 1) if part else (0, None)
    try:
        file = path.open("rb")
    except OSError as failure:
        raise _file_error(failure) from None
    return Answer(start, None, None, _read(file, first + start, end))


async def _read(file: Any, position: int, end: int | None) -> AsyncIterator[bytes]:
    with file:
        try:
            file.seek(position)
            while chunk := file.read(CHUNK if end is None else min(CHUNK, end - file.tell())):
                yield chunk
        except OSError as failure:
            raise _file_error(failure) from None


def _file_error(failure: OSError) -> OriginError:
    absent = isinstance(failure, FileNotFoundError | NotADirectoryError)
    return OriginError(failure.strerror or str(failure), Fault.ABSENT if absent else Fault.REFUSED)
