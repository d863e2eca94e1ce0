"""A local server that speaks as much of the hub's protocol as its client asks for."""

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest import mock

COMMIT = "c0ffee" + 34 * "0"


class Hub(ThreadingHTTPServer):
    """Repositories as {ORG/REPO: {path: content}}.

    Attributes:
      gated: repositories that require the token hf_secret.
      cut_at: number of bytes after which the first response with a file breaks off; 0 for none.
      lie: paths whose content is listed under another checksum.
      asked: range of every download of a file, empty for all of it.
    """

    def __init__(self, files: dict[str, dict[str, bytes]]):
        super().__init__(("localhost", 0), _Handler)
        self.files, self.gated, self.lie = files, set[str](), set[str]()
        self.cut_at, self.asked = 0, list[str]()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].removeprefix("/")
        if found := re.fullmatch(r"(?:datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(*found.groups())
        elif found := re.fullmatch(r"api/(?:models|datasets)/([^/]+/[^/]+)/(?:revision|tree)/([^/]+).*", path):
            self._listing(*found.groups(), tree="/tree/" in path)
        else:
            self._refuse(404, "EntryNotFound")

    def _allowed(self, repo: str, revision: str) -> bool:
        if repo not in self.server.files:
            self._refuse(401, "RepoNotFound")
        elif repo in self.server.gated and self.headers.get("Authorization") != "Bearer hf_secret":
            self._refuse(401, "GatedRepo")
        elif revision not in ("main", COMMIT):
            self._refuse(404, "RevisionNotFound")
        else:
            return True
        return False

    def _file(self, repo: str, revision: str, path: str) -> None:
        if not self._allowed(repo, revision):
            return
        if path not in self.server.files[repo]:
            self._refuse(404, "EntryNotFound")
            return
        content = self.server.files[repo][path]
        etag = hashlib.sha256(content + (b"!" if path in self.server.lie else b"")).hexdigest()
        start = int(match[1]) if (match := re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")) else 0
        body = content[start:]
        self.send_response(206 if start else 200)
        for name, value in {
            "ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Content-Length": len(body), "Accept-Ranges": "bytes",
            **({"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}),
        }.items():  # fmt: skip
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.server.asked.append(self.headers.get("Range") or "")
        if 0 < self.server.cut_at < len(body):
            self.wfile.write(body[: self.server.cut_at])
            self.server.cut_at = 0
            self.close_connection = True
            return
        self.wfile.write(body)

    def _listing(self, repo: str, revision: str, tree: bool) -> None:
        if not self._allowed(repo, revision):
            return
        names = list(self.server.files[repo])
        listed = [{"type": "file", "path": n, "size": len(self.server.files[repo][n]), "oid": "0" * 40} for n in names]
        about = {"id": repo, "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
        self._answer(200, json.dumps(listed if tree else about).encode())

    def _refuse(self, code: int, error: str) -> None:
        self._answer(code, b"{}", {"X-Error-Code": error, "X-Error-Message": error})

    def _answer(self, code: int, body: bytes, more: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {
            "Content-Length": str(len(body)),
            "Content-Type": "application/json",
            **(more or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextlib.contextmanager
def serving(files: dict[str, dict[str, bytes]], cache: str) -> Iterator[Hub]:
    """A hub that the client asks, with a cache of its own and without anybody's token."""
    import huggingface_hub.constants as known

    hub = Hub(files)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    places: dict[str, object] = {
        "HF_HUB_CACHE": cache,
        "HF_TOKEN_PATH": f"{cache}/no-token",
        "DOWNLOAD_CHUNK_SIZE": 65536,
    }
    with (
        mock.patch.dict("os.environ", {"HF_ENDPOINT": f"http://localhost:{hub.server_port}", "HF_TOKEN": ""}),
        mock.patch.multiple(known, **places),
    ):
        try:
            yield hub
        finally:
            hub.shutdown()
            hub.server_close()
