"""Progress bars on a terminal, of the library rich."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text


class _Rate(ProgressColumn):
    """Units per second; what was already there at the start does not count."""

    def render(self, task: Task) -> Text:
        done = task.completed - task.fields["before"]
        if not task.elapsed or done <= 0:
            return Text("")
        return Text(f"{done / task.elapsed:.1f} {task.fields['unit']}/s")


def counting() -> Progress:
    """Bars whose tasks have fields `unit` and `before`, what an earlier run did."""
    columns = (MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    return _progress(*columns)


def bytewise() -> Progress:
    return _progress(DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())


def _progress(*columns: ProgressColumn) -> Progress:
    title = TextColumn("{task.description}", markup=False)
    console = Console(stderr=True, highlight=False)
    return Progress(title, BarColumn(), *columns, console=console)
