"""A small HTTP server beside the daemon: /metrics, /health, /ready."""

from __future__ import annotations

import json
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import structlog
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from prometheus_client.registry import CollectorRegistry

    from nptwatch.health import Health

LONGEST_REQUEST_SECONDS = 10.0
"""A client that says nothing for so long is hung up on."""

_JSON = "application/json"

log = structlog.get_logger()


class WebServer:
    """Answers on threads of its own; none of them is waited for.

    Args:
        reasons: what is not ready yet, and why; empty: ready.
    """

    def __init__(
        self,
        address: tuple[str, int],
        *,
        registry: CollectorRegistry,
        health: Health,
        reasons: Callable[[], Mapping[str, str]],
    ) -> None:
        self._address = address
        self._pages: dict[str, Callable[[], tuple[HTTPStatus, str, bytes]]] = {
            "/metrics": lambda: (HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(registry)),
            "/health": lambda: _health(health),
            "/ready": lambda: _ready(reasons()),
        }
        self._server: ThreadingHTTPServer | None = None

    @property
    def port(self) -> int | None:
        """The port that is listened on; None: none."""
        return None if self._server is None else self._server.server_address[1]

    def start(self) -> None:
        """Listen; a port that is not to be had is logged, and the daemon goes on without."""
        host, port = self._address
        try:
            self._server = _Server(host, port, _handler(self._pages))
        except OSError as error:
            log.error("web_failed", listen=f"{host}:{port}", error=str(error))  # noqa: TRY400
            return
        threading.Thread(
            target=self._server.serve_forever, name="nptwatch-web", daemon=True
        ).start()
        log.info("web_started", listen=f"{host}:{self.port}")

    def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        if ":" in host:
            import socket

            self.address_family = socket.AF_INET6
        super().__init__((host, port), handler)

    def handle_error(self, _request: object, client_address: object) -> None:
        """Say little of clients that hang up."""
        log.debug("web_request_failed", client=str(client_address))


def _handler(
    pages: Mapping[str, Callable[[], tuple[HTTPStatus, str, bytes]]],
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = LONGEST_REQUEST_SECONDS
        server_version = "nptwatch"
        sys_version = ""

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def _answer(self, *, with_body: bool) -> None:
            page = pages.get(self.path.partition("?")[0])
            if page is None:
                known = ", ".join(pages)
                status, kind, body = HTTPStatus.NOT_FOUND, "text/plain", f"try {known}\n".encode()
            else:
                status, kind, body = self._made(page)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def _made(
            self, page: Callable[[], tuple[HTTPStatus, str, bytes]]
        ) -> tuple[HTTPStatus, str, bytes]:
            try:
                return page()
            except Exception:  # outermost of this request: the next one may go better
                log.exception("web_page_failed", path=self.path)
                told = b"failed: see the daemon's log\n"
                return HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", told

        def log_message(self, *_: object) -> None:
            """Keep scrapes out of the log."""

    return Handler


def _health(health: Health) -> tuple[HTTPStatus, str, bytes]:
    parts = health.parts()
    is_well = all(part.is_well for part in parts)
    told = {
        "well": is_well,
        "helpers": {
            part.name: {
                "well": part.is_well,
                "alive": part.is_alive,
                "silent_seconds": part.silent_seconds and round(part.silent_seconds, 1),
            }
            for part in parts
        },
    }
    return _status(is_well), _JSON, json.dumps(told).encode() + b"\n"


def _ready(reasons: Mapping[str, str]) -> tuple[HTTPStatus, str, bytes]:
    told = {"ready": not reasons, "waits_for": dict(reasons)}
    return _status(not reasons), _JSON, json.dumps(told).encode() + b"\n"


def _status(is_fine: bool) -> HTTPStatus:
    return HTTPStatus.OK if is_fine else HTTPStatus.SERVICE_UNAVAILABLE
