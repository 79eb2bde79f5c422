"""What a server counts for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Meters:
    """Counters of one process. `prometheus_client` comes with Ray Serve."""

    media_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        """Nothing has been counted yet."""
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self._registry = CollectorRegistry()
        self._requests = Counter(
            "impasto_requests", "Requests for pictures, by HTTP status.", ["status"], registry=self._registry
        )
        self._seconds = Histogram(
            "impasto_request_seconds",
            "From a request's arrival to its answer, of those that got a picture.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._present = Gauge(
            "impasto_requests_present", "Requests being read, waiting or drawn.", registry=self._registry
        )

    @contextmanager
    def measuring(self) -> Iterator[Callable[[int], None]]:
        """A block that answers one request; it calls what is yielded with the status."""
        begun = time.perf_counter()

        def count(status: int) -> None:
            self._requests.labels(str(status)).inc()
            if status == 200:
                self._seconds.observe(time.perf_counter() - begun)

        with self._present.track_inprogress():
            yield count

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        from prometheus_client import generate_latest

        return generate_latest(self._registry)
