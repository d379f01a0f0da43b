"""The console script: Ctrl-C is a sentence also while the command line is still being imported."""

from __future__ import annotations

import sys


def main() -> None:
    try:
        from pipeline import cli

        cli.main()
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
