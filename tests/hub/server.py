"""A Hub on loopback that the real huggingface_hub client and `hf://` talk to, over real sockets.

Two HTTP servers on two ports, so that they are two hosts to a client: the Hub, and the store that files kept
with LFS are redirected to. What they are asked is recorded in `requests`, what goes wrong listed in `faults`.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, parse_qsl, quote, unquote, urlencode, urlsplit

from tests.hub.faults import Answer, Change, Fault, Request
from tests.hub.repository import Blob, Repository
from tests.hub.sending import send
from tests.hub.signing import Signer

CERTIFICATE = Path(__file__).with_name("localhost.pem")  # its key is in it too: for tests only
_API = re.compile(
    r"/api/(?P<kind>datasets|models)/(?P<repo>[^/]+/[^/]+)(?:/(?P<what>revision|tree|paths-info)/(?P<rest>.+))?$"
)
_RESOLVE = re.compile(r"/(?P<kind>datasets/)?(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)$")
_RANGE = re.compile(r"bytes=(?P<first>\d*)-(?P<last>\d*)$")

# Never one twice in a process: clients remember for each Hub, by its address, where the files of a commit are.
_PORTS: set[int] = set()


class LoopbackHub:
    """The two servers. Use as a context manager; `url` is what `HF_ENDPOINT` has to be.

    Attributes:
        repositories: by id; `add` makes one.
        faults: applied to every answer in turn.
        requests: everything asked, in order of arrival.
        users: names by token.
        page_size: entries in one page of a listing; smaller pages make the client follow `Link` headers.
        links: signs what the store is asked for; links can be made to end soon, or at once.
        latency: seconds from each request to the first byte of its answer.
        rate: bytes a second of each connection; None: as fast as it can.
        is_encrypted: whether it speaks TLS, with the certificate in `CERTIFICATE`.
    """

    def __init__(self, *, latency: float = 0.0, rate: float | None = None, encrypted: bool = False) -> None:
        self.latency, self.rate, self.is_encrypted = latency, rate, encrypted
        self.links = Signer()
        self.repositories: dict[str, Repository] = {}
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.page_size = 1000
        self.users: dict[str, str] = {}
        self._lock = threading.Lock()
        self._servers = {name: self._server(name) for name in ("hub", "store")}

    @property
    def url(self) -> str:
        return self._address("hub")

    @property
    def store_url(self) -> str:
        return self._address("store")

    def add(self, repo_id: str, folder: Path, *, token: str | None = None, kind: str = "datasets") -> Repository:
        """Serve `folder` as the repository `repo_id`; with `token`, only to those who carry it."""
        repository = Repository(repo_id, kind=kind, token=token)
        repository.commit(folder)
        self.repositories[repo_id] = repository
        return repository

    def fault(self, change: Change, **options: Any) -> Fault:
        """Add a fault; `options` are those of `Fault`."""
        fault = Fault(change, **options)
        self.faults.append(fault)
        return fault

    def fetches(self) -> list[Request]:
        """Requests for file contents, redirects not counted."""
        return [
            request
            for request in self.requests
            if request.method == "GET" and (request.server == "store" or "/resolve/" in request.path) and request.sent
        ]

    def __enter__(self) -> Self:
        for server in self._servers.values():
            self._start(server)
        return self

    def __exit__(self, *exception: object) -> None:
        for server in self._servers.values():
            server.shutdown()
            server.server_close()

    def move_store(self) -> None:
        """The store has another address from now on, and there is nobody at its old one."""
        old, self._servers["store"] = self._servers["store"], self._server("store")
        self._start(self._servers["store"])
        old.shutdown()
        old.close_connections()
        old.server_close()

    def _start(self, server: _Server) -> None:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def _address(self, name: str) -> str:
        host, port = self._servers[name].server_address[:2]
        return f"{'https' if self.is_encrypted else 'http'}://{host!s}:{port}"

    def _server(self, name: str) -> _Server:
        hub = self

        class Handler(_Handler):
            def answer(self, request: Request, body: bytes) -> Answer:
                with hub._lock:
                    hub.requests.append(request)
                answer = hub._hub_answer(request, body) if name == "hub" else hub._store_answer(request)
                answer.latency, answer.bytes_per_second = hub.latency, hub.rate
                for fault in hub.faults:
                    fault.apply(request, answer)
                return answer

        Handler.server_name = name
        server = _Server(("127.0.0.1", 0), Handler)
        while server.server_address[1] in _PORTS:
            server.server_close()
            server = _Server(("127.0.0.1", 0), Handler)
        _PORTS.add(server.server_address[1])
        if self.is_encrypted:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATE)
            # The handshake is for each connection's own thread.
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        return server

    # What the Hub says

    def _hub_answer(self, request: Request, body: bytes) -> Answer:
        if request.path == "/-/traffic":
            return self._traffic()
        if request.path == "/api/whoami-v2":
            name = self.users.get(request.headers.get("authorization", "").removeprefix("Bearer "))
            return _refusal(401, "") if name is None else _json_answer({"type": "user", "name": name})
        if match := _RESOLVE.match(request.path):
            kind = "datasets" if match["kind"] else "models"
            return self._resolve(request, kind, match["repo"], unquote(match["revision"]), match["path"])
        match = _API.match(request.path)
        if match is None:
            return _refusal(404, "EntryNotFound")
        what, rest = match["what"], match["rest"] or "main"
        revision, _, folder = rest.partition("/")
        found = self._find(request, match["kind"], match["repo"], unquote(revision))
        if isinstance(found, Answer):
            return found
        repository, commit = found
        if what is None or what == "revision":
            return _json_answer(self._info(repository, commit))
        if what == "tree":
            return self._tree(request, repository, commit, unquote(folder))
        wanted = _form(request, body).get("paths", [])
        blobs = repository.commits[commit]
        folders = [entry for entry in repository.tree(commit, "", recursive=True) or [] if entry["type"] == "directory"]
        described = [blobs[path].entry() for path in wanted if path in blobs]
        if _form(request, body).get("expand") in (["true"], [True]):
            last = {"id": commit, "title": "Upload", "date": repository.changed}
            described = [{**entry, "lastCommit": last} for entry in described]
        return _json_answer([*described, *(entry for entry in folders if entry["path"] in wanted)])

    def _traffic(self) -> Answer:
        with self._lock:
            asked = [request for request in self.requests if request.path != "/-/traffic"]
            self.requests.clear()
        return _json_answer({"requests": len(asked), "bytes": sum(request.sent for request in asked)})

    def _find(self, request: Request, kind: str, repo_id: str, revision: str) -> tuple[Repository, str] | Answer:
        repository = self.repositories.get(repo_id)
        if (repository is None or repository.kind != kind) or (
            repository.token is not None and request.headers.get("authorization") != f"Bearer {repository.token}"
        ):
            return _refusal(401, "RepoNotFound")  # the Hub does not tell a missing repository from a private one
        commit = repository.resolve(revision)
        return _refusal(404, "RevisionNotFound") if commit is None else (repository, commit)

    def _info(self, repository: Repository, commit: str) -> dict[str, Any]:
        return {
            "id": repository.repo_id,
            "author": repository.repo_id.partition("/")[0],
            "sha": commit,
            "private": repository.token is not None,
            "disabled": False,
            "gated": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": [{"rfilename": path} for path in repository.commits[commit]],
        }

    def _tree(self, request: Request, repository: Repository, commit: str, folder: str) -> Answer:
        recursive = request.query.get("recursive", "").lower() in {"true", "1"}
        entries = repository.tree(commit, folder, recursive=recursive)
        if entries is None:
            return _refusal(404, "EntryNotFound")
        start = int(request.query.get("cursor", "0"))
        answer = _json_answer(entries[start : start + self.page_size])
        if start + self.page_size < len(entries):
            query = urlencode({**request.query, "cursor": str(start + self.page_size)})
            answer.headers["Link"] = f'<{self.url}{quote(request.path)}?{query}>; rel="next"'
        return answer

    def _resolve(self, request: Request, kind: str, repo_id: str, revision: str, path: str) -> Answer:
        found = self._find(request, kind, repo_id, revision)
        if isinstance(found, Answer):
            return found
        repository, commit = found
        blob = repository.commits[commit].get(path)
        if blob is None:
            return _refusal(404, "EntryNotFound")
        headers = {"X-Repo-Commit": commit, "ETag": f'"{blob.etag}"', "Accept-Ranges": "bytes"}
        if blob.sha256 is None:
            return _contents(request, blob, headers)
        headers |= {"X-Linked-Size": str(blob.size), "X-Linked-ETag": f'"{blob.sha256}"'}
        return Answer(302, {**headers, "Location": self._object_link(blob)})

    def _object_link(self, blob: Blob) -> str:
        return self.store_url + self.links.sign(f"/objects/{blob.sha256}")

    def _store_answer(self, request: Request) -> Answer:
        reason = self.links.refusal(request.path, request.query)
        if reason is not None:
            return _denied(reason)
        wanted = request.path.removeprefix("/objects/")
        for repository in self.repositories.values():
            for blobs in repository.commits.values():
                for blob in blobs.values():
                    if blob.sha256 == wanted:
                        return _contents(request, blob, {"ETag": f'"{blob.sha256}"', "Accept-Ranges": "bytes"})
        return _denied("no such object")


def _denied(reason: str) -> Answer:
    text = f"<Error><Code>AccessDenied</Code><Message>{reason}</Message></Error>"
    return Answer(403, {"Content-Type": "application/xml"}, text.encode())


def _json_answer(content: Any) -> Answer:
    return Answer(200, {"Content-Type": "application/json; charset=utf-8"}, json.dumps(content).encode())


def _refusal(status: int, code: str) -> Answer:
    answer = _json_answer({"error": code})
    answer.status = status
    answer.headers |= {"X-Error-Code": code, "X-Error-Message": code}
    return answer


def _form(request: Request, body: bytes) -> dict[str, list[str]]:
    if "json" in request.headers.get("content-type", ""):
        parsed = json.loads(body)
        return {key: value if isinstance(value, list) else [value] for key, value in parsed.items()}
    return parse_qs(body.decode())


def _contents(request: Request, blob: Blob, headers: dict[str, str]) -> Answer:
    """The file, or the one range that was asked for."""
    size = blob.source.stat().st_size
    headers = {**headers, "Content-Type": "application/octet-stream"}
    condition = request.headers.get("if-range")
    asked = request.headers.get("range", "") if condition in (None, headers.get("ETag")) else ""
    match = _RANGE.match(asked)
    if match is None or not (match["first"] or match["last"]):
        return Answer(200, headers, (blob.source, 0, size))
    if match["first"]:
        start, stop = int(match["first"]), min(int(match["last"] or size), size - 1) + 1
    else:
        start, stop = max(size - int(match["last"]), 0), size
    if start >= stop:
        return Answer(416, {"Content-Range": f"bytes */{size}"})
    return Answer(206, {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{size}"}, (blob.source, start, stop))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256  # many connections come at once
    block_on_close = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are part of the tests; anything else is a bug of the server's and is shown."""
        import sys

        if not isinstance(sys.exception(), ConnectionError | TimeoutError | ssl.SSLError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_name = ""

    def answer(self, request: Request, body: bytes) -> Answer:
        raise NotImplementedError

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.server_name, self.command, unquote(parts.path), dict(parse_qsl(parts.query)), headers)
        request.connection, request.began = self.client_address[1], time.monotonic()
        try:
            self._answer(request, self.answer(request, body))
        finally:
            request.ended = time.monotonic()

    def _answer(self, request: Request, answer: Answer) -> None:
        request.status = answer.status
        if answer.latency:
            time.sleep(answer.latency)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.announced:
            self.send_header("Content-Length", str(answer.length))
        else:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.flush()
        if not send(self.connection, answer, request):
            self._hang_up(reset=answer.reset)

    def _hang_up(self, *, reset: bool) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            if reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
            else:
                self.connection.shutdown(socket.SHUT_WR)
