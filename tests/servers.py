"""Servers on loopback that go wrong on purpose: a web server, and a wire that is cut."""

from __future__ import annotations

import itertools
import re
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_BLOCK = 1 << 16


def never(_: str) -> None:
    """No fault."""


@dataclass
class Web:
    """A web server: what it has, how it is wrong, what it was asked for."""

    files: dict[str, bytes]
    """By path, without the first slash."""
    ranges: bool = True
    """Whether it understands Range."""
    cut: Callable[[str], int | None] = never
    """After how many bytes of its answer for a path the connection ends."""
    status: Callable[[str], int | None] = never
    """An answer of this kind instead of the file."""
    moved: dict[str, str] = field(default_factory=dict)
    """Path -> Location."""
    endless: str = ""
    """Path of a file without a stated length that never ends."""
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Path and query, and Range."""
    logins: set[str] = field(default_factory=set)
    sent: int = 0
    """Bytes of bodies."""
    url: str = ""

    def paths(self) -> list[str]:
        return [path.partition("?")[0] for path, _ in self.asked]


class _Handler(BaseHTTPRequestHandler):
    web: Web

    def log_message(self, *_: object) -> None:
        """Silence."""

    def do_GET(self) -> None:
        web, asked = self.web, self.headers.get("Range", "")
        web.asked.append((self.path[1:], asked))
        web.logins.add(self.headers.get("Authorization", ""))
        path = self.path[1:].partition("?")[0]
        status = web.status(path) or (302 if path in web.moved else None)
        if status is None and path not in web.files and path != web.endless:
            status = 404
        if status is not None:
            self._headers(status, {"Content-Length": "0", "Location": web.moved.get(path, "/")})
        elif path == web.endless:
            self._headers(200, {})
            self._send(itertools.repeat(bytes(_BLOCK)))
        else:
            self._file(path, web.files[path], asked)

    do_HEAD = do_GET
    """The body is too much, but every connection ends behind its answer."""

    def _headers(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, **self.web.headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def _file(self, path: str, data: bytes, asked: str) -> None:
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", asked) if self.web.ranges else None
        start = int(found[1]) if found else 0
        rest = data[start : int(found[2]) + 1 if found and found[2] else None]
        length = {"Content-Length": str(len(rest))}
        if found:
            length["Content-Range"] = f"bytes {start}-{start + len(rest) - 1}/{len(data)}"
        self._headers(206 if found else 200, length)
        rest = rest[: self.web.cut(path)]
        self._send(rest[k : k + _BLOCK] for k in range(0, len(rest), _BLOCK))

    def _send(self, blocks: Iterable[bytes]) -> None:
        self.close_connection = True
        try:
            for block in blocks:
                self.web.sent += len(block)  # before: whoever waits for it may look
                self.wfile.write(block)
        except OSError:  # the other side has had enough
            return


@contextmanager
def web_server(web: Web) -> Iterator[Web]:
    """Serves until the end; `web.url` is where."""
    handler = type("Handler", (_Handler,), {"web": web})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    web.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Wire:
    """TCP to another port of this machine."""

    port: int
    cuts: list[int]
    """After how many bytes of answers each connection ends; those behind the last do not."""
    made: int = 0
    """Connections."""


@contextmanager
def cut_wire(to: int, cuts: list[int]) -> Iterator[Wire]:
    """Connections that end in the middle of an answer."""
    listener = socket.create_server(("127.0.0.1", 0))
    wire = Wire(listener.getsockname()[1], cuts)

    def pump(source: socket.socket, sink: socket.socket, left: int) -> None:
        try:
            while left > 0 and (data := source.recv(1 << 16)):
                sink.sendall(data[:left])
                left -= len(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def serve() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:  # closed
                return
            far = socket.create_connection(("127.0.0.1", to))
            left = cuts[wire.made] if wire.made < len(cuts) else 1 << 60
            wire.made += 1
            for ends in ((near, far, 1 << 60), (far, near, left)):
                threading.Thread(target=pump, args=ends, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield wire
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def files_of(folder: Path, name: str = "c") -> dict[str, bytes]:
    """All files of a folder, as a server has them below `name`."""
    return {
        f"{name}/{path.relative_to(folder)}": path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
