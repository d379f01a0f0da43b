"""What a command imports, by name: one that needs little starts quickly.  Ctrl-C at any moment."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.cli import COMMANDS
from tests.making import make_cache

HEAVY = {"numpy", "torch", "zarr", "h5py", "rich", "blake3", "psutil", "PIL", "matplotlib"}
"""What no list of options needs."""
COMPILER = {"torch._dynamo", "torch._inductor", "sympy"}
"""Of torch: 1.5 s and 150 MB."""
CHILD = """
import atexit, json, sys
from pathlib import Path
from pipeline.start import main

def tell():
    Path(out).write_text(json.dumps(sorted(sys.modules)))

out, *words = sys.argv[1:]
sys.argv = ["lgr-pipe", *words]
if __name__ == "__main__":
    atexit.register(tell)
    main()
"""


def imported(tmp_path: Path, *words: object) -> set[str]:
    """The modules that a command has imported when it is done."""
    out = tmp_path / "modules.json"
    code = tmp_path / "child.py"  # workers import it too
    code.write_text(CHILD)
    done = subprocess.run(
        [sys.executable, code, out, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(out.read_text()))


@pytest.fixture
def latents(tmp_path: Path) -> Path:
    rows = np.random.default_rng(0).random((60, 8), dtype=np.float32)
    make_cache(tmp_path / "latents", "zarr", rows, shard_rows=64)
    return tmp_path / "latents"


def test_help_imports_typer_and_little_else(tmp_path: Path) -> None:
    found = imported(tmp_path, "--help")
    assert "typer" in found
    assert not found & {*HEAVY, "pydantic", "yaml", "multiprocessing", "cache.schema"}


@pytest.mark.parametrize("name", [*(command.name for command in COMMANDS), "cache info"])
def test_help_of_a_command_imports_its_options_only(tmp_path: Path, name: str) -> None:
    found = imported(tmp_path, *name.split(), "--help")
    assert not found & {*HEAVY, "multiprocessing", "cache.schema"}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_the_list_of_commands_says_what_each_says_of_itself(command: object) -> None:
    whole = command.itself  # type: ignore[attr-defined]
    assert command.help == whole.help.partition("\n\n")[0].replace("\n", " ")  # type: ignore[attr-defined]


@pytest.mark.parametrize("strategy", ["lr", "lgr+d"])
def test_training_on_latents_imports_nothing_of_images(
    tmp_path: Path, latents: Path, strategy: str
) -> None:
    """The root, and torchvision with it, is in memory only if images are drawn."""
    words = ("--cache", latents, "--out", tmp_path / "run", "--tasks", 2, "--seeds", 0)
    found = imported(tmp_path, "train", "--strategy", strategy, *words, "--iters", 2)
    assert "torch" in found
    for name in ("torchvision", "dlib", "matplotlib", "tensorboard", "distributed", "rich"):
        assert name not in found
    assert not found & COMPILER
    assert not [name for name in found if name.startswith("stages.extract")]


def test_cropping_imports_no_torch(tmp_path: Path, folder: Path) -> None:
    words = ("--root", folder, "--out", tmp_path / "crops", "--workers", 1, "--size", 32)
    found = imported(tmp_path, "crop", *words)
    assert "dlib" in found
    assert not found & {"torch", "torchvision", "matplotlib", "distributed", "rich"}


def test_looking_after_caches_imports_no_torch(tmp_path: Path, latents: Path) -> None:
    for words in (("ls", tmp_path), ("info", latents), ("verify", latents)):
        found = imported(tmp_path, "cache", *words)
        assert not found & {"torch", "dlib", "matplotlib", "rich", "fsspec", "pipeline.params"}


def test_a_report_imports_no_torch(tmp_path: Path, latents: Path) -> None:
    words = ("--cache", latents, "--out", tmp_path / "run", "--tasks", 1, "--seeds", 0)
    imported(tmp_path, "train", "--strategy", "none", *words, "--iters", 1)
    found = imported(tmp_path, "report", tmp_path / "run")
    assert not found & {"torch", "matplotlib", "jinja2", "sklearn", "zarr", "h5py", "rich"}
    found = imported(tmp_path, "report", tmp_path / "run", "--out", tmp_path / "report")
    assert not found & {"torch", "dlib", "rich"}
    found = imported(tmp_path, "show", tmp_path / "run")
    assert not found & {"torch", "dlib", "matplotlib", "jinja2", "sklearn", "zarr", "h5py"}


STOPPED = """
import os, signal, sys
from importlib.abc import MetaPathFinder

class Trap(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[0]:
            os.kill(os.getpid(), signal.SIGINT)
        return None

sys.argv = sys.argv[1:]
sys.meta_path.insert(0, Trap())
from pipeline.start import main
main()
"""


@pytest.mark.parametrize("name", ["typer", "pydantic", "pipeline.cli_cache", "numpy"])
def test_ctrl_c_during_imports_is_a_sentence(name: str, tmp_path: Path) -> None:
    """Wherever it comes: in the command line's own imports, Typer's, or the command's."""
    done = subprocess.run(
        [sys.executable, "-c", STOPPED, name, "cache", "ls", tmp_path],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        # A shell lets what it starts in the background ignore Ctrl-C, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert done.returncode == 130, done.stderr
    assert done.stderr.startswith("Interrupted.")
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_the_installed_script_is_what_tests_run() -> None:
    import tomllib

    from tests.command import ENTRY

    root = Path(__file__).parent.parent
    script = tomllib.loads((root / "pyproject.toml").read_text())["project"]["scripts"]["lgr-pipe"]
    module, _, function = script.partition(":")
    assert f"from {module} import {function}; {function}()" == ENTRY
