"""A model over more pictures than one machine draws: Ray Data hands batches of them to one actor for each GPU or group of cores."""

from __future__ import annotations

import os
import socket
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from impasto.errors import (
    BackendError,
    ImpastoError,
    ImpastoWarning,
    NoNumbers,
    OptionError,
    OutputError,
    PictureError,
    ShapeError,
    first_line,
)
from impasto.files import sha256
from impasto.package.manifest import MANIFEST

from .cluster import LOCAL, connected, ray, ray_part, take_cores
from .jobs import FORMATS, Job, results_of
from .pictures import PictureRun, run_pictures
from .stores import Place, StoredFiles

if TYPE_CHECKING:
    from impasto.runtime import Model
    from impasto.runtime.loading.source import ModelFiles
    from impasto.styles import Wanted

CPU_BACKENDS = ("openvino", "onnxruntime-cpu")
"""Backends that leave a machine's GPUs alone."""
_MOST_CORES = 4
"""Cores of an actor where nobody says how many: more cores draw a picture faster, and fewer pictures a second."""


@dataclass(frozen=True)
class Drawing:
    """How a model is loaded and every picture drawn; fields mean what `impasto.load` and `impasto run` say of them."""

    model: str
    """A model's name or path, the same on every machine: a path leads to a shared disk."""
    backend: str = "auto"
    precision: str = "auto"
    layout: str | None = None
    working_size: int | Literal["auto"] | None = "auto"
    style: Wanted = None
    strength: float = 1.0
    keep_colors: bool = False
    longest_side: int | None = None
    """Pixels to which larger pictures are scaled down first."""
    quality: int = 95
    """Quality of JPEG and WebP files."""

    def open(self, device: int = 0) -> Model:
        """The loaded model. Raises what `impasto.load` and `Model.set_style` raise."""
        import impasto

        model = impasto.load(
            self.model,
            backend=self.backend,
            precision=self.precision,
            device=device,
            layout=self.layout,
            working_size=self.working_size,
        )
        try:
            model.keep_colors = self.keep_colors
            model.set_style(self.style, strength=self.strength)
        except BaseException:
            model.close()
            raise
        return model


@dataclass(frozen=True)
class Cluster:
    """Which machines draw, and in what portions."""

    address: str = LOCAL
    """A Ray cluster, such as 10.0.0.1:6379; "auto": the one that this machine belongs to; "local": one that is started here."""
    cores: int | None = None
    """Cores that an actor takes where it has no GPU. None: all of its machine's, but at most 4."""
    batch: int = 16
    """Pictures that an actor gets at a time, >= 1. What a killed worker had of them is drawn again."""


@dataclass(frozen=True)
class Failure:
    """A picture without a result."""

    source: str
    why: str


@dataclass(frozen=True)
class MappedPictures:
    """What became of a folder's pictures."""

    target: str
    written: int
    there_already: int
    failed: tuple[Failure, ...]
    seconds: float
    """From the first batch handed out to the last result, without starting Ray."""
    actors: int
    """How many drew."""
    how: tuple[str, ...]
    """By which models on which backends they did, one line each; more than one where machines differ."""
    workers: Mapping[str, int] = field(default_factory=dict)
    """Results by the machine and process that wrote them."""

    def __str__(self) -> str:
        total = self.written + len(self.failed)
        speed = f"{self.written / self.seconds:.1f} pictures/s" if self.seconds else "nothing to do"
        how = f" with {'; '.join(self.how)}" if self.how else ""
        return f"{self.written} of {total} files written to {self.target}, {speed}, {self.actors} actors{how}"

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "target": self.target,
            "written": self.written,
            "there_already": self.there_already,
            "failed": [{"source": failure.source, "why": failure.why} for failure in self.failed],
            "seconds": self.seconds,
            "actors": self.actors,
            "how": list(self.how),
            "workers": dict(self.workers),
        }


def map_pictures(
    model: str | os.PathLike[str] | Drawing,
    source: str | os.PathLike[str] | Place,
    target: str | os.PathLike[str] | Place,
    *,
    format: str = FORMATS[0],
    recursive: bool = False,
    cluster: Cluster | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> MappedPictures:
    """Draw a folder's pictures on a Ray cluster. Results hold the bytes that `impasto run` gives, and what is there is skipped.

    Args:
        model: a name or path, or a Drawing that also says how. Every machine of the cluster needs the same model there.
        source: a folder that every machine sees under the same path, or a URI that pyarrow reads, such as s3://bucket/prefix.
        target: likewise. Each result appears whole or not at all, so a run that was cut off is repeated to go on.
        format: of the results, one of FORMATS.
        recursive: also the folders below, which results repeat.
        cluster: the machines; None starts Ray on this one.
        progress: called with the number of pictures done, and of all to do.

    Returns:
        MappedPictures: what was written, and every picture that failed, with the reason.

    Raises:
        OptionError, PictureError: for arguments that cannot be, a source without pictures, a cluster that does not answer.
        OutputError: where the target folder cannot be made or written into, or the bucket is not there.
        MissingDependency: without Ray.
        BackendError: where a machine cannot load or run the model. What was written stays.
    """
    drawing = model if isinstance(model, Drawing) else Drawing(os.fspath(model))
    cluster = cluster or Cluster()
    if format not in FORMATS:
        raise OptionError(f"unknown format {format!r}; choose one of {', '.join(FORMATS)}")
    if format == "dcm":
        raise OptionError(
            "a folder's pictures cannot become DICOM files, which derive from others; choose another format"
        )
    if cluster.batch < 1 or (cluster.cores is not None and cluster.cores < 1):
        raise OptionError(f"got batches of {cluster.batch} and {cluster.cores} cores; give numbers of 1 or more")
    drawing, identity = located(drawing)
    source, target = Place.of(source), Place.of(target)
    if source == target:
        raise OptionError(f"the results would be written among the pictures in {source}; choose another output folder")
    names = source.pictures(recursive=recursive, leaving_out=target)
    results = results_of(names, f".{format}")
    there = target.files()
    missing = [(name, result) for name, result in zip(names, results, strict=True) if result not in there]
    rows = [
        {"source": f"{source.path}/{name.as_posix()}", "target": f"{target.path}/{result.as_posix()}"}
        for name, result in missing
    ]
    target.check_writable(result for _, result in missing)
    found = _Found(progress, rows)
    if rows:
        worker = _Worker(drawing, identity, source, target)
        with connected(cluster.address):
            found.actors = _mapped(rows, worker, cluster, found)
    return found.result(str(target), len(names) - len(rows))


def located(drawing: Drawing) -> tuple[Drawing, str]:
    """The drawing with an absolute path where it named one, and what the model's files are known by.

    Raises ModelNotFound, PackageError, and OptionError for what the model's files tell that it cannot do.
    """
    from impasto.runtime.loading.source import ModelFiles, known_names

    files = ModelFiles(drawing.model)
    _check(drawing, files)
    identity = _identity(files.path)
    return (drawing if drawing.model in known_names() else replace(drawing, model=str(files.path.absolute()))), identity


def _check(drawing: Drawing, files: ModelFiles) -> None:
    """Raises what opening the drawing would raise, as far as that is known without a backend, which this machine need not have."""
    from impasto.package.spec import Pixels
    from impasto.runtime.backends import check_backend, target_backend
    from impasto.runtime.inference.settings import check_keep_colors, style_shares, working_size
    from impasto.runtime.loading.opening import known_spec
    from impasto.runtime.loading.source import check_precision

    check_backend(drawing.backend)
    check_precision(drawing.precision)
    if drawing.layout is not None:
        Pixels.parse(drawing.layout)
        if files.manifest:
            raise OptionError(f"{files.path} has a layout of its own; leave layout out (--layout at the command line)")
    source = files.source()
    if drawing.backend not in ("auto", "tensorrt"):
        files.source(drawing.precision, target_backend(drawing.backend))
    elif drawing.precision == "int8":  # engines of FP16 are built from FP32 graphs, those of INT8 from INT8 graphs
        files.source(drawing.precision)
    spec = known_spec(source)
    style_shares(spec, source.path, drawing.style, drawing.strength)
    check_keep_colors(spec, drawing.keep_colors)
    working_size(spec, drawing.working_size)


def _identity(path: Path) -> str:
    """SHA-256 of the manifest, which holds the hashes of a package's other files, or of the single file."""
    return sha256(path / MANIFEST if path.is_dir() else path)


class _Found:
    """What the batches bring, added up."""

    def __init__(self, progress: Callable[[int, int], None] | None, rows: list[dict[str, str]]) -> None:
        self._progress = progress
        self._todo = {row["source"] for row in rows}
        self._total = len(rows)
        self._begun: float | None = None
        self._seconds = 0.0
        self._written = 0
        self._failed: list[Failure] = []
        self._how: dict[str, None] = {}
        self._workers: dict[str, int] = {}
        self.actors = 0

    def begin(self) -> None:
        self._begun = time.perf_counter()

    def add(self, row: Mapping[str, str]) -> None:
        """Raises BackendError for a worker that cannot draw at all."""
        if row["fatal"]:
            raise BackendError(f"{row['worker']}: {row['fatal']}")
        if row["source"] not in self._todo:  # of a batch that came twice, since its first answer was lost
            return
        self._todo.remove(row["source"])
        self._how.setdefault(row["how"])
        if row["why"]:
            self._failed.append(Failure(row["source"], row["why"]))
        else:
            self._written += 1
            self._workers[row["worker"]] = self._workers.get(row["worker"], 0) + 1
        if row["note"]:
            warnings.warn(row["note"], ImpastoWarning, stacklevel=4)
        if self._progress:
            self._progress(self._total - len(self._todo), self._total)

    def end(self) -> None:
        assert self._begun is not None
        self._seconds = time.perf_counter() - self._begun

    def result(self, target: str, there_already: int) -> MappedPictures:
        lost = [Failure(source, "its worker was lost, and Ray gave its batch up") for source in self._todo]
        failed = sorted([*self._failed, *lost], key=lambda failure: failure.source)
        return MappedPictures(
            target,
            self._written,
            there_already,
            tuple(failed),
            self._seconds,
            self.actors,
            tuple(self._how),
            self._workers,
        )


def _mapped(rows: list[dict[str, str]], worker: _Worker, cluster: Cluster, found: _Found) -> int:
    """Draw the rows on the cluster that this program belongs to. Returns the number of actors."""
    data = _data()
    actors, needs = _pool(cluster, worker.drawing.backend)
    batches = -(-len(rows) // cluster.batch)
    actors = min(actors, batches)
    drawn = data.from_items(rows, override_num_blocks=batches).map_batches(
        _Actor,
        fn_constructor_args=(worker, None if "num_gpus" in needs else needs["num_cpus"]),
        batch_size=None,  # the whole block: the blocks are the batches
        compute=data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=2),
        **needs,
    )
    found.begin()
    try:
        for batch in drawn.iter_batches(batch_size=None, batch_format="numpy"):
            for values in zip(*batch.values(), strict=True):
                found.add(dict(zip(batch, map(str, values), strict=True)))
    except ImpastoError:
        raise
    except Exception as error:  # Ray's errors have no common base
        raise BackendError(
            f"Ray ended the run: {first_line(error)}; what is written stays, so run the same again to go on"
        ) from error
    found.end()
    return actors


def _data() -> Any:
    """Ray Data, told to keep quiet. Raises MissingDependency."""
    data = ray_part("data")
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    return data


def _pool(cluster: Cluster, backend: str) -> tuple[int, dict[str, float]]:
    """How many actors the cluster holds, and what of it each takes. Raises OptionError where it holds none."""
    nodes = [node["Resources"] for node in ray().nodes() if node["Alive"]]
    gpus = 0 if backend in CPU_BACKENDS else int(sum(node.get("GPU", 0) for node in nodes))
    if gpus:
        return gpus, {"num_gpus": 1}
    cores = cluster.cores or min([_MOST_CORES, *(int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1)])
    actors = sum(int(node.get("CPU", 0)) // cores for node in nodes)
    if not actors:
        raise OptionError(f"no machine of the cluster has {cores} cores; give fewer to an actor")
    return actors, {"num_cpus": cores}


@dataclass(frozen=True)
class _Worker:
    """What every actor knows."""

    drawing: Drawing
    identity: str
    source: Place
    target: Place

    def open(self) -> Model:
        """The model, if it is the one that the driver has. Raises BackendError."""
        from impasto.runtime.loading.source import ModelFiles

        model = self.drawing.open()
        if _identity(ModelFiles(self.drawing.model).path) != self.identity:
            model.close()
            raise BackendError(
                f"{self.drawing.model} is another model here than where the run began; install the same everywhere"
            )
        return model


class _Actor:
    """One loaded model in a process of its own."""

    def __init__(self, worker: _Worker, cores: int | None) -> None:
        """cores: to confine the backend to; None with a GPU."""
        if cores is not None:
            take_cores(int(cores))
        self._worker = worker
        self._name = f"{socket.gethostname()}, process {os.getpid()}"
        self._files = StoredFiles(worker.source, worker.target)
        self._model: Model | None = None
        self._fatal = ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ImpastoWarning)  # the model's note is in its description
                self._model = worker.open()
        except ImpastoError as error:
            self._fatal = str(error)

    def __call__(self, batch: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
        """Draw a batch. Takes columns source and target, gives a row for each picture."""
        jobs = [
            Job(Path(source), Path(target)) for source, target in zip(batch["source"], batch["target"], strict=True)
        ]
        rows = list(self._rows(jobs))
        return {name: [row[name] for row in rows] for name in rows[0]}

    def _rows(self, jobs: list[Job]) -> Iterator[dict[str, str]]:
        if self._model is None:
            yield from (self._row(job, fatal=self._fatal) for job in jobs)
            return
        settings = self._worker.drawing
        outcomes = run_pictures(
            self._model, jobs, quality=settings.quality, longest_side=settings.longest_side, files=self._files
        )
        for job, outcome in outcomes:
            try:
                run: PictureRun = outcome.result()
            except (PictureError, OptionError, ShapeError, NoNumbers, OutputError) as error:
                yield self._row(job, why=str(error))
            except ImpastoError as error:
                yield self._row(job, fatal=str(error))
            else:
                yield self._row(job, note=run.note or "")

    def _row(self, job: Job, *, why: str = "", note: str = "", fatal: str = "") -> dict[str, str]:
        how = str(self._model.info) if self._model else ""
        source = job.source.as_posix()
        return {"source": source, "why": why, "note": note, "fatal": fatal, "how": how, "worker": self._name}
