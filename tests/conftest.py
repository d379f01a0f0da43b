"""Small real input for all tests: drawn faces, their crops, latents of a random root."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

# Tests' networks are tiny: a second thread only waits for the first, for ever where another
# program has its core.  Before torch is imported, and for the commands that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("LGR_PIPE_CACHE_ROOT", None)  # nobody's real one

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from tests.command import ENTRY, Run
from tests.making import make_crops, make_latents, nothing
from tests.soak import Soak, Zygote

# The same examples in each run, and no deadline: machines are shared and noisy.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")

PER_CLASS = 12  # three subjects: two train, one test


@pytest.fixture(autouse=True)
def _arithmetic() -> Iterator[None]:
    """Training turns denormals to nought, and rounds products if asked to, for as long as its
    process lives, as other tests' must not."""
    yield
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_flush_denormal(False)
        torch.set_float32_matmul_precision("highest")


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 drawn faces."""
    from stages.draw.dataset import draw

    out = tmp_path_factory.mktemp("input") / "drawn"
    draw(out, PER_CLASS, 0, overwrite=False, tick=nothing)
    return out


@pytest.fixture(scope="session")
def crops(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their crop cache (zarr)."""
    out = tmp_path_factory.mktemp("caches") / "crops"
    make_crops(out, ("drawn", drawn))
    return out


@pytest.fixture(scope="session")
def latents(crops: Path) -> Path:
    """Latents of them (zarr): a random MobileNet-V2, 1280-d."""
    out = crops.parent / "mobilenet_v2"
    make_latents(out, crops, "mobilenet_v2")
    return out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, three tiny images each: a data set where faces do not matter."""
    rng = np.random.default_rng(0)
    for name in ("calm", "tense"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for k in range(3):
            pixels = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{k}.png")
    return tmp_path / "images"


@pytest.fixture(scope="session")
def lgr_pipe() -> Run:
    """The command line as a user has it: a process of its own."""

    def run(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", ENTRY, *map(str, words)],
            capture_output=True,
            text=True,
            cwd=cwd,
            timeout=300,
            env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"},
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def here() -> Run:
    """The command line in this process: no start-up to wait for."""
    from typer.testing import CliRunner

    from pipeline.cli import app

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        runner = CliRunner(env={"COLUMNS": "300", "NO_COLOR": "1"})
        result = runner.invoke(app, [str(word) for word in words], catch_exceptions=False)
        return subprocess.CompletedProcess(words, result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture(scope="session")
def soak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Soak]:
    """Commands to disturb, and what they leave undisturbed."""
    with Zygote() as zygote:
        yield Soak(tmp_path_factory.mktemp("soak"), zygote)
