"""How the tests start the command line."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

ENTRY = "from pipeline.start import main; main()"
"""What the console script does, for `python -c`."""

Run = Callable[..., subprocess.CompletedProcess[str]]


def without_costs(metrics: dict[str, Any]) -> dict[str, Any]:
    """What of a metrics.json must be equal for equal settings: all but seconds and memory."""
    runs = [
        {k: v for k, v in entry.items() if k not in ("train_seconds", "resources")}
        for entry in metrics["runs"]
    ]
    return {k: v for k, v in metrics.items() if k != "load"} | {"runs": runs}
