"""A web server that serves bytes and misbehaves on request."""

import base64
import hashlib
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class File:
    """What is served under a name, and how.

    Args:
        ranges: answers Range with 206; else with the whole file.
        etag: sent, and compared with If-Range; empty for a server that names no version.
        drops: for each request in turn, after how many bytes the connection is cut; none left: it is not.
        codes: for each request in turn, an error status instead of the file; none left: the file.
        announced: bytes the server claims the file has.
        headers: sent besides.
        redirect_headers: the file is behind a redirect that sends these.
        chunked: sent without a length.
        stall_after: the server falls silent after this many bytes, until it is stopped.
    """

    content: bytes
    ranges: bool = True
    etag: str = '"v1"'
    drops: list[int] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    announced: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    redirect_headers: dict[str, str] | None = None
    chunked: bool = False
    stall_after: int | None = None
    requests: list[dict[str, str]] = field(default_factory=list)

    def md5_header(self) -> str:
        """As Google's storage sends it."""
        return "crc32c=AAAAAA==,md5=" + base64.b64encode(hashlib.md5(self.content).digest()).decode()


class FileServer:
    """Serves `files` while its `with` block lasts."""

    def __init__(self) -> None:
        self.files: dict[str, File] = {}
        self.stopped = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> "FileServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self.stopped.set()
        self._server.shutdown()
        self._server.server_close()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/{name}"

    def serve(self, name: str, content: bytes, **settings) -> File:
        self.files[name] = File(content, **settings)
        return self.files[name]


def _handler(server: FileServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *arguments: object) -> None:
            pass

        def do_GET(self) -> None:
            self.close_connection = True
            name = self.path.lstrip("/").partition("?")[0]
            file = server.files.get(name.removeprefix("there/"))
            if file is None:
                self._reply(404)
                return
            if file.redirect_headers is not None and not name.startswith("there/"):
                self._reply(302, {"Location": "/there/" + name, **file.redirect_headers})
                return
            file.requests.append(dict(self.headers))
            code = file.codes.pop(0) if file.codes else 200
            if code >= 400:
                self._reply(code)
                return
            self._send(file)

        def _send(self, file: File) -> None:
            size = len(file.content)
            start, code = 0, 200
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if file.ranges and wanted and self.headers.get("If-Range", file.etag) == file.etag:
                start, code = int(wanted[1]), 206
                if start >= size:
                    self._reply(416, {"Content-Range": f"bytes */{size}"})
                    return
            announced = size if file.announced is None else file.announced
            headers = {"Content-Type": "application/zip", **file.headers}
            if file.etag:
                headers["ETag"] = file.etag
            if code == 206:
                headers["Content-Range"] = f"bytes {start}-{announced - 1}/{announced}"
            body = file.content[start:]
            cut = file.drops.pop(0) if file.drops else len(body)
            if file.chunked:
                self._reply(code, {**headers, "Transfer-Encoding": "chunked"}, length=None)
                self.wfile.write(f"{len(body):x}\r\n".encode() + body[:cut])
                if cut == len(body):
                    self.wfile.write(b"\r\n0\r\n\r\n")
                return
            self._reply(code, headers, length=announced - start)
            self.wfile.write(body[: cut if file.stall_after is None else file.stall_after])
            if file.stall_after is not None:
                server.stopped.wait(30)

        def _reply(self, code: int, headers: dict[str, str] | None = None, length: int | None = 0) -> None:
            self.send_response(code)
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            if length is not None:
                self.send_header("Content-Length", str(length))
            self.send_header("Connection", "close")
            self.end_headers()

    return Handler
