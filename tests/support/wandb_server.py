"""A stand-in for a W&B server on loopback: remembers what it is sent, one `Sent` per run.

Keeps a run's history as W&B does: numbered lines, each chunk at an offset, a later one over an
earlier one.  So a run that is sent twice is there once, and one that continues goes on at the end.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Sent:
    """What the server knows of one run."""

    id: str
    fields: dict = field(default_factory=dict)
    """The newest upsertBucket's: groupName, jobType, tags, displayName, ..."""
    config: dict = field(default_factory=dict)
    lines: dict[int, str] = field(default_factory=dict)
    summary: dict = field(default_factory=dict)
    exit_code: int | None = None
    complete: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    artifacts: list[dict] = field(default_factory=list)

    @property
    def history(self) -> list[dict]:
        return [json.loads(self.lines[number]) for number in sorted(self.lines)]

    @property
    def steps(self) -> list[int]:
        return [row["_step"] for row in self.history]


class Server(ThreadingHTTPServer):
    """``with Server() as server``: answers at ``server.url`` until the end.

    ``status``: answer everything with this error instead; ``seconds``: and only after so long.
    """

    daemon_threads = True

    def __init__(self, *, status: int = 200, seconds: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.seconds = status, seconds
        self.runs: dict[str, Sent] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.received = bytearray()
        """Every request's body, and none of the headers."""
        self.lock = threading.Lock()
        self.views: list[dict] = []
        self._artifacts: dict[str, dict] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is nothing to report."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def __enter__(self) -> Server:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()

    def run(self, name: str) -> Sent:
        return self.runs.setdefault(name, Sent(name))

    # ------------------------------------------------------------------------------------ GraphQL
    def answer(self, query: str, variables: dict) -> dict:
        operation = re.search(r"(?:query|mutation)\s+(\w+)", query)
        name = operation.group(1) if operation else query[:60]
        self.requests.append(name)
        variables = variables.get("input") or variables
        if name == "UpsertBucket":
            return self._upsert(variables)
        if name == "RunResumeStatus":
            return {"model": self._resume(variables)}
        if name == "Run":
            run = self.runs.get(variables["name"])
            bucket = run and {
                "historyLineCount": len(run.lines), "summaryMetrics": json.dumps(run.summary)
            }  # fmt: skip
            return {"model": {"bucket": bucket}}
        if name == "CreateRunFiles":
            return {"createRunFiles": self._run_files(variables)}
        if name in ("Viewer", "ViewerInfo"):
            return {"viewer": {"id": "v", "entity": "lab", "username": "user", "flags": "{}",
                               "email": "", "teams": {"edges": []}}}  # fmt: skip
        if name == "ServerFeaturesQuery":
            return {"serverInfo": {"features": []}}
        if name == "CreateArtifact":
            return {"createArtifact": self._artifact(variables)}
        if name in ("CreateArtifactManifest", "UpdateArtifactManifest"):
            manifest = {"id": "manifest", "file": self._upload(f"manifest-{len(self.blobs)}")}
            return {name[0].lower() + name[1:]: {"artifactManifest": manifest}}
        if name == "CreateArtifactFiles":
            return {"createArtifactFiles": {"files": {"edges": [
                {"node": {"id": f"f{i}", "name": spec["name"], "displayName": spec["name"],
                          "storagePath": spec["name"], "uploadUrl":
                          f"{self.url}/blob/artifact/{spec['artifactID']}/{spec['name']}",
                          "uploadHeaders": [], "uploadMultipartUrls": None,
                          "artifact": {"id": spec["artifactID"]}}}
                for i, spec in enumerate(variables["artifactFiles"])
            ]}}}  # fmt: skip
        if name == "CommitArtifact":
            return {"commitArtifact": {"artifact": {"id": variables["artifactID"], "digest": ""}}}
        if name == "UpsertView2":
            self.views.append(variables)
            view = {"id": "view", "name": variables["name"]}
            return {"upsertView": {"view": view, "inserted": True}}
        if name == "ArtifactType":
            return {"project": {"artifact": None}}
        return {}

    def _upsert(self, variables: dict) -> dict:
        with self.lock:
            name = variables.get("name") or variables["id"]
            inserted = name not in self.runs
            run = self.run(name)
            given = {key: value for key, value in variables.items() if value is not None}
            if "config" in given:
                run.config = {
                    key: value["value"] for key, value in json.loads(given["config"]).items()
                }
            run.fields |= given
            bucket = {
                "id": f"storage-{name}", "name": name, "displayName": run.fields.get("displayName"),
                "description": "", "config": "{}", "sweepName": None,
                "historyLineCount": len(run.lines),
                "project": {"id": "p", "name": run.fields.get("project", ""),
                            "entity": {"id": "e", "name": variables.get("entity") or "lab"}},
            }  # fmt: skip
            return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def _resume(self, variables: dict) -> dict | None:
        run = self.runs.get(variables["name"])
        if run is None:
            return None
        last = run.lines[max(run.lines)] if run.lines else None
        return {"id": "p", "name": "p", "entity": {"id": "e", "name": "lab"}, "bucket": {
            "id": f"storage-{run.id}", "name": run.id, "summaryMetrics": json.dumps(run.summary),
            "displayName": run.fields.get("displayName"), "logLineCount": 0,
            "historyLineCount": len(run.lines), "eventsLineCount": 0,
            "historyTail": json.dumps([last] if last else []), "eventsTail": "[]",
            "config": json.dumps({k: {"value": v} for k, v in run.config.items()}),
            "tags": run.fields.get("tags", []), "wandbConfig": json.dumps({"t": 1}),
        }}  # fmt: skip

    def _run_files(self, variables: dict) -> dict:
        return {"runID": "storage", "uploadHeaders": [], "files": [
            {"name": name, "uploadUrl": f"{self.url}/blob/run/{variables['run']}/{name}"}
            for name in variables["files"]
        ]}  # fmt: skip

    def _artifact(self, variables: dict) -> dict:
        number = f"a{len(self._artifacts)}"
        self._artifacts[number] = variables
        if variables.get("runName"):
            self.run(variables["runName"]).artifacts.append(variables)
        return {"artifact": {"id": number, "digest": variables["digest"], "state": "PENDING",
                             "artifactSequence": {"id": "s", "latestArtifact": None}}}  # fmt: skip

    def _upload(self, name: str) -> dict:
        return {"id": name, "name": name, "displayName": name,
                "uploadUrl": f"{self.url}/blob/{name}", "uploadHeaders": []}  # fmt: skip

    # --------------------------------------------------------------------------------- filestream
    def stream(self, name: str, body: dict) -> None:
        with self.lock:
            run = self.run(name)
            files = body.get("files") or {}
            history = files.get("wandb-history.jsonl", {"offset": 0, "content": []})
            for number, line in enumerate(history["content"], history["offset"]):
                run.lines[number] = line
            for line in files.get("wandb-summary.json", {}).get("content", []):
                run.summary = json.loads(line)
            if body.get("complete"):
                run.complete, run.exit_code = True, body.get("exitcode")


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        with self.server.lock:
            self.server.received += body + b"\n"
        return body

    def _reply(self, content: dict) -> None:
        text = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _refused(self) -> bool:
        time.sleep(self.server.seconds)
        if self.server.status == 200:
            return False
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()
        return True

    def do_POST(self) -> None:
        body = self._body()
        if self._refused():
            return
        if self.path == "/graphql":
            asked = json.loads(body)
            self._reply({"data": self.server.answer(asked["query"], asked.get("variables") or {})})
        elif match := re.fullmatch(r"/files/.+/([^/]+)/file_stream", self.path):
            self.server.stream(match[1], json.loads(body))
            self._reply({"limits": {}})
        else:
            self.server.requests.append(self.path)
            self._reply({})

    def do_PUT(self) -> None:
        body = self._body()
        if self._refused():
            return
        if match := re.fullmatch(r"/blob/run/([^/]+)/(.+)", self.path):
            self.server.run(match[1]).files[match[2]] = body
        self.server.blobs[self.path] = body
        self._reply({})

    def do_GET(self) -> None:
        self._body()
        if self._refused():
            return
        self.server.requests.append(self.path)
        self._reply({})
