"""Receivers on loopback for the alerts' tests: an HTTP server that answers by script, a mail server."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import trustme
from aiosmtpd.controller import Controller

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from aiosmtpd.smtp import SMTP, Envelope, Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Got:
    """A request as it arrived; names of headers in small letters."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def event_id(self) -> str:
        """Whose event it is, by the webhook's header."""
        return self.headers["webhook-id"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the server does with one request.

    Attributes:
        act: called with the handler instead of answering.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"ok"
    act: Callable[[Handler], None] | None = None


class Handler(BaseHTTPRequestHandler):
    """Keeps the request, then does what the script says."""

    server: Server

    def do_POST(self) -> None:
        """Take an event."""
        answer = self.server.next_answer()
        if answer.act is die_early:
            die_early(self)
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.got.append(Got(path=self.path, headers=headers, body=body))
        if answer.act is not None:
            answer.act(self)
            return
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    do_GET = do_POST

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Answers by script, then with 200; keeps what it got."""

    daemon_threads = True

    def __init__(self, answers: list[Answer], tls: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = answers
        self.got: list[Got] = []
        self.released = threading.Event()
        self._scheme = "http" if tls is None else "https"
        if tls is not None:
            self.socket = tls.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )

    def next_answer(self) -> Answer:
        """Take the next of the script."""
        return self.answers.pop(0) if self.answers else Answer()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    def url(self, path: str = "/hook/s3cr3t-path-token?code=s3cr3t-query") -> str:
        """Its URL; the path and the query are secrets."""
        host = "127.0.0.1" if self._scheme == "http" else "localhost"
        return f"{self._scheme}://{host}:{self.port}{path}"

    def handle_error(self, *_: Any) -> None:
        """Clients go away, and handshakes fail, in these tests."""


@contextmanager
def serving(*answers: Answer, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """Have a server answer by script."""
    server = Server(list(answers), tls)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="test-receiver")
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join(10)


def hang(handler: Handler) -> None:
    """Answer nothing until the test is over."""
    handler.server.released.wait(60)


def drip(handler: Handler) -> None:
    """Answer a byte now and then, so that no time-out of a socket strikes."""
    for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"z" * 600:
        if handler.server.released.wait(0.1):
            return
        handler.wfile.write(bytes([byte]))


def die(handler: Handler) -> None:
    """Break the connection as a killed process does, in the middle of its answer."""
    handler.wfile.write(b"HTTP/1.")
    reset(handler.connection)


def die_early(handler: Handler) -> None:
    """Break the connection before the request was read; known by name to the handler."""
    reset(handler.connection)


def reset(connection: socket.socket) -> None:
    """Close a connection at once, without good-bye."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """A certificate for localhost, and the one that signed it."""

    server: ssl.SSLContext
    ca_file: Path


def certificates(folder: Path) -> Certificates:
    """Make a certificate that no system trusts."""
    import ssl

    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    ca_file = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    return Certificates(server=context, ca_file=ca_file)


class Mailbox:
    """What a mail server got; its answers to messages by script."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.messages: list[str] = []

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        """Take a message, or refuse it as the script says."""
        answer = self.answers.pop(0) if self.answers else "250 taken"
        if answer.startswith("250"):
            content = envelope.content
            self.messages.append(content.decode() if isinstance(content, bytes) else str(content))
        return answer


@contextmanager
def receiving_mail(
    *answers: str, tls: ssl.SSLContext | None = None
) -> Iterator[tuple[int, Mailbox]]:
    """Have a mail server; give its port and its mailbox."""
    mailbox = Mailbox(*answers)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    controller = Controller(mailbox, hostname="127.0.0.1", port=port, ssl_context=tls)
    controller.start()
    try:
        yield port, mailbox
    finally:
        controller.stop()
