"""A server that W&B's own client takes for W&B: as much of its interface as a run needs."""

from __future__ import annotations

import gzip
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = {"id": "P1", "name": "p", "entity": {"id": "E1", "name": "me"}}


@dataclass
class RemoteRun:
    """What the server holds of a run: lines by their place in the file, as clients give them."""

    about: dict[str, Any] = field(default_factory=dict)
    history: dict[int, dict[str, Any]] = field(default_factory=dict)
    summary: str = "{}"

    def rows(self) -> list[dict[str, Any]]:
        """Give the history in its order."""
        return [self.history[place] for place in sorted(self.history)]


class WandbServer:
    """Runs by id, and what was asked; `refusal` is what it says where it lets nobody in."""

    def __init__(self) -> None:
        self.runs: dict[str, RemoteRun] = {}
        self.authorizations: set[str] = set()
        self.refusal: str | None = None
        self.url = ""

    def query(self, name: str, about: dict[str, Any]) -> dict[str, Any]:
        """Answer a GraphQL operation."""
        if name == "RunResumeStatus":
            held = self.runs.get(about["name"])
            return {"model": {**PROJECT, "bucket": held and _bucket(about["name"], held)}}
        if name == "UpsertBucket":
            run = self.runs.setdefault(about["name"], RemoteRun())
            run.about |= {key: value for key, value in about.items() if value is not None}
            bucket = {"id": "B1", "name": about["name"], "displayName": "n", "project": PROJECT}
            bucket |= {"config": "{}", "historyLineCount": len(run.history)}
            return {"upsertBucket": {"bucket": bucket, "inserted": not run.history}}
        if name == "CreateRunFiles":
            return {"createRunFiles": {"runID": "B1", "uploadHeaders": [], "files": []}}
        if name == "ServerFeaturesQuery":
            return {"serverInfo": {"features": []}}
        return {"viewer": {"id": "V1", "entity": "me", "username": "me", "flags": "{}"}}

    def stream(self, run: str, files: dict[str, Any]) -> None:
        """Take lines of a run's files."""
        held = self.runs[run]
        history = files.get("wandb-history.jsonl", {"offset": 0, "content": []})
        for place, line in enumerate(history["content"], history["offset"]):
            held.history[place] = json.loads(line)
        for line in files.get("wandb-summary.json", {"content": []})["content"]:
            held.summary = line


def _bucket(name: str, run: RemoteRun) -> dict[str, Any]:
    tail = [json.dumps(run.rows()[-1])] if run.history else []
    return {
        "id": "B1",
        "name": name,
        "displayName": "n",
        "summaryMetrics": run.summary,
        "logLineCount": 0,
        "historyLineCount": len(run.history),
        "eventsLineCount": 0,
        "historyTail": json.dumps(tail),
        "eventsTail": "[]",
        "config": "{}",
        "tags": [],
        "notes": None,
        "wandbConfig": '{"t": 1}',  # it has begun, and can be gone on with
    }


@contextmanager
def wandb_server() -> Iterator[WandbServer]:
    """Serve on loopback."""
    held = WandbServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            held.authorizations.add(self.headers.get("Authorization", ""))
            answer: dict[str, Any] = {"exitcode": None, "limits": {}}
            if held.refusal is not None:
                answer = {"errors": [{"message": held.refusal}]}
            elif self.path == "/graphql":
                asked = json.loads(body)
                (name,) = re.findall(r"(?:query|mutation) (\w+)", asked["query"])[:1]
                answer = {"data": held.query(name, asked.get("variables") or {})}
            elif self.path.endswith("/file_stream"):
                held.stream(self.path.split("/")[-2], json.loads(body).get("files") or {})
            content = json.dumps(answer).encode()
            self.send_response(200 if held.refusal is None else 401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    held.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield held
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
