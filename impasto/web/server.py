"""A server for looking at a site on this machine, with the two headers that WebAssembly's threads want."""

from __future__ import annotations

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from impasto.errors import OptionError

HEADERS = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
"""With both a page may share memory between threads (https://html.spec.whatwg.org/#cross-origin-isolated)."""


class _Handler(SimpleHTTPRequestHandler):
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {
        ".mjs": "text/javascript",
        ".js": "text/javascript",
        ".wasm": "application/wasm",
        ".onnx": "application/octet-stream",
    }

    def __init__(self, *arguments: Any, isolated: bool, **named: Any) -> None:
        self._isolated = isolated
        super().__init__(*arguments, **named)

    def end_headers(self) -> None:
        for name, value in HEADERS.items() if self._isolated else ():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        """Nobody wants a line for each file."""


def server(folder: Path, port: int = 0, *, isolated: bool = True) -> ThreadingHTTPServer:
    """A server of a folder on this machine's own address alone, to run with `serve_forever`.

    port: 0 takes a free one, which `server_port` then is. isolated: send HEADERS. Raises OptionError where the port is taken.
    """
    handler = partial(_Handler, directory=str(folder), isolated=isolated)
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), handler)
    except (OSError, OverflowError) as error:
        raise OptionError(f"cannot serve on port {port}: {error}; choose another with --port") from None
