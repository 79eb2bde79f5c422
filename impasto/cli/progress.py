"""How far a verb is: a bar on a terminal, one line a minute where there is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from .console import err

LINE_SECONDS = 60
"""Between two lines where there is no terminal."""

_BAR_WIDTH = 16
"""In characters: beside it, 80 columns hold six digits of steps, their speed and the time left."""
_SPEED_SECONDS = 600
"""Over which the speed is a mean: a step may take longer than the 30 s that rich looks back."""


class Bar(Progress):
    """What is counted, a bar, the speed and the time left; the words behind them take what room there is."""

    def __init__(self, unit: str = "", *, quiet: bool = False, get_time: Callable[[], float] | None = None) -> None:
        """unit: what `say` counts, in the plural. quiet: show nothing. get_time: the clock, in seconds."""
        words = Column(ratio=1, no_wrap=True, overflow="ellipsis")
        super().__init__(
            _Count(),
            BarColumn(bar_width=_BAR_WIDTH),
            _Speed(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.description}", markup=False, table_column=words),
            console=err,
            transient=True,
            expand=True,
            get_time=get_time,
            speed_estimate_period=_SPEED_SECONDS,
            disable=quiet or not err.is_terminal,
        )
        self._unit, self._quiet = unit, quiet
        self._said: TaskID | None = None
        self._line_at = self.get_time()

    def say(self, words: str, done: int = 0, total: int | None = None) -> None:
        """Show this in place of what was said before. total: None where nothing is counted."""
        if self._said is not None and self.tasks[self.task_ids.index(self._said)].total != total:
            self.remove_task(self._said)
            self._said = None
        if self._said is None:
            self._said = self.add_task(words, total=total, completed=done, unit=self._unit)
        self.update(self._said, description=words, completed=done)

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Change a task, and tell a line of it where there is no bar. changes: rich's."""
        super().update(task_id, **changes)
        self._tell(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Count on, and tell a line of it where there is no bar."""
        super().advance(task_id, advance)
        self._tell(task_id)

    def _tell(self, task_id: TaskID) -> None:
        """A line in place of the bar, where there is none and it is time."""
        task = self.tasks[self.task_ids.index(task_id)]
        if not self.disable or self._quiet or not task.visible or self.get_time() - self._line_at < LINE_SECONDS:
            return
        self._line_at = self.get_time()
        columns = [
            column
            for column in self.columns
            if isinstance(column, ProgressColumn) and not isinstance(column, BarColumn)
        ]
        shown = [str(column.render(task)).strip() for column in columns]
        if task.time_remaining is not None:
            shown[2] += " left"
        else:
            shown[2] = ""
        err.print(", ".join(filter(None, shown)), markup=False)


class _Count(MofNCompleteColumn):
    """Nothing where nothing is counted."""

    def render(self, task: Task) -> Text:
        return super().render(task) if task.total is not None or task.completed else Text()


class _Speed(ProgressColumn):
    """Steps, pictures or whatever is counted, a second."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if not speed:
            return Text()
        return Text(f"{speed:.{1 if speed >= 1 else 2}f} {task.fields['unit']}/s")
