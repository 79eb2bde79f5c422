"""The page of `impasto eval`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .charts import Distributions, bars, figure, spread
from .page import Figure, Grid, Listing, Report, Section
from .pictures import PictureGroup, group

if TYPE_CHECKING:
    from impasto.evaluation import Evaluation


def evaluation_report(results: Mapping[str, Evaluation], machine: Mapping[str, Any], command: str = "") -> Report:
    """What a model does to pictures, and how good that is.

    results: by the graph's name; of one graph, its name is not shown.
    """
    first = next(iter(results.values()))
    several = len(results) > 1
    leading = "PSNR" if "PSNR" in first.conditions[0].scores else next(iter(first.conditions[0].scores))
    sections = (
        Section("Pictures", _pictures(results), _explained(first)),
        Section(
            "Means",
            (_grid(results), *_bars(results, leading)),
            _MEANS,
        ),
        Section(
            "From picture to picture",
            tuple(
                Distributions(
                    unit(heading),
                    tuple(
                        spread(f"{condition.name}{f', {name}' if several else ''}", condition.scores[heading].values)
                        for name, result in results.items()
                        for condition in result.conditions
                    ),
                )
                for heading in (leading,)
            ),
            f"{leading} of single pictures: a mean hides those that a model does badly.",
        ),
        Section("Left out", (Listing(first.skipped),) if first.skipped else ()),
    )
    figures = []
    for condition in first.conditions[:4]:
        said = condition.scores[leading]
        before = condition.scores.get(f"damaged {leading}")
        gain = f", before {before.mean:.2f}" if before else ""
        figures.append(
            Figure(f"{said.mean:.4g}{' dB' if leading == 'PSNR' else ''}", f"{leading}, {condition.name}{gain}")
        )
    return Report(
        f"{first.info.name} judged",
        f"{len(first.pictures)} pictures that training has not seen; {first.info.backend}, "
        + (", ".join(results) if several else first.info.precision),
        sections,
        machine,
        tuple(figures),
        command,
    )


_MEANS = "Means over the pictures, with their 95 % intervals (Student's t)."


def unit(heading: str) -> str:
    """What a score is counted in."""
    return "dB" if heading.endswith("PSNR") else ""


def _explained(result: Evaluation) -> str:
    if result.info.task == "stylize":
        return "Before and after. Drag the handle, or focus the slider and press the arrow keys."
    return (
        "Left what the model was given, right what it made of it; the true picture is among the choices, and the maps show what is "
        "still wrong, times 8. Drag the handle, or focus the slider and press the arrow keys."
    )


def _pictures(results: Mapping[str, Evaluation]) -> tuple[PictureGroup, ...]:
    made = []
    first = next(iter(results.values()))
    for number, panels in enumerate(first.panels):
        drawn = [
            (f"{result.info.name}, {name}" if len(results) > 1 else result.info.name, result.panels[number][-1].rgb)
            for name, result in results.items()
        ]
        if len(panels) == 3:  # the true picture, the damaged one, the restored one
            true, damaged, _ = panels
            views = [(f"damaged by {damaged.caption}", damaged.rgb), *drawn, ("the true picture", true.rgb)]
            made.append(group(f"{true.caption}, {damaged.caption}", views, against=len(views) - 1))
        else:
            views = [("the photo", panels[0].rgb), *drawn]
            maps = range(2, len(views))
            made.append(group(panels[0].caption, views, against=1 if maps else None, maps_of=maps))
    return tuple(made)


def _grid(results: Mapping[str, Evaluation]) -> Grid:
    first = next(iter(results.values()))
    headings = tuple(first.conditions[0].scores)
    several = len(results) > 1
    rows = tuple(
        (condition.name, *((name,) if several else ()), *(str(condition.scores[heading]) for heading in headings))
        for number, _ in enumerate(first.conditions)
        for name, result in results.items()
        for condition in (result.conditions[number],)
    )
    return Grid(("judged on", *(("graph",) if several else ()), *headings), rows, words=2 if several else 1)


def _bars(results: Mapping[str, Evaluation], leading: str) -> list[Any]:
    before = f"damaged {leading}"
    rows, marked = [], []
    first = next(iter(results.values()))
    for number, condition in enumerate(first.conditions):
        if before in condition.scores:
            mean = condition.scores[before].mean
            rows.append((f"{condition.name}, damaged", mean, figure(mean)))
            marked.append(True)
        for name, result in results.items():
            mean = result.conditions[number].scores[leading].mean
            rows.append((f"{condition.name}, {name or result.info.name}", mean, figure(mean)))
            marked.append(False)
    return [bars(f"mean {leading}", rows, marked, "before" if any(marked) else "")]
