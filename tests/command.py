"""How the tests start the command line."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

ENTRY = "from pipeline.cli import main; main()"
"""What the console script does, for `python -c`."""

Run = Callable[..., subprocess.CompletedProcess[str]]
