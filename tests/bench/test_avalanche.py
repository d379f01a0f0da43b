"""none, lr and joint against Avalanche 0.6, each over the same latents in memory.

Avalanche does far more than this: here only what both do is compared, and that they do the same
comes first.  It runs in a process of its own, under the Python that LGR_PIPE_AVALANCHE names (or
.venv-bench, which `make bench` makes), and waits while lgr-pipe is measured.

Three settings of it: default (its evaluator and its InteractiveLogger), lean (no metric but the
answers that are compared), tuned (lean, and tests in batches of 1024).  In all of them the
data set is tensors in memory, without workers, and the batch sizes are set: left alone, they are 1.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.bench.avalanche_case import BUFFER, Case, Ours, Ran, known
from tests.bench.measuring import Bench

pytestmark = pytest.mark.bench
HERE = Path(__file__).parent
ROOT = HERE.parent.parent
STRATEGIES = {"none": "Naive", "lr": "Replay", "joint": "JointTraining"}
"""By lgr-pipe's names, Avalanche's."""
CORES = os.cpu_count() or 1
SMALL = Case("none", 512, 128, iters=200, threads=1)
CASES = [SMALL, Case("none", 4096, 128, iters=100, threads=CORES), replace(SMALL, batch=32)]
"""As many threads as `lgr-pipe train` takes for such a top, on both sides."""


class Avalanche:
    """The other process."""

    def __init__(self, python: str, folder: Path) -> None:
        self._folder = folder
        self._log = folder / "stderr"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [python, str(HERE / "avalanche_side.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(CORES)},
            )
        self.versions: dict[str, str] = self._answer()

    def ran(self, case: Case, setting: str, tensors: dict[str, Any], **more: str) -> Ran:
        data = self._folder / f"{case.dim}.npz"
        if not data.exists():
            np.savez(data, **tensors)
        job = asdict(case) | {"data": str(data), "setting": setting, "buffer": BUFFER, **more}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        found = self._answer()
        assert found["steps"] == (
            [2 * case.iters] if case.strategy == "joint" else [case.iters] * 2
        )
        return Ran(found["seconds"], found["cpu_seconds"], known(found["matrix"]))

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            last = self._log.read_text().strip().rpartition("\n")[2]
            raise RuntimeError(f"Avalanche ended: {last}")
        return json.loads(line)

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def avalanche(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Avalanche]:
    try:
        found = Avalanche(_python(), tmp_path_factory.mktemp("avalanche"))
    except (OSError, RuntimeError) as error:
        pytest.skip(f"{error} (make bench installs it into .venv-bench)")
    bench.figures["avalanche"] = {"versions": found.versions, "matrices": [], "seconds": []}
    yield found
    found.close()


def _python() -> str:
    own = ROOT / ".venv-bench" / "bin" / "python"
    if "LGR_PIPE_AVALANCHE" in os.environ:
        return os.environ["LGR_PIPE_AVALANCHE"]
    if own.exists():
        return str(own)
    if importlib.util.find_spec("avalanche") is None:
        pytest.skip("avalanche-lib 0.6 is not here: LGR_PIPE_AVALANCHE names a Python that has it")
    return sys.executable


def _sized(bench: Bench, case: Case) -> Case:
    return replace(case, iters=120) if bench.quick else case


_ours: dict[int, Ours] = {}


def ours_of(case: Case) -> Ours:
    if case.dim not in _ours:
        _ours[case.dim] = Ours(case.dim)
    return _ours[case.dim]


# --- the same, first ---------------------------------------------------------------


@pytest.mark.parametrize("case", CASES[:2], ids=lambda case: f"{case.dim}-d")
def test_same_batches_make_the_same_weights(
    bench: Bench, avalanche: Avalanche, case: Case, tmp_path: Path
) -> None:
    """none/Naive, both given the rows in one order: one step is the other's step."""
    if bench.quick and case is not SMALL:
        pytest.skip("full run only")
    ours = ours_of(case)
    weights, matrix = ours.learnt(case)
    order: dict[str, Any] = {f"train_{k}": rows for k, rows in enumerate(ours.order(case))}
    np.savez(tmp_path / "order.npz", **order)
    theirs = avalanche.ran(
        case,
        "lean",
        ours.tensors(),
        order=str(tmp_path / "order.npz"),
        weights=str(tmp_path / "weights.npz"),
    )
    with np.load(tmp_path / "weights.npz") as held:
        assert sorted(held.files) == sorted(weights)
        apart = max(float(np.abs(held[name] - w.numpy()).max()) for name, w in weights.items())
    print(f"\nlargest difference of a weight after {2 * case.iters} steps: {apart:.2g}")
    assert apart <= 1e-4
    np.testing.assert_allclose(theirs.matrix, matrix, atol=1 / 160)  # one answer
    bench.figures["avalanche"][f"largest weight difference, {case.dim}-d"] = apart


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_accuracies_agree(bench: Bench, avalanche: Avalanche, strategy: str) -> None:
    """Each draws its own batches: R agrees within what seeds make of it."""
    seeds = range(3 if bench.quick else 8)
    case = replace(_sized(bench, SMALL), strategy=strategy)
    cases = [replace(case, seed=seed) for seed in seeds]
    ours = ours_of(SMALL)
    mine = np.array([ours.lean(case).matrix for case in cases])
    other = np.array([avalanche.ran(case, "tuned", ours.tensors()).matrix for case in cases])
    noise = np.sqrt((mine.var(0, ddof=1) + other.var(0, ddof=1)) / len(cases))
    apart = np.abs(mine.mean(0) - other.mean(0))
    bench.figures["avalanche"]["matrices"].append(
        {
            "strategy": strategy,
            "case": asdict(case),
            "seeds": len(cases),
            **{
                f"{side} {what}": _table(value)
                for side, found in (("ours", mine), ("avalanche", other))
                for what, value in (("mean", found.mean(0)), ("sd", found.std(0, ddof=1)))
            },
        }
    )
    print(f"\n{strategy}: R ours {mine.mean(0).round(3).tolist()}")
    print(f"{STRATEGIES[strategy]}: R {other.mean(0).round(3).tolist()}")
    known_to_both = ~np.isnan(mine.mean(0))
    assert (known_to_both == ~np.isnan(other.mean(0))).all()
    assert (apart <= 4 * noise + 0.01)[known_to_both].all()


def _table(matrix: NDArray[np.float64]) -> list[list[float | None]]:
    return [[None if np.isnan(v) else round(float(v), 4) for v in row] for row in matrix]


# --- then the time ------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.dim}-d-{case.batch}")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_time(
    bench: Bench, avalanche: Avalanche, case: Case, strategy: str, tmp_path: Path
) -> None:
    """lgr-pipe with its meter, log and checkpoints on, against each of Avalanche's settings."""
    if bench.quick and case is not SMALL:
        pytest.skip("full run only")
    case = replace(_sized(bench, case), strategy=strategy)
    ours = ours_of(case)
    settings = ["lean", "tuned"] if bench.quick else ["default", "lean", "tuned"]
    mine = ["ours"] if bench.quick else ["ours", "ours, lean"]
    runs: dict[str, list[Ran]] = {name: [] for name in (*mine, *settings)}
    for repeat in range(1 + (2 if bench.quick else 3)):  # the first is a warm-up
        folder = tmp_path / str(repeat)
        folder.mkdir()
        found = {"ours": ours.loud(case, folder)}
        if not bench.quick:
            found["ours, lean"] = ours.lean(case)
        found |= {name: avalanche.ran(case, name, ours.tensors()) for name in settings}
        for name, ran in found.items() if repeat else ():
            runs[name].append(ran)
    for name in settings:
        bench.add(
            f"{strategy}, {case.dim}-d, batch {case.batch}",
            [ran.seconds for ran in runs["ours"]],
            [ran.seconds for ran in runs[name]],
            against=f"Avalanche {STRATEGIES[strategy]}, {name}",
            equal=f"latents, top, Adam, {2 * case.iters} steps, batches, buffer, evaluations, "
            f"{case.threads} thread{'s' * (case.threads > 1)}",
            aim="> 1",
            note="ours with meter, log and checkpoints",
        )
    medians = {name: _medians(found, case) for name, found in runs.items()}
    bench.figures["avalanche"]["seconds"].append({"case": asdict(case), **medians})
    print("\n".join(f"  {name:12} {values}" for name, values in medians.items()))


def _medians(runs: list[Ran], case: Case) -> dict[str, float]:
    wall = statistics.median(ran.seconds for ran in runs)
    cpu = statistics.median(ran.cpu_seconds for ran in runs)
    steps = 2 * case.iters
    return {
        "wall_seconds": round(wall, 4),
        "cpu_seconds": round(cpu, 4),
        "wall_ms_a_step": round(1e3 * wall / steps, 3),
        "cpu_ms_a_step": round(1e3 * cpu / steps, 3),
    }
