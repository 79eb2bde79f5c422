"""How much sooner a training is there that begins with another model: quality against steps, from scratch and fine-tuned.

usage: python -m impasto.benchmarks.transfer SCRATCH FINE_TUNED --measure NAME [--lower] [--json FILE] [--plot FILE]
SCRATCH and FINE_TUNED are the folders of two runs of `impasto train`, equal but for --start, with --validate-every and
--tensorboard or --patience, which make them write down their quality; the plot needs Matplotlib (`pip install 'impasto[plots]'`).
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from impasto.benchmarks.measurement.report import describe_machine
from impasto.errors import ImpastoError, MissingDependency, OptionError, install
from impasto.files import atomic_path, write_text


@dataclass(frozen=True)
class Curve:
    """What a run's validations found."""

    steps: tuple[int, ...]
    values: tuple[float, ...]

    def first_reaching(self, goal: float, lower: bool) -> float | None:
        """The step at which the curve, straight between validations, is first as good as `goal`; None where it never is."""
        values = np.array(self.values) * (-1 if lower else 1)
        goal = -goal if lower else goal
        for index in np.flatnonzero(values >= goal):
            if index == 0:
                return float(self.steps[0])
            before, after = values[index - 1 : index + 1]
            share = (goal - before) / (after - before)
            return float(self.steps[index - 1] + share * (self.steps[index] - self.steps[index - 1]))
        return None


def read_curve(run: Path, measure: str) -> Curve:
    """The validations in a run's log. Raises OptionError where there are none of this measure."""
    log = run / "log.jsonl"
    try:
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise OptionError(f"cannot read {log}: {error}; name the output folder of an impasto train") from None
    found = [(line["step"], line["validation"]) for line in lines if "validation" in line]
    if not found:
        raise OptionError(f"{log} holds no validations; train with --tensorboard and --validate-every")
    if measure not in found[0][1]:
        raise OptionError(f"{log} has no measure {measure!r}; it has {', '.join(found[0][1])}")
    return Curve(tuple(step for step, _ in found), tuple(quality[measure] for _, quality in found))


def compare(scratch: Curve, tuned: Curve, lower: bool) -> dict[str, float | None]:
    """The last value from scratch, the step at which the fine-tuned one is as good, and how many times sooner that is."""
    goal = scratch.values[-1]
    there = tuned.first_reaching(goal, lower)
    # Reached at the first validation, it was reached at that step or before: "at least so many times".
    return {"goal": goal, "fine_tuned_step": there, "times_sooner": scratch.steps[-1] / there if there else None}


def plot(scratch: Curve, tuned: Curve, measure: str, path: Path) -> None:
    """Draw both curves. Raises MissingDependency, OutputError."""
    try:
        import matplotlib
    except ImportError:
        raise MissingDependency(f"the plot needs Matplotlib: {install('plots')}") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 3.6))
    for curve, label, colour in ((scratch, "from scratch", "#94a3b8"), (tuned, "fine-tuned", "#c2410c")):
        axes.plot(curve.steps, curve.values, label=label, color=colour, marker="o", markersize=3)
    axes.set_xlabel("steps")
    axes.set_ylabel(measure)
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format=path.suffix[1:] or "png")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("fine_tuned", type=Path)
    parser.add_argument("--measure", required=True, help="of the validation, such as psnr_jpeg:25-25 or objective")
    parser.add_argument("--lower", action="store_true", help="lower is better")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    try:
        scratch, tuned = (read_curve(run, given.measure) for run in (given.scratch, given.fine_tuned))
        found = compare(scratch, tuned, given.lower)
        curves = {"measure": given.measure, "scratch": asdict(scratch), "fine_tuned": asdict(tuned)}
        if given.json:
            write_text(given.json, json.dumps({**found, **curves, "environment": describe_machine()}, indent=1) + "\n")
        if given.plot:
            plot(scratch, tuned, given.measure, given.plot)
    except ImpastoError as error:
        sys.exit(f"error: {error}")
    there, times = found["fine_tuned_step"], found["times_sooner"]
    print(f"from scratch: {given.measure} {found['goal']:.4g} after {scratch.steps[-1]} steps")
    print("fine-tuned: " + (f"as good after {there:.0f}, {times:.1f} times sooner" if times else "never as good"))


if __name__ == "__main__":
    main()
