"""A bucket on this machine: the part of Cloud Storage's JSON API used by the libraries behind gs:// paths.

gcsfs (under etils), tensorstore (under Orbax), ArrayRecord's own reader and google-cloud-storage (under tensorboardX)
each have a variable with the address of Cloud Storage; `variables` sets all of them to this server.
"""

import collections
import contextlib
import dataclasses
import email.parser
import http.server
import json
import re
import socket
import struct
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any


@dataclasses.dataclass(frozen=True)
class Fault:
    """How the answer to one request goes wrong.

    Attributes:
      status: HTTP status with which the request is refused; 0 for none.
      seconds: time before the answer.
      reset: where the connection is reset: `before` the request is carried out, `after` it, or `amid` the answer, of
        which half is sent; empty for nowhere.
      short: whether the last byte of the answer's content is missing, with a length that says so.
    """

    status: int = 0
    seconds: float = 0.0
    reset: str = ""
    short: bool = False


class Bucket(http.server.ThreadingHTTPServer):
    """Objects in memory: name -> bytes and generation. Any bucket name is that of the one bucket.

    Attributes:
      refuses: HTTP status with which every request is refused; 0 for none.
      requests: number of requests for the content of each object.
      latency: seconds before each response with content.
      fault: the fault of a request, given its verb and its path with the query; None for none.
    """

    daemon_threads = True
    request_queue_size = 1024  # connections that wait to be accepted; of five, others would try again after seconds

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.RLock()
        self.objects: dict[str, tuple[bytes, int]] = {}
        self.uploads: dict[str, tuple[str, bytearray]] = {}
        self.generation = 0
        self.refuses = 0
        self.latency = 0.0
        self.fault: Callable[[str, str], Fault | None] = lambda verb, path: None
        self.requests: collections.Counter[str] = collections.Counter()

    @property
    def variables(self) -> dict[str, str]:
        url = f"http://127.0.0.1:{self.server_port}"
        return {
            "STORAGE_EMULATOR_HOST": url,  # gcsfs, google-cloud-storage
            "TENSORSTORE_GCS_HTTP_URL": url,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",  # of tensorstore
            "CLOUD_STORAGE_EMULATOR_ENDPOINT": url,  # ArrayRecord
            "GOOGLE_CLOUD_PROJECT": "project",
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # asks over gRPC what kind of bucket it is
        }

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores the error of a client that was killed."""

    def read(self, name: str) -> bytes:
        """The content of an object; empty if there is none."""
        return self.objects.get(name, (b"", 0))[0]

    def put(self, name: str, data: bytes) -> dict[str, Any]:
        with self.lock:
            self.generation += 1
            self.objects[name] = (data, self.generation)
            return self.about(name)

    def about(self, name: str) -> dict[str, Any]:
        data, generation = self.objects[name]
        return {
            "kind": "storage#object",
            "name": name,
            "bucket": "bucket",
            "size": str(len(data)),
            "generation": str(generation),
            "metageneration": "1",
            "updated": "2026-01-01T00:00:00.000Z",
            "timeCreated": "2026-01-01T00:00:00.000Z",
            "etag": str(generation),
        }

    def listing(self, query: dict[str, str]) -> dict[str, Any]:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        first, last = query.get("startOffset", ""), query.get("endOffset")
        items, folders = [], set()
        for name in sorted(self.objects):
            if not name.startswith(prefix) or name < first or (last and name >= last):
                continue
            head, found, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
            if found:
                folders.add(prefix + head + found)
            else:
                items.append(self.about(name))
        return {"kind": "storage#objects", "items": items, "prefixes": sorted(folders)}


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Bucket
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else the content waits until its headers are acknowledged, 40 ms later

    def log_message(self, *args: Any) -> None:
        pass

    def answer(self) -> None:
        path, _, query = self.path.partition("?")
        arguments = dict(urllib.parse.parse_qsl(query))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._chunks()
        if "alt=media" in query:
            time.sleep(self.server.latency)
        self.fault = self.server.fault(self.command, self.path) or Fault()
        time.sleep(self.fault.seconds)
        if self.fault.reset == "before":
            self._reset()
            return
        with self.server.lock:
            if refused := self.server.refuses or self.fault.status:
                self._send({"error": {"code": refused, "message": "refused"}}, refused)
            else:
                self._route(path, arguments, body)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def _chunks(self) -> bytes:
        data = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _route(self, path: str, query: dict[str, str], body: bytes) -> None:
        bucket = self.server
        upload = re.fullmatch(r"(?:/upload|/resumable/upload)/storage/v1/b/[^/]+/o", path)
        listed = re.fullmatch(r"(?:/storage/v1)?/b/[^/]+/o", path)
        copied = re.fullmatch(r"(?:/storage/v1)?/b/[^/]+/o/(.+)/(?:rewriteTo|copyTo)/b/[^/]+/o/(.+)", path)
        moved = re.fullmatch(r"(?:/storage/v1)?/b/[^/]+/o/(.+)/moveTo/o/(.+)", path)
        object_ = re.fullmatch(r"(?:/download)?(?:/storage/v1)?/b/[^/]+/o/(.+)", path)
        if upload:
            self._upload(query, body)
        elif listed:
            self._send(bucket.listing(query))
        elif copied:
            source, target = (urllib.parse.unquote(x) for x in copied.groups())
            self._send({"done": True, "resource": bucket.put(target, bucket.objects[source][0])})
        elif moved:
            source, target = (urllib.parse.unquote(x) for x in moved.groups())
            self._send(bucket.put(target, bucket.objects.pop(source)[0]))
        elif object_:
            self._object(urllib.parse.unquote(object_[1]), query)
        elif re.fullmatch(r"(?:/storage/v1)?/b/[^/]+", path):
            self._send({"kind": "storage#bucket", "name": "bucket", "location": "HERE"})
        elif path.startswith("/batch"):
            self._batch(body)
        else:
            self._send({"error": {"code": 404, "message": path}}, 404)

    def _object(self, name: str, query: dict[str, str]) -> None:
        if name not in self.server.objects:
            self._send({"error": {"code": 404, "message": f"No such object: {name}"}}, 404)
        elif self.command == "DELETE":
            del self.server.objects[name]
            self._send(None, 204)
        elif query.get("alt") == "media":
            self._media(name)
        else:
            self._send(self.server.about(name))

    def _media(self, name: str) -> None:
        data, generation = self.server.objects[name]
        self.server.requests[name] += 1
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        headers = {"x-goog-generation": str(generation), "x-goog-stored-content-length": str(len(data))}
        if not wanted:
            self._send(data, headers=headers)
            return
        first = int(wanted[1]) if wanted[1] else max(len(data) - int(wanted[2]), 0)
        last = min(int(wanted[2]), len(data) - 1) if wanted[1] and wanted[2] else len(data) - 1
        if first >= len(data):
            self._send(b"", 416, {"Content-Range": f"bytes */{len(data)}"})
            return
        self._send(data[first : last + 1], 206, headers | {"Content-Range": f"bytes {first}-{last}/{len(data)}"})

    def _upload(self, query: dict[str, str], body: bytes) -> None:
        bucket, kind = self.server, query["uploadType"]
        if kind == "media":
            self._put(query["name"], query, body)
        elif kind == "multipart":
            head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
            about, data = email.parser.BytesParser().parsebytes(head + body).get_payload()
            self._put(json.loads(about.get_payload(decode=True))["name"], query, data.get_payload(decode=True))
        elif "upload_id" not in query:
            identity = str(len(bucket.uploads))
            name = query.get("name") or json.loads(body)["name"]
            bucket.uploads[identity] = (name, bytearray())
            url = f"http://127.0.0.1:{bucket.server_port}{self.path}&upload_id={identity}"
            self._send({}, headers={"Location": url})
        else:
            name, data = bucket.uploads[query["upload_id"]]
            sent = re.match(r"bytes (\d+)-", self.headers.get("Content-Range", ""))
            data[int(sent[1]) if sent else len(data) :] = body  # a part may be sent again
            if self.headers.get("Content-Range", "").endswith("/*"):
                self._send(None, 308, {"Range": f"bytes=0-{len(data) - 1}"})
            else:
                self._put(name, query, bytes(data))

    def _put(self, name: str, query: dict[str, str], data: bytes) -> None:
        wanted = query.get("ifGenerationMatch")
        if wanted is not None and int(wanted) != self.server.objects.get(name, (b"", 0))[1]:
            self._send({"error": {"code": 412, "message": "conditionNotMet"}}, 412)
        else:
            self._send(self.server.put(name, data))

    def _batch(self, body: bytes) -> None:
        """Deletions, many in one request."""
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        parts = []
        for part in email.parser.BytesParser().parsebytes(head + body).get_payload():
            line = part.get_payload(decode=True).decode().splitlines()[0]
            found = re.match(r"DELETE (?:https?://[^/]+)?/storage/v1/b/[^/]+/o/(\S+)", line)
            code = 204 if found and self.server.objects.pop(urllib.parse.unquote(found[1]), None) else 404
            parts.append(
                f"--x\r\nContent-Type: application/http\r\n\r\nHTTP/1.1 {code} X\r\nContent-Length: 0\r\n\r\n\r\n"
            )
        text = "".join(parts) + "--x--\r\n"
        self._send(text.encode(), headers={"Content-Type": "multipart/mixed; boundary=x"})

    def _send(self, body: Any, code: int = 200, headers: dict[str, str] | None = None) -> None:
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        if self.fault.short:
            data = data[:-1]
        if self.fault.reset == "after":
            self._reset()
            return
        self.send_response(code)
        known = {"Content-Type": "application/octet-stream" if isinstance(body, bytes) else "application/json"}
        for name, value in (known | (headers or {}) | {"Content-Length": str(len(data))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if self.fault.reset else data)
        if self.fault.reset:
            self._reset()


for verb in ("GET", "POST", "PUT", "DELETE"):
    setattr(_Handler, f"do_{verb}", _Handler.answer)


@contextlib.contextmanager
def serve() -> Iterator[Bucket]:
    """A running server."""
    server = Bucket()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
