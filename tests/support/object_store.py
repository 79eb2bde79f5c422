"""A server that speaks as much of Amazon S3's protocol as pyarrow's file system asks for, over a dictionary. It checks no signature."""

from __future__ import annotations

import io
import re
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import BinaryIO
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

_XML = '<?xml version="1.0" encoding="UTF-8"?>'


@dataclass
class ObjectStore:
    """What the server holds."""

    url: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    """By bucket and key, as in "bucket/folder/name"."""
    buckets: set[str] = field(default_factory=lambda: {"bucket"})
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)
    """Of uploads that are not complete."""
    requests: list[str] = field(default_factory=list)
    """Every request's first line."""


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """A store on a port of its own, with an empty bucket called "bucket"."""
    store = ObjectStore()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"store": store}))
    store.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _without_chunks(stream: BinaryIO) -> bytes:
    """What chunks hold, of HTTP (RFC 9112, 7.1) or of S3, whose sizes have a signature behind them. Reads past the trailers."""
    content = b""
    while length := int(stream.readline().partition(b";")[0], 16):
        content += stream.read(length)
        stream.readline()
    while stream.readline().strip():
        pass
    return content


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: ObjectStore

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Into the store's list."""
        self.store.requests.append(self.requestline)

    def _asked(self) -> tuple[str, str, dict[str, str]]:
        """Bucket, key, query."""
        url = urlsplit(self.path)
        bucket, _, key = unquote(url.path).lstrip("/").partition("/")
        return bucket, key, {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}

    def do_HEAD(self) -> None:
        bucket, key, _ = self._asked()
        if not key:
            self._answer(200 if bucket in self.store.buckets else 404)
        elif (content := self.store.objects.get(f"{bucket}/{key}")) is None:
            self._answer(404)
        else:
            self._answer(200, content)

    def do_GET(self) -> None:
        bucket, key, query = self._asked()
        if not key:
            self._list(bucket, query)
            return
        content = self.store.objects.get(f"{bucket}/{key}")
        if content is None:
            self._error(404, "NoSuchKey")
            return
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not asked:
            self._answer(200, content)
            return
        first, last = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
        self._answer(206, content[first : last + 1], {"Content-Range": f"bytes {first}-{last}/{len(content)}"})

    def do_PUT(self) -> None:
        bucket, key, query = self._asked()
        content = self._body()
        if bucket not in self.store.buckets:
            self._error(404, "NoSuchBucket")
        elif "uploadId" in query:
            self.store.parts[query["uploadId"]][int(query["partNumber"])] = content
            self._answer(200, headers={"ETag": f'"{query["partNumber"]}"'})
        else:
            self.store.objects[f"{bucket}/{key}"] = content
            self._answer(200, headers={"ETag": '"whole"'})

    def do_POST(self) -> None:
        bucket, key, query = self._asked()
        self._body()
        if "uploads" in query:
            number = uuid.uuid4().hex
            self.store.parts[number] = {}
            told = f"<Bucket>{bucket}</Bucket><Key>{escape(key)}</Key><UploadId>{number}</UploadId>"
            self._xml("InitiateMultipartUploadResult", told)
            return
        parts = self.store.parts.pop(query["uploadId"])
        self.store.objects[f"{bucket}/{key}"] = b"".join(parts[number] for number in sorted(parts))
        self._xml("CompleteMultipartUploadResult", f"<Bucket>{bucket}</Bucket><Key>{escape(key)}</Key>")

    def do_DELETE(self) -> None:
        bucket, key, query = self._asked()
        self.store.parts.pop(query.get("uploadId", ""), None)
        self.store.objects.pop(f"{bucket}/{key}", None)
        self._answer(204)

    def _list(self, bucket: str, query: dict[str, str]) -> None:
        """ListObjectsV2, in one page."""
        if bucket not in self.store.buckets:
            self._error(404, "NoSuchBucket")
            return
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        entries, below = [], set()
        for path, content in sorted(self.store.objects.items()):
            holder, _, key = path.partition("/")
            if holder != bucket or not key.startswith(prefix):
                continue
            rest = key[len(prefix) :]
            if delimiter and delimiter in rest:
                below.add(prefix + rest.partition(delimiter)[0] + delimiter)
            else:
                entries.append(
                    f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
                    f"<Size>{len(content)}</Size></Contents>"
                )
        folders = "".join(f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in sorted(below))
        count = len(entries) + len(below)
        self._xml(
            "ListBucketResult",
            f"<Name>{bucket}</Name><KeyCount>{count}</KeyCount><IsTruncated>false</IsTruncated>"
            f"{''.join(entries)}{folders}",
        )

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            content = _without_chunks(self.rfile)
        else:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        signed = "aws-chunked" in self.headers.get("Content-Encoding", "")
        return _without_chunks(io.BytesIO(content)) if signed else content

    def _xml(self, name: str, inner: str) -> None:
        self._answer(200, f"{_XML}<{name}>{inner}</{name}>".encode(), {"Content-Type": "application/xml"})

    def _error(self, status: int, code: str) -> None:
        content = f"{_XML}<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
        self._answer(status, content, {"Content-Type": "application/xml"})

    def _answer(self, status: int, content: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Last-Modified": formatdate(usegmt=True), **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
