"""A process that posts one event: signed JSON, by the Standard Webhooks scheme.

Run as `python -m nptwatch.alerts.posting`; see remote.py. https://www.standardwebhooks.com
"""

from __future__ import annotations

import base64
import binascii
import email.utils
import hashlib
import hmac
import http.client
import json
import ssl
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from nptwatch import __version__
from nptwatch.alerts.speaking import Question, RefusedError, speak

if TYPE_CHECKING:
    from email.message import Message
    from typing import IO

PREFIX = "whsec_"
SHORTEST_KEY_BYTES = 24
LONGEST_ANSWER_BYTES = 2000
LONGEST_PAUSE_SECONDS = 24 * 3600.0
"""A receiver that wants to be left alone for longer is asked again after a day."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """What was signed for one place is not carried to another."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,
        newurl: str,
    ) -> None:
        """Follow none: the answer is an error then."""


def post(question: Question) -> None:
    """Post the event; any 2xx means delivered.

    Raises:
        RefusedError: it was not, or a secret cannot be used.
    """
    key = signing_key(question.secrets["key"])
    request = _request(question.secrets["url"])
    opener = urllib.request.build_opener(
        _NoRedirects, urllib.request.HTTPSHandler(context=_context(question.ca_file))
    )
    if question.event is None:
        return
    request.data = json.dumps(question.event, sort_keys=True).encode()
    event_id, now = str(question.event["event_id"]), int(time.time())
    request.add_header("webhook-id", event_id)
    request.add_header("webhook-timestamp", str(now))
    request.add_header("webhook-signature", signature(key, event_id, now, request.data))
    try:
        opener.open(request, timeout=question.timeout_seconds).close()
    except urllib.error.HTTPError as answer:
        with answer:
            raise _refused(answer) from None
    except TimeoutError:
        raise RefusedError(f"no answer within {question.timeout_seconds:g} s") from None
    except urllib.error.URLError as error:
        raise _unreached(error.reason, question) from None
    except (http.client.HTTPException, OSError) as error:
        raise RefusedError(f"the connection broke ({type(error).__name__})") from None


def signature(key: bytes, event_id: str, timestamp: int, body: bytes) -> str:
    """Sign: HMAC-SHA256 over "id.timestamp.body", in Base64, with the scheme's version."""
    signed = f"{event_id}.{timestamp}.".encode() + body
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def signing_key(secret: str) -> bytes:
    """Read a key: Base64, with or without "whsec_" before it.

    Raises:
        RefusedError: it is not that, or too short.
    """
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) < SHORTEST_KEY_BYTES:
        raise RefusedError(
            f"the key must be {PREFIX} and Base64 of at least {SHORTEST_KEY_BYTES} bytes; "
            f'make one: echo "{PREFIX}$(head -c 32 /dev/urandom | base64)"'
        )
    return key


def _request(url: str) -> urllib.request.Request:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = None
    if host is None or parts.scheme not in {"http", "https"}:
        raise RefusedError("the URL must be https://HOST/... or http://HOST/...")
    place = f"[{host}]" if ":" in host else host
    place += "" if port is None else f":{port}"
    request = urllib.request.Request(  # noqa: S310 - the scheme is one of two
        urlunsplit((parts.scheme, place, parts.path or "/", parts.query, "")), method="POST"
    )
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        request.add_header("Authorization", f"Basic {base64.b64encode(user.encode()).decode()}")
    request.add_header("Content-Type", "application/json")
    request.add_header("User-Agent", f"nptwatch/{__version__}")
    return request


def _context(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise RefusedError(f"ca_file {ca_file} cannot be used: {error.strerror}") from None


def _refused(answer: urllib.error.HTTPError) -> RefusedError:
    why = f"HTTP {answer.code}"
    if answer.code // 100 == 3:  # noqa: PLR2004 - redirections
        why += " (redirects are not followed: give the final URL)"
    try:
        said = answer.read(LONGEST_ANSWER_BYTES).decode(errors="replace").strip()
    except (http.client.HTTPException, OSError):
        said = ""
    return RefusedError(
        why,
        ", ".join(filter(None, [answer.reason, said])),
        retry_after_seconds=retry_after(answer.headers.get("Retry-After")),
    )


def retry_after(value: str | None, *, now: datetime | None = None) -> float:
    """Read a Retry-After header, seconds or a date: seconds from now; 0 where it says nothing."""
    if not value:
        return 0.0
    if value.strip().isdecimal():
        return min(float(value), LONGEST_PAUSE_SECONDS)
    try:
        until = email.utils.parsedate_to_datetime(value)
        seconds = (until - (now or datetime.now(UTC))).total_seconds()
    except (ValueError, TypeError):
        return 0.0
    return min(max(seconds, 0.0), LONGEST_PAUSE_SECONDS)


def _unreached(reason: object, question: Question) -> RefusedError:
    if isinstance(reason, TimeoutError):
        return RefusedError(f"no answer within {question.timeout_seconds:g} s")
    if isinstance(reason, ssl.SSLCertVerificationError):
        return RefusedError("TLS: the certificate is not trusted", reason.verify_message)
    if isinstance(reason, OSError):
        return RefusedError("no connection", reason.strerror or type(reason).__name__)
    return RefusedError("no connection", type(reason).__name__)


if __name__ == "__main__":
    sys.exit(speak(post))
