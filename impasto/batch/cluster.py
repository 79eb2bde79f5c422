"""Ray's clusters: joined, or started on this machine for as long as they are needed."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

from impasto.errors import BackendError, MissingDependency, OptionError, first_line, install
from impasto.files import STOPPING, uninterrupted
from impasto.package.file_lock import locked_if_free
from impasto.runtime.cpu import usable_cores

LOCAL = "local"
"""The address of a cluster that is started here and ends with the program."""

_STORE_BYTES = 200_000_000
"""Bytes of Ray's object store on this machine. Paths and tables go through it, and no picture that is read from a file."""
_START_S = 120
"""Seconds that a node on this machine may take to start."""
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is told to Ray's makers
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # its notes of what it does would stand between ours
    "RAY_worker_niceness": "0",  # its 15 lets whatever else runs come first, and somebody waits for the pictures
    "RAY_agent_register_timeout_ms": "180000",  # 30 seconds are too few on a busy machine
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "120",  # likewise 5
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what Ray 3 will do; without it each start warns of it
}
"""Environment variables that are set before Ray starts, unless the user has set them."""


def ray() -> Any:
    """The library Ray. Raises MissingDependency with the command that installs it."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise MissingDependency(f"Ray does not load ({first_line(error)}): {install('ray')}") from None
    return ray


def ray_part(name: str) -> Any:
    """One of Ray's libraries, told to keep quiet. name: "data" or "serve". Raises MissingDependency."""
    ray()
    try:
        part = import_module(f"ray.{name}")
    except ImportError as error:
        raise MissingDependency(f"Ray {name.title()} does not load ({first_line(error)}): {install('ray')}") from None
    logging.getLogger(f"ray.{name}").setLevel(logging.ERROR)
    return part


@contextmanager
def connected(address: str) -> Iterator[None]:
    """A block in which this program belongs to a cluster. One that the program has joined before is taken as it is.

    address: LOCAL, or what `ray start` has told, such as 10.0.0.1:6379; "auto" is the cluster that this machine belongs to.
    Raises MissingDependency, OptionError where no cluster answers, BackendError where none can be started.
    """
    library = ray()
    if library.is_initialized():
        yield
        return
    with ExitStack() as opened:
        if address == LOCAL:
            address = opened.enter_context(local_cluster())
        opened.callback(library.shutdown)  # before, since Ctrl-C may come while it joins
        try:
            with _silent(), _our_signals():
                library.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError) as error:
            raise OptionError(
                f"no Ray cluster answers at {address} ({first_line(error)}); start one with `ray start --head`, or give {LOCAL}"
            ) from None
        yield


@contextmanager
def _silent() -> Iterator[None]:
    """A block in which nothing reaches standard error: Ray's C++ writes there which level of notes it was told to leave out."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def _our_signals() -> Iterator[None]:
    """A block that starts something of Ray's, and after which signals end this program as they did before.

    Ray takes SIGTERM twice: in Python, where it exits in its own way, and in C++, where it writes what each thread was doing. A program
    that has no handler keeps Ray's in Python, so that what runs here is ended in order.
    """
    from ray._private import utils

    if threading.current_thread() is not threading.main_thread():  # which alone sets handlers
        yield
        return
    setter = utils.set_sigterm_handler
    if signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = setter
        for number in STOPPING:
            if (handler := signal.getsignal(number)) is not None:
                signal.signal(number, handler)  # again, in place of what C++ has put there


@contextmanager
def local_cluster() -> Iterator[str]:
    """The address of a cluster of this machine's cores and GPUs, which lives as long as the block. Raises BackendError."""
    ray()  # whose settings must be there before Ray's processes
    from ray.cluster_utils import Cluster

    # `ray.init` would start an autoscaler and a log monitor besides, each a Python of its own, and a dashboard's agent in full. On a
    # busy machine Ray gives up when its agents have not said in 15 seconds on which ports they listen: it is told two of them.
    parts: dict[str, Any] = {"include_dashboard": False, "no_monitor": True, "include_log_monitor": False}
    parts |= dict(zip(("metrics_agent_port", "runtime_env_agent_port"), _free_ports(2), strict=True))
    with TemporaryDirectory(prefix="impasto-", ignore_cleanup_errors=True) as folder, _in_folder(folder):
        cluster = Cluster(shutdown_at_exit=True)
        try:
            try:
                with _starting(), _without_dashboard(), _our_signals():
                    cluster.add_node(num_cpus=usable_cores(), num_gpus=None, object_store_memory=_STORE_BYTES, **parts)
            except Exception as error:  # what Ray's start stumbles over has no common base
                raise BackendError(f"Ray did not start on this machine: {first_line(error)}") from error
            yield cluster.address
        finally:
            with uninterrupted():
                cluster.shutdown()


@contextmanager
def _starting() -> Iterator[None]:
    """A block that starts nodes: Ray waits longer for them, and ends what it had begun of one where the block fails or is interrupted.

    Ray itself gives a node 30 seconds, which are too few on a busy machine, and keeps those of one that failed until Python ends.
    """
    from ray._private import node, services

    begun: list[Any] = []
    deadline = time.monotonic() + _START_S

    class Kept(node.Node):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            begun.append(self)
            super().__init__(*arguments, **options)

    def get_node(*arguments: Any) -> Any:
        while True:
            try:
                return asked(*arguments)
            except RuntimeError:  # it is not there yet
                if time.monotonic() > deadline or begun[-1].dead_processes():
                    raise
                time.sleep(0.2)

    asked, made = services.get_node, node.Node
    services.get_node, node.Node = get_node, Kept
    try:
        yield
    except BaseException:
        with uninterrupted():
            for one in begun:
                if hasattr(one, "all_processes"):
                    one.kill_all_processes(check_alive=False, wait=True)
        raise
    finally:
        services.get_node, node.Node = asked, made


def _free_ports(number: int) -> list[int]:
    """Ports on which nobody listens now."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("", 0))
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def _without_dashboard() -> Iterator[None]:
    """A block in which Ray takes the dashboard's libraries for missing, and so starts its agent without what they are for."""
    name = "ray.dashboard.optional_deps"
    before = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]  # which makes importing it an ImportError
    try:
        yield
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before


@contextmanager
def _in_folder(folder: str) -> Iterator[None]:
    """A block in which Ray's sockets, logs and notes go into a folder, which is gone afterwards, and not into /tmp/ray."""
    before = os.environ.get("RAY_TMPDIR")
    os.environ["RAY_TMPDIR"] = folder
    Path(folder, "ray").mkdir()
    try:
        yield
    finally:
        del os.environ["RAY_TMPDIR"]
        if before is not None:
            os.environ["RAY_TMPDIR"] = before


_held: list[AbstractContextManager[bool]] = []
"""The lock on this process's cores, held until the process ends."""


def take_cores(number: int) -> None:
    """Confine this thread, and those that it starts, to so many cores that no other worker on this machine has taken.

    Ray counts cores and gives none. Without this every worker's backend would start a thread for each core of the machine. Where
    none are left, or the system cannot tell, the thread keeps all.
    """
    if not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    for first in range(0, len(cores) - number + 1, number):
        lock = Path(gettempdir(), f"impasto-core-{cores[first]}-{os.getuid()}.lock")
        lock.touch()
        holding = locked_if_free(lock)
        if holding.__enter__():
            _held.append(holding)
            os.sched_setaffinity(0, cores[first : first + number])
            return
        holding.__exit__(None, None, None)
