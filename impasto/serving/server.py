"""A model behind HTTP: Ray Serve keeps the workers and the queue, and this says what they do with a request."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from impasto.batch.cluster import LOCAL, connected, ray, ray_part, take_cores
from impasto.batch.ray import CPU_BACKENDS, Drawing, located
from impasto.errors import BackendError, OptionError, first_line
from impasto.files import uninterrupted

from .answers import MEDIA_TYPES, Answer, drawn
from .meters import Meters

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

_NAME = "impasto"
"""Name of the application in Ray Serve."""
_CONTROLLER, _NAMESPACE = "SERVE_CONTROLLER_ACTOR", "serve"
"""The process by which a cluster serves, as Ray Serve calls it."""
_PATIENCE_S = 10.0
"""Seconds in which a cluster's cores become free: what has just ended still holds them for some."""
_AT_ONCE = 2
"""Requests that a worker has at a time: while its model draws one, it reads or writes the other."""


@dataclass(frozen=True)
class Limits:
    """What a server takes on."""

    workers: int = 1
    """Processes with a model each: with a GPU each where the cluster has some, otherwise with `cores` cores."""
    cores: int = 1
    queue: int = 32
    """Requests that may wait for a worker; more are refused with status 503."""
    seconds: float = 60
    """From a request's first byte to its answer; then it is refused with status 504, or 408 where its body has not come."""
    bytes: int = 32 << 20
    """Most bytes of a request's body; more are refused with status 413."""
    pixels: int = 50_000_000
    """Most pixels of a picture; more are refused with status 413."""

    def __post_init__(self) -> None:
        """Raises OptionError for a limit that nothing keeps."""
        for name, value in vars(self).items():
            if value <= 0:
                raise OptionError(f"{name} is {value}; give more than 0")


@contextmanager
def serving(
    drawing: Drawing, limits: Limits, *, host: str = "127.0.0.1", port: int = 8000, address: str = LOCAL
) -> Iterator[str]:
    """A block in which a model answers; yields the server's URL.

    POST / with a picture file's bytes gives a picture file; ?format= one of png, jpg, webp, tiff, ?quality= 1 to 100. GET /health
    says whether a worker has its model, GET /metrics what happened, for Prometheus. Errors are one line of text.

    host: the address to listen on; 0.0.0.0 is every one of this machine's. address: of a Ray cluster, or "local".
    Raises MissingDependency, ModelNotFound, OptionError, and BackendError where the model does not load, the port is taken, the
    cluster serves already, or others hold its cores.
    """
    drawing, _ = located(drawing)
    ray()
    if address == LOCAL:
        _require_free(host, port)  # before Ray starts, which takes seconds
    with connected(address):
        serve = ray_part("serve")
        _require_no_server(serve, address)
        _require_free(host, port)
        options = _options(limits, drawing.backend)
        _require_room(limits, options)
        painter = serve.deployment(
            _Painter,
            name="painter",
            num_replicas=limits.workers,
            max_ongoing_requests=_AT_ONCE,
            max_queued_requests=limits.queue,
            ray_actor_options=options,
            graceful_shutdown_timeout_s=2,
        )
        places = limits.workers * _AT_ONCE + limits.queue
        front = serve.deployment(
            _Front,
            name="front",
            # One process reads all bodies and counts all requests. Those beyond the places are refused at once, and few come so far.
            num_replicas=1,
            max_ongoing_requests=2 * places + 16,
            max_queued_requests=places,
            backpressure_config={"status_code": 503, "retry_after_s": 1},
            ray_actor_options={"num_cpus": 0},
            graceful_shutdown_timeout_s=2,
        )
        cores = None if "num_gpus" in options else limits.cores
        try:
            try:
                serve.start(http_options={"host": host, "port": port, "keep_alive_timeout_s": 5})
                serve.run(front.bind(painter.bind(drawing, cores, limits.pixels), limits), name=_NAME, route_prefix="/")
            except Exception as error:  # Ray Serve's errors have no common base
                raise BackendError(f"the server did not start: {first_line(error)}") from error
            yield f"http://{host}:{port}"
        finally:
            with uninterrupted():  # its processes are the cluster's, and would outlive this one
                serve.shutdown()


def _require_no_server(serve: Any, address: str) -> None:
    """Raises BackendError where the cluster serves already. It has one server: another application would replace the one at /, and
    ending one would end all."""
    try:
        ray().get_actor(_CONTROLLER, namespace=_NAMESPACE)
    except ValueError:
        return
    names = ", ".join(sorted(serve.status().applications)) or "nothing yet"
    raise BackendError(
        f"the cluster at {address} has a server already, which serves {names}, and a cluster has one; end that first "
        "(its own Ctrl-C, or `serve shutdown`), or leave --ray out, which starts a cluster of its own"
    )


def _require_free(host: str, port: int) -> None:
    """Raises BackendError where the port is taken. Ray Serve shares its port (SO_REUSEPORT), so that two servers would get half of the
    requests each, and neither would know."""
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except OSError as error:
        why = error.strerror or first_line(error)
        raise BackendError(
            f"the server cannot listen on {host}, port {port}: {why}; end what listens there, or give another --port or --host"
        ) from None


def _options(limits: Limits, backend: str) -> dict[str, float]:
    """What of the cluster a worker takes. Raises OptionError where it holds less, since Serve would wait for ever."""
    held = ray().cluster_resources()
    on_cpu = backend in CPU_BACKENDS or not held.get("GPU")
    name, each = ("CPU", limits.cores) if on_cpu else ("GPU", 1)
    if limits.workers * each > held.get(name, 0):
        raise OptionError(
            f"{limits.workers} workers of {each} {name}s want more than the cluster's {held.get(name, 0):g}; give fewer"
        )
    return {"num_cpus": each} if on_cpu else {"num_cpus": 0, "num_gpus": each}


def _require_room(limits: Limits, options: dict[str, float]) -> None:
    """Raises BackendError where others hold what the workers need: Serve would wait for it, for as long as others take."""
    name, each = ("GPU", options["num_gpus"]) if "num_gpus" in options else ("CPU", options["num_cpus"])
    wanted = limits.workers * each
    deadline = time.monotonic() + _PATIENCE_S
    while (free := ray().available_resources().get(name, 0)) < wanted:
        if time.monotonic() > deadline:
            raise BackendError(
                f"the workers want {wanted:g} {name}s of the cluster, of which others have left {free:g}; end what runs there, or give "
                "fewer --workers or --cores"
            )
        time.sleep(0.5)


class _Painter:
    """A worker: one loaded model."""

    def __init__(self, drawing: Drawing, cores: int | None, most_pixels: int) -> None:
        if cores is not None:
            take_cores(cores)
        self._model = drawing.open()
        self._most_pixels = most_pixels

    async def draw(self, content: bytes, format: str, quality: int) -> Answer:
        return await asyncio.to_thread(drawn, self._model, content, format, quality, self._most_pixels)

    async def describe(self) -> str:
        return str(self._model.info)


class _Front:
    """Reads requests, hands their pictures to the workers' queue, and counts."""

    def __init__(self, painter: Any, limits: Limits) -> None:
        """painter: Ray Serve's handle of the workers."""
        self._painter = painter
        self._limits = limits
        self._meters = Meters()
        self._described: str | None = None

    async def __call__(self, request: Request) -> Response:
        from starlette.responses import Response

        if request.method == "GET" and request.url.path == "/metrics":
            return Response(self._meters.text(), media_type=self._meters.media_type)
        if request.method == "GET" and request.url.path == "/health":
            return Response(f"{await self._describe()}\n", media_type="text/plain")
        with self._meters.measuring() as count:
            answer = await self._answer(request)
            count(answer.status)
        headers = {"Retry-After": "1"} if answer.status == 503 else {}
        if answer.note:
            headers["X-Impasto-Note"] = answer.note.encode("ascii", "replace").decode()
        return Response(answer.content, answer.status, headers, answer.media_type)

    async def _describe(self) -> str:
        """What draws, in words. A worker is asked once: its queue is for pictures."""
        if self._described is None:
            self._described = await self._painter.describe.remote()
        return self._described

    async def _answer(self, request: Request) -> Answer:
        ends = time.monotonic() + self._limits.seconds
        try:
            content = await asyncio.wait_for(self._body(request), self._limits.seconds)
        except asyncio.TimeoutError:
            return Answer.refusal(408, f"the picture did not come within {self._limits.seconds:g} s; send it again")
        if request.url.path != "/":
            return Answer.refusal(404, "nothing here; POST a picture to /, or GET /health or /metrics")
        if request.method != "POST":
            return Answer.refusal(405, "POST a picture file's bytes: curl --data-binary @photo.jpg URL -o result.png")
        format, quality = request.query_params.get("format", "png"), request.query_params.get("quality", "95")
        if format not in MEDIA_TYPES:
            return Answer.refusal(400, f"unknown format {format!r}; choose one of {', '.join(MEDIA_TYPES)}")
        if not (quality.isascii() and quality.isdigit() and 1 <= int(quality) <= 100):
            return Answer.refusal(400, f"quality is {quality!r}; give a number from 1 to 100")
        if content is None:
            return Answer.refusal(413, f"the file has more than {self._limits.bytes:,} bytes; send a smaller one")
        if not content:
            return Answer.refusal(400, "the request has no body; send a picture file's bytes")
        return await self._drawn(content, format, int(quality), ends - time.monotonic())

    async def _body(self, request: Request) -> bytes | None:
        """The request's body; None where it is larger than the limit, above which nothing is kept.

        It is read to its end in any case: who still sends while the connection is closed never sees the answer.
        """
        content, size = bytearray(), 0
        async for part in request.stream():
            size += len(part)
            if size <= self._limits.bytes:
                content += part
            else:
                content.clear()
        return bytes(content) if size <= self._limits.bytes else None

    async def _drawn(self, content: bytes, format: str, quality: int, seconds: float) -> Answer:
        """A worker's answer, or that there was none within the seconds, or no place in the queue."""
        from ray.serve.exceptions import BackPressureError

        waiting = self._painter.draw.remote(content, format, quality)
        try:
            answer: Answer = await asyncio.wait_for(_result(waiting), max(seconds, 0))
        except BackPressureError:
            return Answer.refusal(503, f"{self._limits.queue} pictures wait already; send it again in a second")
        except asyncio.TimeoutError:
            waiting.cancel()
            return Answer.refusal(504, f"no worker was done within {self._limits.seconds:g} s; send a smaller picture")
        except Exception as error:  # a worker that was lost; Serve starts another
            return Answer.refusal(500, f"the worker failed: {first_line(error)}; send the picture again")
        return answer


async def _result(waiting: Any) -> Answer:
    answer: Answer = await waiting
    return answer
