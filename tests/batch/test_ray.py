"""Ray, with a cluster of two worker processes: folders of pictures, killed workers and drivers, and the HTTP server."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import numpy as np
import pytest
from PIL import Image
from support.command_line import cli
from support.small_models import picture

import impasto
from impasto.errors import BackendError, OptionError, PackageError, PictureError

pytest.importorskip("ray.data", reason="Ray is not installed: pip install 'impasto[ray]'")
pytest.importorskip("ray.serve", reason="Ray is not installed: pip install 'impasto[ray]'")

from impasto.batch import cluster as clusters
from impasto.batch.ray import Cluster, Drawing, located, map_pictures
from impasto.batch.stores import Place, StoredFiles
from impasto.package.spec import ModelSpec, SizeRule
from impasto.serving import Limits, server

pytestmark = pytest.mark.timeout(600)  # Ray starts eight processes, and each imports for seconds of a busy core


@pytest.fixture(scope="module")
def address():
    """The address of a cluster with two cores, and so with two actors of one core."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clusters, "usable_cores", lambda: 2)
        with clusters.local_cluster() as found:
            yield found


@pytest.fixture(scope="module")
def joined(address):
    with clusters.connected(address):
        yield address


@pytest.fixture
def album(tmp_path):
    """40 tiny pictures, some of which are cut off or none, some below, and two of one name."""
    folder = tmp_path / "album"
    (folder / "below").mkdir(parents=True)
    for number in range(36):
        place = folder / "below" if number % 3 == 0 else folder
        Image.fromarray(picture(20 + number % 5, 30, number)).save(place / f"{number:02}.png")
    Image.fromarray(picture(20, 30, 40)).save(folder / "twice.png")
    Image.fromarray(picture(20, 30, 41)).save(folder / "twice.jpg")
    (folder / "cut.png").write_bytes((folder / "01.png").read_bytes()[:300])
    (folder / "none.jpg").write_bytes(b"no picture")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file in it, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_killed_worker_costs_nothing_and_the_bytes_are_those_of_run(joined, make_package, album, tmp_path):
    package = make_package()
    assert cli("run", package, album, "-r", "-o", tmp_path / "alone")[0] == 1
    wanted = contents(tmp_path / "alone")
    assert len(wanted) == 38
    killed: list[int] = []

    def kill_one(done: int, total: int) -> None:
        assert total == 40
        if done >= 8 and not killed:
            killed.append(_workers()[0])
            os.kill(killed[0], signal.SIGKILL)

    done = map_pictures(
        str(package),
        album,
        tmp_path / "out",
        recursive=True,
        cluster=Cluster(joined, cores=1, batch=4),
        progress=kill_one,
    )
    assert killed
    assert contents(tmp_path / "out") == wanted
    assert (done.written, done.there_already, done.actors) == (38, 0, 2)
    assert [Path(failure.source).name for failure in done.failed] == ["cut.png", "none.jpg"]
    assert "is damaged" in done.failed[0].why
    assert sum(done.workers.values()) == 38


def _workers() -> list[int]:
    """Process numbers of Ray's actors that draw."""
    found = subprocess.run(["ps", "-eo", "pid,stat,args"], capture_output=True, text=True, check=True).stdout
    lines = [line.split(None, 2) for line in found.splitlines() if "ray::MapWorker" in line]
    return [int(pid) for pid, state, _ in lines if not state.startswith("Z")]


def test_a_killed_driver_goes_on_where_it_was(address, joined, make_package, album, tmp_path):
    package = make_package()
    cli("run", package, album, "-r", "-o", tmp_path / "alone")
    out = tmp_path / "out"
    arguments = ["run", package, album, "-r", "-o", out, "--ray", address, "--ray-cores", 1, "--ray-batch", 2]
    driver = subprocess.Popen(
        [sys.executable, "-m", "impasto", *map(str, arguments)], stderr=subprocess.PIPE, text=True
    )
    _wait(lambda: driver.poll() is not None or len(list(out.rglob("[!.]*.png"))) > 4)
    driver.kill()
    driver.communicate()
    _wait(lambda: not _workers())  # Ray ends them with their driver
    before = {name: path.stat().st_mtime_ns for name, path in _finished(out).items()}
    assert before
    code, stdout, stderr = cli(*arguments, "--json", tmp_path / "done.json")
    assert code == 1, stderr
    assert "2 pictures failed" in stderr
    assert "cut.png" in stderr
    assert f"{38 - len(before)} of {40 - len(before)} files written" in stdout
    assert f"{len(before)} of 40 results were there already" in stderr
    assert json.loads((tmp_path / "done.json").read_text())["there_already"] == len(before)
    assert {name: content for name, content in contents(out).items() if not Path(name).name.startswith(".")} == (
        contents(tmp_path / "alone")
    )
    assert before.items() <= {name: path.stat().st_mtime_ns for name, path in _finished(out).items()}.items()


def _finished(folder: Path) -> dict[str, Path]:
    return {str(path.relative_to(folder)): path for path in folder.rglob("*.png") if not path.name.startswith(".")}


def _wait(until, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not until() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert until()


def test_a_model_that_does_not_load_is_one_line(joined, make_package, album, tmp_path):
    with pytest.raises(BackendError, match="process"):
        map_pictures(
            Drawing(str(make_package()), backend="tensorrt"), album, tmp_path / "out", cluster=Cluster(joined, cores=1)
        )


class TestBeforeAnythingStarts:
    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (("{album}/01.png", "-o", "{out}"), "--ray takes one folder"),
            (("{album}",), "--ray needs to know where the results go"),
            (("{album}", "-o", "{album}"), "written among the pictures"),
            (("{album}", "-o", "{out}", "--html", "{out}.html"), "leave --painting, --html, --device"),
            (("{album}", "-o", "{out}", "--window", "40,400"), "--crf and --window out"),
            (("{album}", "-o", "{out}", "--crf", "20"), "--crf and --window out"),
            (("{album}", "-o", "{out}", "--no-audio"), "--no-audio, --crf and --window out"),
            (("{album}", "-o", "nowhere://x/y"), "cannot open nowhere://x/y"),
            (("{album}", "-o", "{out}", "--format", "gif"), "unknown format 'gif'"),
        ],
    )
    def test_wrong_options_are_one_line(self, make_package, album, tmp_path, arguments, told):
        words = [word.format(album=album, out=tmp_path / "out") for word in arguments]
        code, _, stderr = cli("run", make_package(), *words, "--ray", "local")
        assert code == 1
        assert told in stderr

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (("--strength", 3), "strength is 3"),
            (("--style", "great-wave"), "unknown style 'great-wave'"),
            (("--backend", "tpu"), "unknown backend 'tpu'"),
            (("--precision", "fp64"), "unknown precision 'fp64'"),
            (("--layout", "rgb 0..1"), "has a layout of its own"),
            (("--layout", "grb"), "cannot read the pixel layout"),
        ],
    )
    @pytest.mark.parametrize("verb", ["run", "serve"])
    def test_what_the_model_does_not_take_is_refused(self, album, tmp_path, monkeypatch, verb, words, told):
        started = []
        monkeypatch.setattr(clusters, "ray", lambda: started.append(1))
        around = (album, "-o", tmp_path / "out", "--ray", "local") if verb == "run" else ()
        code, _, stderr = cli(verb, "denoise", *around, *words)
        assert code == 1
        assert told in stderr
        assert not started and not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("drawing", "told"),
        [
            (Drawing("denoise", keep_colors=True), "keep_colors is for stylizers"),
            (Drawing("denoise", working_size=512), "a working size is for stylizers"),
            (Drawing("great-wave", working_size=3), "working_size is 3"),
            (Drawing("great-wave", strength=0.5), "strength 0.5"),
            (Drawing("four-styles", style={"ejiri": -1.0}), "shares of the styles"),
            (Drawing("tiny", precision="int8"), "holds no int8 model"),
            (Drawing("tiny", backend="openvino", precision="fp16"), "holds no fp16 model"),
        ],
    )
    def test_wishes_are_checked_without_a_backend(self, make_package, drawing, told):
        if drawing.model == "tiny":
            drawing = replace(drawing, model=str(make_package()))
        with pytest.raises((OptionError, PackageError), match=told):
            located(drawing)

    @pytest.mark.parametrize("style", [None, "ejiri", {"ejiri": 0.5, "great-wave": 0.5}])
    def test_wishes_that_the_model_grants_pass(self, style):
        assert (
            located(Drawing("four-styles", style=style, keep_colors=True, working_size=512))[0].model == "four-styles"
        )
        assert located(Drawing("denoise", strength=2.0))

    def test_numbers_below_one_are_refused(self, make_package, album, tmp_path):
        with pytest.raises(OptionError, match="1 or more"):
            map_pictures(make_package(), album, tmp_path / "out", cluster=Cluster(batch=0))

    def test_where_all_is_there_no_cluster_is_asked(self, make_package, tmp_path):
        (tmp_path / "in").mkdir()
        Image.fromarray(picture(20, 30)).save(tmp_path / "in" / "a.png")
        assert cli("run", make_package(), tmp_path / "in", "-o", tmp_path / "out")[0] == 0
        done = map_pictures(
            make_package("again"), tmp_path / "in", tmp_path / "out", cluster=Cluster("203.0.113.1:6379")
        )
        assert (done.written, done.there_already, done.failed) == (0, 1, ())


class TestObjectStores:
    """Through a file system of pyarrow's that knows nothing of this machine's folders."""

    @pytest.fixture
    def bucket(self, tmp_path):
        from pyarrow import fs

        (tmp_path / "bucket" / "in" / "below").mkdir(parents=True)
        return fs.SubTreeFileSystem(str(tmp_path / "bucket"), fs.LocalFileSystem())

    def test_only_pictures_are_found_and_results_left_out(self, bucket, tmp_path):
        folder = tmp_path / "bucket" / "in"
        for name in ("b.png", "a.jpg", "below/c.webp", ".hidden.png", "notes.txt", "below/out/d.png"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).touch()
        place, out = Place("in", bucket), Place("in/below/out", bucket)
        assert place.pictures(recursive=False, leaving_out=out) == [Path("a.jpg"), Path("b.png")]
        assert place.pictures(recursive=True, leaving_out=out)[-1] == Path("below/c.webp")
        assert Place("nothing", bucket).files() == set()
        with pytest.raises(PictureError, match="no picture files"):
            Place("nothing", bucket).pictures(recursive=False, leaving_out=out)

    def test_what_is_written_is_whole_and_alone(self, bucket, tmp_path):
        from impasto import images

        Image.fromarray(picture(9, 8)).save(tmp_path / "bucket" / "in" / "a.png")
        files = StoredFiles(Place("in", bucket), Place("out", bucket))
        read = files.read(Path("in/a.png"))
        assert np.array_equal(read.rgb, picture(9, 8))
        assert files.write(Path("out/below/a.webp"), read, 80) is None
        images.write(tmp_path / "local.webp", read, quality=80)
        assert contents(tmp_path / "bucket" / "out") == {"below/a.webp": (tmp_path / "local.webp").read_bytes()}
        with pytest.raises(PictureError, match="cannot read in/none"):
            files.read(Path("in/none.png"))

    def test_pictures_go_from_folder_to_store(self, joined, bucket, make_package, tmp_path):
        for number in range(3):
            Image.fromarray(picture(20, 30, number)).save(tmp_path / "bucket" / "in" / f"{number}.png")
        package = make_package()
        done = map_pictures(package, tmp_path / "bucket" / "in", Place("out", bucket), cluster=Cluster(joined, cores=1))
        assert done.written == 3
        assert cli("run", package, tmp_path / "bucket" / "in", "-o", tmp_path / "alone")[0] == 0
        assert contents(tmp_path / "bucket" / "out") == contents(tmp_path / "alone")


def test_workers_of_one_machine_take_other_cores(monkeypatch, tmp_path):
    taken = []
    monkeypatch.setattr(clusters, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 3, 5, 7})
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, cores: taken.append(list(cores)))
    monkeypatch.setattr(clusters, "_held", [])
    for _ in range(3):
        clusters.take_cores(2)
    assert taken == [[2, 3], [5, 7]]


def test_no_other_verb_imports_ray():
    code = (
        "import sys, impasto.cli.app, impasto.batch.pictures; "
        "print({'ray', 'pyarrow', 'pandas', 'fastapi', 'starlette'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


class TestServe:
    """`impasto serve` as a process of its own, with a cluster of its own."""

    @pytest.fixture(scope="class")
    def server(self, tmp_path_factory):
        """The URL of a server with one worker and a queue of 4, and its process."""
        from support.small_models import canonical_graph, write_graph

        spec = ModelSpec("tiny", task="upscale", scale=2, size=SizeRule(4))
        package = write_graph(tmp_path_factory.mktemp("serve") / "tiny", spec, canonical_graph(2))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        words = [package, "--port", port, "--queue", 4, "--megabytes", 0.2, "--megapixels", 0.1]
        process = subprocess.Popen(
            [sys.executable, "-m", "impasto", "serve", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        line = process.stdout.readline()
        assert f"http://127.0.0.1:{port}" in line, process.communicate()[1]
        yield f"http://127.0.0.1:{port}", package, process
        if process.poll() is None:
            process.kill()
        process.communicate()

    def test_a_picture_comes_back_as_run_writes_it(self, server, tmp_path):
        url, package, _ = server
        rgba = np.dstack([picture(20, 30), np.full((20, 30), 77, np.uint8)])
        Image.fromarray(rgba).save(tmp_path / "a.png")
        assert cli("run", package, tmp_path / "a.png", "-o", tmp_path / "b.png")[0] == 0
        status, headers, content = ask(url, (tmp_path / "a.png").read_bytes())
        assert (status, headers["Content-Type"]) == (200, "image/png")
        assert content == (tmp_path / "b.png").read_bytes()
        assert ask(f"{url}/?format=webp&quality=50", (tmp_path / "a.png").read_bytes())[2][8:12] == b"WEBP"

    @pytest.mark.parametrize(
        ("path", "body", "status", "told"),
        [
            ("/", b"no picture at all", 415, "no picture"),
            ("/", b"", 400, "no body"),
            ("/", "cut", 400, "damaged"),
            ("/", bytes(300_000), 413, "more than"),
            ("/", "large", 413, "pixels"),
            ("/?format=gif", "whole", 400, "unknown format"),
            ("/?quality=0", "whole", 400, "from 1 to 100"),
            ("/?format=jpg", "transparent", 400, "transparency"),
            ("/other", "whole", 404, "nothing here"),
            ("/", None, 405, "POST"),
        ],
    )
    def test_what_is_wrong_is_one_line(self, server, path, body, status, told):
        body = {"cut": png(20, 30)[:900], "large": png(320, 321, flat=True), "whole": png(20, 30)}.get(body, body)
        if body == "transparent":
            body = png(20, 30, alpha=True)
        found, _, content = ask(server[0] + path, body)
        assert (found, content.count(b"\n")) == (status, 1)
        assert told in content.decode()

    def test_a_hundred_at_once_are_drawn_or_refused(self, server):
        url, package, _ = server
        with ThreadPoolExecutor(100) as threads:
            answers = list(threads.map(lambda seed: ask(url, png(64, 80, seed=seed)), range(100)))
        statuses = Counter(status for status, *_ in answers)
        assert set(statuses) == {200, 503}, statuses
        assert statuses[503] > 10, "a queue of 4 that grows"
        assert all(headers["Retry-After"] == "1" for status, headers, _ in answers if status == 503)
        with impasto.load(package) as model:
            for seed, (status, _, content) in enumerate(answers):
                if status == 200:
                    drawn = np.asarray(Image.open(io.BytesIO(content)))
                    assert np.array_equal(drawn, model(picture(64, 80, seed)))
        assert ask(url, png(20, 30))[0] == 200

    def test_its_health_and_counts_can_be_read(self, server):
        url = server[0]
        status, _, content = ask(f"{url}/health", None)
        assert status == 200
        assert content.startswith(b"tiny on ")
        before = counted(url)
        assert ask(url, png(20, 30))[0] == 200
        assert ask(url, b"no picture")[0] == 415
        after = counted(url)
        assert after["200"] == before["200"] + 1
        assert after["415"] == before.get("415", 0) + 1

    def test_a_system_that_ends_it_gets_one_line(self, server):
        """Ctrl-C ends in the same way; SIGTERM is what Ray takes for itself, and answers with what each of its threads was doing."""
        url, _, process = server
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 130
        assert stderr == "stopped; nothing half-written is left\n"
        with pytest.raises(URLError):
            ask(url, b"")


def ask(url: str, body: bytes | None) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and content of a POST; of a GET where there is no body."""
    try:
        with urlopen(Request(url, body), timeout=240) as answer:
            return answer.status, answer.headers, answer.read()
    except HTTPError as error:
        return error.code, error.headers, error.read()


def png(height: int, width: int, seed: int = 0, *, alpha: bool = False, flat: bool = False) -> bytes:
    image = Image.fromarray(np.zeros((height, width, 3), np.uint8) if flat else picture(height, width, seed))
    if alpha:
        image.putalpha(100)
    stream = io.BytesIO()
    image.save(stream, "png")
    return stream.getvalue()


def counted(url: str) -> dict[str, float]:
    """Requests by status, as Prometheus reads them."""
    text = ask(f"{url}/metrics", None)[2].decode()
    return {
        status: float(value) for status, value in re.findall(r'impasto_requests_total\{status="(\d+)"\} (\S+)', text)
    }


class TestOnASharedCluster:
    def test_a_cluster_that_serves_already_is_left_alone(self, joined, monkeypatch):
        class Serve:
            @staticmethod
            def status():
                return SimpleNamespace(applications={"theirs": None})

        monkeypatch.setattr(clusters.ray(), "get_actor", lambda name, namespace: name)
        with pytest.raises(BackendError, match="has a server already, which serves theirs"):
            server._require_no_server(Serve, joined)

    def test_cores_that_others_hold_are_told(self, joined, monkeypatch):
        monkeypatch.setattr(server, "_PATIENCE_S", 0.0)
        server._require_room(Limits(workers=2), {"num_cpus": 1})
        monkeypatch.setattr(clusters.ray(), "available_resources", lambda: {"CPU": 1.0})
        with pytest.raises(BackendError, match="want 2 CPUs of the cluster, of which others have left 1"):
            server._require_room(Limits(workers=2), {"num_cpus": 1})
        with pytest.raises(BackendError, match="want 1 GPUs of the cluster, of which others have left 0"):
            server._require_room(Limits(), {"num_cpus": 0, "num_gpus": 1})


def test_signals_stay_ours_when_ray_starts():
    """Ray sets SIGTERM to its own end, and a program that has an end of its own keeps that."""
    from ray._private import utils

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with clusters._our_signals():
            utils.set_sigterm_handler(lambda number, frame: sys.exit(number))
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
        utils.set_sigterm_handler(before)  # outside of the block Ray's function is Ray's
        assert signal.getsignal(signal.SIGTERM) is before
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("how", [KeyboardInterrupt, RuntimeError])
def test_a_node_that_is_half_started_leaves_no_process(monkeypatch, how):
    from ray._private import node

    begun, ended = [], []

    class Node:
        def __init__(self):
            self.all_processes = {}
            begun.append(self)
            raise how

        def kill_all_processes(self, **_):
            ended.append(self)

    monkeypatch.setattr(node, "Node", Node)
    with pytest.raises(how), clusters._starting():
        node.Node()
    assert begun == ended != []
    assert node.Node is Node


def test_limits_that_nothing_keeps_are_refused():
    with pytest.raises(OptionError, match="queue is 0"):
        Limits(queue=0)
    code, _, stderr = cli("serve", "denoise", "--seconds", 0)
    assert (code, "seconds is 0" in stderr) == (1, True)
    for flag in ("--seconds", "--megabytes", "--megapixels"):
        for value in ("nan", "inf"):
            code, _, stderr = cli("serve", "denoise", flag, value)
            assert (code, f"{flag} is {value}" in stderr) == (1, True)
    assert cli("serve", "no-such-model")[0] == 1


def test_a_port_that_another_server_shares_is_taken():
    """Ray Serve listens with SO_REUSEPORT, so that a second server would get half of the first one's requests."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        code, _, stderr = cli("serve", "denoise", "--port", other.getsockname()[1])
    assert (code, "give another --port" in stderr) == (1, True)


def test_dicom_is_no_format_for_a_folder(tmp_path):
    """It is refused before Ray starts, and before a folder is made."""
    with pytest.raises(OptionError, match="cannot become DICOM files"):
        map_pictures("denoise", tmp_path, tmp_path / "out", format="dcm")
    assert not (tmp_path / "out").exists()
