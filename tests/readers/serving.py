"""A folder over HTTP on loopback, as a static host serves it: single ranges, and index pages only if asked."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_RANGE = re.compile(r"bytes=(\d+)-(\d*)$")


@contextmanager
def serve(folder: Path, *, index_pages: bool = False, ranges: bool = True) -> Iterator[str]:
    """Serve `folder`; yields its address."""

    class Handler(SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, directory=str(folder), **options)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

        def list_directory(self, path: Any) -> Any:
            if index_pages:
                return super().list_directory(path)
            self.send_error(HTTPStatus.NOT_FOUND)
            return None

        def do_GET(self) -> None:
            wanted = _RANGE.match(self.headers.get("Range", ""))
            path = Path(self.translate_path(self.path))
            if wanted is None or not ranges or not path.is_file():
                super().do_GET()
                return
            size = path.stat().st_size
            first, stop = int(wanted[1]), min(int(wanted[2] or size), size - 1) + 1
            if first >= stop:
                self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(HTTPStatus.PARTIAL_CONTENT)
            self.send_header("Content-Range", f"bytes {first}-{stop - 1}/{size}")
            self.send_header("Content-Length", str(stop - first))
            self.end_headers()
            self.wfile.write(path.read_bytes()[first:stop])

        def end_headers(self) -> None:
            if ranges:
                self.send_header("Accept-Ranges", "bytes")
            super().end_headers()

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exception(), ConnectionError | TimeoutError):  # a client that went away is none
                super().handle_error(request, client_address)

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
