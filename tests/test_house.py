"""The laws of the house: layers, the README's tree, whose packages these are, a light start."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PACKAGES = ("pipeline", "stages", "cache")


def _imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


# (files below, may not import)
LAWS = [
    ("cache", ("stages", "pipeline", "torch", "torchvision", "dlib", "typer", "yaml", "rich")),
    ("stages", ("pipeline", "typer", "yaml", "rich")),
    ("stages/extract", ("stages.train", "stages.strategies", "stages.report")),
    ("stages/train", ("stages.extract", "stages.strategies", "stages.report", "dlib")),
    ("stages/strategies", ("stages.extract", "stages.report")),
    ("stages/datasets", ("stages.extract", "stages.train", "torch")),
    ("stages/report", ("stages.extract", "stages.train", "torch")),
]


@pytest.mark.parametrize(("room", "forbidden"), LAWS)
def test_rooms_import_only_what_lies_below(room: str, forbidden: tuple[str, ...]) -> None:
    files = list((ROOT / room).rglob("*.py"))
    assert files
    for file in files:
        for name in _imports(file):
            hit = [f for f in forbidden if name == f or name.startswith(f"{f}.")]
            assert not hit, f"{file.relative_to(ROOT)} imports {name}"


def test_packages_are_this_checkouts(tmp_path: Path) -> None:
    """As installed, from any folder: no other package of these plain names is in the way."""
    code = f"import {', '.join(PACKAGES)}\n" + "\n".join(f"print({p}.__file__)" for p in PACKAGES)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert [Path(p).parent for p in done.stdout.splitlines()] == [ROOT / name for name in PACKAGES]
    assert all((ROOT / name / "py.typed").is_file() for name in PACKAGES)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="asks git which files there are")
def test_readme_tree_is_the_disk() -> None:
    tree = re.search(r"```tree\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert tree, "README.md has no ```tree block"
    shown, folders = set(), {}
    for line in tree[1].splitlines():
        match = re.match(r"( *)(\S+)( +\S.*)?$", line)
        assert match, line
        depth, name = len(match[1]) // 2, match[2]
        path = "".join(folders[k] for k in range(depth)) + name
        folders[depth] = name
        if not name.endswith("/"):
            assert match[3], f"{path} has no comment"
            shown.add(path)
    files = subprocess.run(
        ["git", "ls-files", *PACKAGES, "tests"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    empty = {f for f in files if Path(f).name in ("py.typed", "__init__.py")}
    assert shown == set(files) - empty


def test_help_starts_without_torch() -> None:
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom pipeline.cli import app\n"
        "result = CliRunner().invoke(app, ['train', '--help'])\n"
        "heavy = {'torch', 'dlib', 'zarr', 'h5py', 'matplotlib'} & sys.modules.keys()\n"
        "sys.exit(f'{result.exit_code} {heavy}' if result.exit_code or heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_dvc_reports_whatever_it_trains() -> None:
    """A folder as dependency: no list of strategies or backbones has to be kept beside theirs."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert stages["report"]["deps"] == ["runs/study"]
    for name in ("train", "train-images"):
        stage = stages[name]
        assert set(stage["matrix"]) == {"backbone", "strategy"}
        plots = [next(iter(plot)) for plot in stage["plots"]]
        for out in [*stage["outs"], *stage["metrics"], *plots]:
            assert out.startswith("runs/study/${item.backbone}/${item.strategy}/")
        (metrics,) = stage["metrics"]
        assert metrics.endswith("/metrics.json")


def test_only_stages_on_images_depend_on_crops() -> None:
    """Whoever has only pulled the latents can train all others."""
    from stages import strategies

    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert not any("crops" in dep for dep in stages["train"]["deps"])
    assert "data/crops/manifest.json" in stages["train-images"]["deps"]
    for stage, list_, reads in (
        ("train", "strategies", False),
        ("train-images", "image_strategies", True),
    ):
        assert stages[stage]["matrix"]["strategy"] == f"${{{list_}}}"
        assert ("--crops" in stages[stage]["cmd"]) == reads
        for name in params[list_]:
            assert ("crops" in strategies.module(name).Method.columns) == reads, name


def test_shipped_params_are_valid() -> None:
    from pipeline.params import resolve
    from pipeline.stage_two import read_options
    from stages.extract.backbones import choose

    params = resolve(ROOT / "params.yaml", {})
    names = params.strategies + params.image_strategies
    assert set(params.options) == set(names)
    for name in names:
        read_options(name, dict(params.options[name]))
    assert params.backbones
    for backbone in params.backbones:
        choose(backbone, params.extract.layer)
