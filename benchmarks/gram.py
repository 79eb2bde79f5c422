"""The Gram kernel against everything that people use instead, beside what the memory allows.

    python -m impasto.benchmarks.gram --json gram.json --plot gram.png
    python -m impasto.benchmarks.gram --variants        # also other knobs: cuts, and compiled ones (needs nvcc)
    ncu … python -m impasto.benchmarks.gram --once      # a few forward passes of the grouped kernel, and nothing else

On a Hopper GPU both of its forward kernels are timed: "impasto" is the one for every GPU, "impasto wgmma" its own.

Each method is captured into a CUDA graph over several sets of inputs, together larger than L2, and replayed; the
figure is the median replay over the sets. The floor is the bytes that must move over bandwidths measured here: a forward
pass reads each feature map once, as fast as a sum reads (or a copy moves bytes, where that is faster); a backward pass reads
it and writes a gradient, as fast as a copy.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import importlib.util
import json
import math
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from impasto.errors import OutputError, install
from impasto.files import check_writable

VGG16 = {"relu1_2": (64, 512), "relu2_2": (128, 256), "relu3_3": (256, 128), "relu4_3": (512, 64)}
"""Channels and side of the layers of a style loss, for pictures of 512 x 512."""
VARIANTS = {
    "2 stages, 2 blocks": (2, 2),
    "2 stages, 1 block": (2, 1),
    "3 stages, 1 block": (3, 1),
    "6 stages, 1 block": (6, 1),
}
"""Knobs of gram.cu that are worth comparing on a new kind of GPU: stages of the pipeline, blocks on a multiprocessor."""

FILLS = {"half the partials": 0.5, "twice the partials": 2.0, "all blocks": math.inf}
"""How much partial tiles may cost of what a run reads: 1 in the plan that ships. Cut finer, small feature maps take more blocks."""


@dataclass(frozen=True)
class Timing:
    """One method on one problem."""

    problem: str
    method: str
    microseconds: float
    floor_microseconds: float
    spread: float
    """(slowest - fastest quarter) / median of the replays: a smaller difference between methods is noise."""

    @property
    def over_floor(self) -> float:
        return self.microseconds / self.floor_microseconds

    def __str__(self) -> str:
        return (
            f"{self.problem:28} {self.method:34} {self.microseconds:9.1f} us  {self.over_floor:6.2f} x floor  "
            f"±{100 * self.spread:.0f} %"
        )


@dataclass(frozen=True)
class Problem:
    """Feature maps of one batch, several times over, and targets."""

    name: str
    sets: list[list[Any]]
    """Each set is one list of feature maps, (N, C, H, W)."""
    targets: list[Any]

    @property
    def weights(self) -> list[float]:
        return [1e3] * len(self.targets)

    @property
    def feature_bytes(self) -> int:
        return sum(feature.numel() * feature.element_size() for feature in self.sets[0])


def problem(
    name: str, layers: Sequence[tuple[int, int]], batch: int, dtype: Any, *, channels_last: bool = False
) -> Problem:
    """Random feature maps like those after a ReLU, in enough sets to be larger than twice the L2."""
    import torch

    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    size = sum(batch * C * side * side * dtype.itemsize for C, side in layers)
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    sets = [
        [
            torch.randn(batch, C, side, side, device="cuda").relu().to(dtype).contiguous(memory_format=memory_format)
            for C, side in layers
        ]
        for _ in range(max(2, -(-3 * cache // size)))
    ]
    targets = [torch.rand(C, C, device="cuda") / C for C, _ in layers]
    return Problem(name, sets, [0.5 * (target + target.mT) for target in targets])


def replay_microseconds(work: Callable[[int], Any], sets: int, repeats: int = 30) -> tuple[float, float]:
    """Median time of work(set) over a graph's replays, and its spread."""
    import torch

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            work(0)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = [work(index) for index in range(sets)]
    for _ in range(3):
        graph.replay()
    marks = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
    for start, stop in marks:
        start.record()
        graph.replay()
        stop.record()
    torch.cuda.synchronize()
    del kept
    times = sorted(start.elapsed_time(stop) * 1000 / sets for start, stop in marks)
    median = statistics.median(times)
    return median, (times[repeats * 3 // 4] - times[repeats // 4]) / median


def copy_bandwidth() -> float:
    """Bytes a microsecond, read and written, of a copy much larger than L2."""
    import torch

    source = torch.randint(0, 255, (1 << 30,), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    microseconds, _ = replay_microseconds(lambda _: target.copy_(source), 1)
    return 2 * source.numel() / microseconds


def read_bandwidth() -> float:
    """Bytes a microsecond that are read where nothing is written: a sum over much more than L2."""
    import torch

    source = torch.rand(1 << 28, device="cuda")
    microseconds, _ = replay_microseconds(lambda _: source.sum(), 1)
    return source.numel() * source.element_size() / microseconds


def eager_style_loss(features: list[Any], targets: list[Any], weights: list[float]) -> Any:
    """What people write: a batched product per layer, in the features' dtype, and mse_loss."""
    import torch

    loss = torch.zeros((), device=features[0].device)
    for feature, target, weight in zip(features, targets, weights, strict=True):
        pixels = feature.flatten(2)
        gram = (pixels / (pixels.shape[1] * pixels.shape[2])) @ pixels.mT
        loss = loss + weight * torch.nn.functional.mse_loss(gram, target.to(gram.dtype).expand_as(gram))
    return loss


def with_gradients(loss: Callable[..., Any]) -> Callable[..., Any]:
    """The loss and its gradients by the features."""
    import torch

    def run(features: list[Any], **against: Any) -> Any:
        leaves = [feature.detach().requires_grad_() for feature in features]
        return torch.autograd.grad(loss(leaves, **against), leaves)

    return run


def has_wgmma() -> bool:
    """Whether this GPU is a Hopper, for which gram.zip has a second forward kernel."""
    import torch

    return torch.cuda.get_device_capability() == (9, 0)


def with_wgmma(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method with Hopper's own forward kernel."""
    from impasto.kernels import module

    def run(*arguments: Any, **options: Any) -> Any:
        with mock.patch.object(module.loaded(), "use_wgmma", True):
            return method(*arguments, **options)

    return run


def with_the_kernel(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method with the kernel also where `gram` would choose cuBLAS."""
    from impasto.kernels import operators

    def run(*arguments: Any, **options: Any) -> Any:
        with mock.patch.object(operators, "product_is_faster", lambda *_: False):
            return method(*arguments, **options)

    return run


class Bench:
    """Collects timings, prints each as it comes."""

    def __init__(self) -> None:
        self.bandwidth = copy_bandwidth()
        self.read_bandwidth = max(
            read_bandwidth(), self.bandwidth
        )  # a sum may be slower than memory: the floor is a bound
        self.timings: list[Timing] = []

    def measure(
        self, problem: Problem, method: str, work: Callable[[list[Any]], Any], *, backward: bool = False
    ) -> None:
        """backward: whether gradients are written, too, for which the features are read once more."""
        floor = problem.feature_bytes / self.read_bandwidth
        if backward:
            floor += 2 * problem.feature_bytes / self.bandwidth
        microseconds, spread = replay_microseconds(lambda index: work(problem.sets[index]), len(problem.sets))
        self.timings.append(Timing(problem.name, method, microseconds, floor, spread))
        print(self.timings[-1], flush=True)

    def style_losses(self, problem: Problem, *, compiled: bool) -> None:
        """Forward, and forward with backward: ours, eager torch and torch.compile."""
        import torch

        from impasto.kernels import style_loss

        losses = {"impasto": style_loss, "torch eager": eager_style_loss}
        if has_wgmma():
            losses["impasto wgmma"] = with_wgmma(style_loss)
        if compiled:
            losses["torch.compile"] = torch.compile(eager_style_loss, dynamic=False)
        against = {"targets": problem.targets, "weights": problem.weights}
        for name, loss in losses.items():
            with torch.no_grad():
                self.measure(problem, f"{name} forward", partial(loss, **against))
            self.measure(problem, f"{name} forward + backward", partial(with_gradients(loss), **against), backward=True)

    def grams(self, problem: Problem, *, others: bool, knobs: str = "") -> None:
        """One layer's Gram matrix: ours, and cuBLAS through torch. knobs: what else than usual is said of ours."""
        import torch

        from impasto.kernels import gram, operators

        kernel = with_the_kernel(gram)
        self.measure(problem, f"impasto gram{knobs and ', '}{knobs}", lambda features: kernel(features[0]))
        if not others:
            return
        if operators._takes_product(problem.sets[0][0], None):
            self.measure(problem, "impasto gram, by its own choice", lambda features: gram(features[0]))
        if has_wgmma():
            self.measure(problem, "impasto gram wgmma", lambda features: with_wgmma(kernel)(features[0]))

        def product(features: list[Any]) -> Any:
            pixels = features[0].flatten(2)
            return torch.bmm(pixels, pixels.mT, out_dtype=torch.float32)  # in float16, relu1_2's diagonal overflows

        self.measure(problem, "torch.bmm (cuBLAS)", product)


def measure_cupy(bench: Bench, layers: list[Problem]) -> None:
    """One layer's Gram matrix by CuPy, on torch's memory and stream, where CuPy is installed."""
    if importlib.util.find_spec("cupy") is None:
        print("CuPy is not installed: pip install cupy-cuda13x for its figures")
        return
    import cupy
    import torch

    def product(features: list[Any]) -> Any:
        pixels = features[0].flatten(2)
        N, C, _ = pixels.shape
        result = torch.empty(N, C, C, dtype=pixels.dtype, device=pixels.device)
        with cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream):
            left = cupy.from_dlpack(pixels)
            cupy.matmul(left, left.transpose(0, 2, 1), out=cupy.from_dlpack(result))
        return result

    for layer in layers:
        bench.measure(layer, "CuPy matmul", product)


def measure_quack(bench: Bench, layers: list[Problem]) -> None:
    """One layer's Gram matrix by Dao-AILab's quack, whose product computes one triangle and writes it twice, where it is installed."""
    if importlib.util.find_spec("quack") is None:
        print("quack is not installed: pip install quack-kernels for its figures")
        return
    import torch
    from quack.gemm_interface import gemm_symmetric

    def product(features: list[Any]) -> Any:
        pixels = features[0].flatten(2)
        return gemm_symmetric(pixels, pixels.mT, out_dtype=torch.float32)

    try:
        for layer in layers:
            bench.measure(layer, "quack gemm_symmetric", product)
    except Exception as error:  # a compiler of its own, for some GPUs: it may fail in any way
        print(f"quack does not run here: {type(error).__name__}: {error}")


def measure_equal_bytes(bench: Bench, grouped: Problem) -> None:
    """All layers in one launch whose blocks read equally much, in place of taking equally long."""
    import torch

    from impasto.kernels import launch, style_loss

    against: dict[str, Any] = {"targets": grouped.targets, "weights": grouped.weights}
    with mock.patch.object(launch, "plan", partial(launch.plan, weighed=False)), torch.no_grad():
        bench.measure(grouped, "impasto forward, equal bytes", partial(style_loss, **against))


def single_layers(batches: Sequence[int], dtype: Any) -> list[Problem]:
    return [problem(f"{name} x{batch}", [layer], batch, dtype) for batch in batches for name, layer in VGG16.items()]


def kernel_times(problem: Problem) -> dict[str, float]:
    """Microseconds of each of our kernels in one forward + backward, by torch's profiler."""
    import torch

    from impasto.kernels import style_loss

    both = with_gradients(style_loss)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(5):
            for features in problem.sets:
                both(features, problem.targets, problem.weights)
        torch.cuda.synchronize()
    return {event.key: event.device_time_total / event.count for event in profile.key_averages() if "gram" in event.key}


def architecture() -> str:
    """This GPU's, as the shipped cubins are named: 86, or 90a for Hopper."""
    import torch

    major, minor = torch.cuda.get_device_capability()
    return f"{major}{minor}" + ("a" if has_wgmma() else "")


def compile_variants(folder: Path) -> dict[str, bytes]:
    """Cubins for this GPU of the float16 kernels with other knobs."""

    from impasto.kernels import build

    target = f"-gencode=arch=compute_{architecture()},code=sm_{architecture()}"

    def compiled(knobs: tuple[int, int]) -> bytes:
        cubin = folder / f"{knobs}.cubin"
        flags = ["-DGRAM_ONLY_FLOAT16", f"-DGRAM_STAGES={knobs[0]}", f"-DGRAM_RESIDENT={knobs[1]}"]
        command = ["nvcc", *build.FLAGS, target, *flags, "-cubin", "-o", str(cubin), str(build.GRAM.source)]
        subprocess.run(command, check=True, capture_output=True)
        return cubin.read_bytes()

    with concurrent.futures.ThreadPoolExecutor() as pool:
        return dict(zip(VARIANTS, pool.map(compiled, VARIANTS.values()), strict=True))


def measure_variants(bench: Bench, grouped: Problem, layers: list[Problem]) -> None:
    """Our own methods again with each variant in the place of the shipped kernels."""
    import torch

    from impasto.kernels import style_loss

    with tempfile.TemporaryDirectory() as folder:
        images = compile_variants(Path(folder))
    both = with_gradients(style_loss)
    against: dict[str, Any] = {"targets": grouped.targets, "weights": grouped.weights}
    for name, image in images.items():
        with variant_loaded(image, stages=VARIANTS[name][0]):
            with torch.no_grad():
                bench.measure(grouped, f"forward, {name}", partial(style_loss, **against))
            bench.measure(grouped, f"forward + backward, {name}", partial(both, **against), backward=True)
            for layer in layers:
                bench.grams(layer, others=False, knobs=name)
            print(kernel_times(grouped), flush=True)


@contextmanager
def variant_loaded(image: bytes, stages: int) -> Iterator[None]:
    """This cubin in the place of the shipped one. stages: of its pipeline."""
    from impasto.kernels import binaries, build, module

    binary = binaries.Binary("cubin", architecture(), build.PTX[1])
    with (
        mock.patch.object(binaries, "for_gpu", lambda capability: (binary, image)),
        mock.patch.object(module, "dynamic_shared_bytes", lambda capability_major: stages * 32768),
        mock.patch.dict(module._modules, clear=True),
    ):
        yield


def measure_fills(bench: Bench, layers: list[Problem]) -> None:
    """Single layers again, cut into fewer and into more runs."""
    from impasto.kernels import launch

    for name, partials in FILLS.items():
        with mock.patch.object(launch, "plan", partial(launch.plan, partials=partials)):
            for layer in layers:
                bench.grams(layer, others=False, knobs=name)


def run_a_few_times(problem: Problem) -> None:
    """Without graphs, which profilers would see as one piece."""
    import torch

    from impasto.kernels import style_loss

    for index in range(8):
        style_loss(problem.sets[index % len(problem.sets)], problem.targets, problem.weights)
    torch.cuda.synchronize()


def plot(timings: list[Timing], path: Path) -> None:
    """Fraction of the floor that each method reaches, as a bar each."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 0.28 * len(timings) + 1))
    labels = [f"{timing.problem}: {timing.method}" for timing in timings]
    colours = ["#c2410c" if "impasto" in timing.method else "#94a3b8" for timing in timings]
    axes.barh(labels, [1 / timing.over_floor for timing in timings], color=colours)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_xlabel("fraction of the memory floor (1 is what a copy reaches)")
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def main(arguments: list[str] | None = None) -> int:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--plot", type=Path, help="write a plot here (needs matplotlib)")
    parser.add_argument(
        "--variants", action="store_true", help="also time other plans and builds of the kernel (needs nvcc)"
    )
    parser.add_argument("--once", action="store_true", help="only run the grouped kernel a few times, for a profiler")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out, which takes its time")
    options = parser.parse_args(arguments)
    if options.variants and shutil.which("nvcc") is None:
        parser.error("--variants needs nvcc on the PATH")
    if options.plot and importlib.util.find_spec("matplotlib") is None:
        parser.error(f"--plot needs matplotlib: {install('plots')}")
    try:
        for path in filter(None, (options.json, options.plot)):
            check_writable(path)
    except OutputError as error:
        parser.error(str(error))
    if not torch.cuda.is_available():
        parser.error("a CUDA device is needed")

    grouped = problem("VGG16, 4 x 512²", list(VGG16.values()), 4, torch.float16)
    if options.once:
        run_a_few_times(grouped)
        return 0
    bench = Bench()
    properties = torch.cuda.get_device_properties(0)
    speeds = f"copies {bench.bandwidth / 1e6:.2f} TB/s, reads {bench.read_bandwidth / 1e6:.2f} TB/s"
    print(f"{properties.name}, {speeds}, torch {torch.__version__}", flush=True)
    layers = single_layers((4, 1), torch.float16)
    kernels: dict[str, float] = {}
    try:
        bench.style_losses(grouped, compiled=not options.no_compile)
        measure_equal_bytes(bench, grouped)
        for layer in layers:
            bench.grams(layer, others=True)
        kernels.update(kernel_times(grouped))
        print(kernels, flush=True)
        timings = list(bench.timings)
        if options.variants:
            measure_fills(bench, layers)
            measure_variants(bench, grouped, layers[:4])
        others = len(bench.timings)
        measure_cupy(bench, layers)
        measure_quack(bench, layers)
        timings += bench.timings[others:]
    finally:  # what fails on the way, or Ctrl-C, does not cost the figures before it
        if options.json:
            report = {
                "device": properties.name,
                "torch": torch.__version__,
                "copy_bytes_per_microsecond": bench.bandwidth,
                "read_bytes_per_microsecond": bench.read_bandwidth,
                "timings": [asdict(timing) for timing in bench.timings],
                "kernel_microseconds": kernels,
            }
            options.json.write_text(json.dumps(report, indent=1) + "\n")
    if options.plot:
        plot(timings, options.plot)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
