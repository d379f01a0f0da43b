"""`dvc repro`, small: everything once, nothing twice, and only what a change concerns."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent

pytestmark = pytest.mark.skipif(
    not (BIN / "dvc").exists() or not (BIN / "lgr-pipe").exists(),
    reason="needs the dvc extra and the installed lgr-pipe command beside this Python",
)


def _run(folder: Path, *words: str) -> str:
    env = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        words, cwd=folder, env=env, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _ran(output: str) -> set[str]:
    return set(re.findall(r"Running stage '([^']+)'", output))


def test_repro(tmp_path: Path) -> None:
    project = tmp_path / "a folder with spaces"
    project.mkdir()
    for name in ("dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, project)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["draw"]["per_class"] = 12
    params["extract"]["backbone"] = "resnet18"
    params["train"].update(iters=3, seeds="0", batch_size=8)
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    _run(project, "git", "init", "-q")
    _run(project, "dvc", "init", "-q")
    _run(project, "dvc", "config", "core.analytics", "false")
    trains = {f"train@{name}" for name in params["strategies"]}
    assert _ran(_run(project, "dvc", "repro")) == {"draw", "crop", "extract", "report"} | trains
    assert "majority floor" in (project / "runs" / "report" / "table.md").read_text()
    again = _run(project, "dvc", "repro")
    assert not _ran(again)
    assert "up to date" in again
    params["options"]["lr"]["buffer_size"] = 7
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    assert _ran(_run(project, "dvc", "repro")) == {"train@lr", "report"}
    status = _run(project, "git", "status", "--short", "--untracked-files=all")
    assert "data/" not in status
    assert "runs/" not in status
