"""The frozen roots on ready crops: against the machine's own matrix multiplication, and against the
best of what people run such a network with.

ONNX Runtime and OpenVINO take part where they are installed (onnx, onnxscript, onnxruntime;
openvino): the tool itself needs neither.
"""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from stages.extract.backbones import Root, Tap, choose
from stages.extract.forward import GROUP, Forward
from stages.extract.random_weights import random_network
from stages.extract.weights import load, make_root
from tests.bench.measuring import Bench

pytestmark = pytest.mark.bench
ROOTS = [
    ("alexnet", None), ("resnet18", None), ("mobilenet_v2", None),
    ("resnet50", "avgpool"), ("efficientnet_b0", "avgpool"),
]  # fmt: skip
QUICK = ("alexnet", "mobilenet_v2")
CROPS = 128
Values = Callable[[], NDArray[np.float32]]


def _crops(count: int) -> torch.Tensor:
    stream = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 100, 100, 3), dtype=torch.uint8, generator=stream)


def _ours(tap: Tap, crops: torch.Tensor) -> Values:
    root, forward = make_root(tap, load(tap, "random", 0), "none", "none"), Forward("cpu")
    return lambda: torch.cat(list(forward(root, crops))).numpy()


def test_vgg16_root_against_matrix_multiplication(bench: Bench) -> None:
    """3.07 GMAC a crop, as the plain network has them, at the machine's own fp32 matrix rate."""
    count, side = 64, 2048
    a, b = torch.rand(side, side), torch.rand(side, side)
    times = round(count * 3.07e9 / side**3)

    pool = ThreadPoolExecutor(torch.get_num_threads(), initializer=lambda: torch.set_num_threads(1))

    def multiply() -> None:
        """A product is one thread's, which is faster than sharing it out."""
        list(pool.map(lambda _: torch.mm(a, b), range(times)))

    bench.compare(
        f"vgg16 root, {count} crops",
        _ours(choose("vgg16", None), _crops(count)),
        multiply,
        against="2048 x 2048 matrix products",
        equal="3.07 GMAC a crop, fp32, the same threads",
        aim=">= 0.90",
        note="fc6 folded: 2.98 GMAC are done",
    )


@pytest.mark.parametrize(("name", "layer"), ROOTS)
def test_other_roots_against_the_best_runtime(
    bench: Bench, name: str, layer: str | None, tmp_path: Path
) -> None:
    if bench.quick and name not in QUICK:
        pytest.skip("quick")
    tap, crops = choose(name, layer), _crops(CROPS)
    ours = _ours(tap, crops)
    others, missing = _others(tap, crops, tmp_path, quick=bench.quick)
    expected, scale = ours(), float(np.abs(ours()).max())
    for other in others.values():
        assert np.abs(other() - expected).max() <= 1e-4 * scale
    seconds = _in_turn({"ours": ours, **others}, 3 if bench.quick else 5)
    medians = {k: statistics.median(v) for k, v in seconds.items()}
    best = min(others, key=medians.__getitem__)
    bench.add(
        f"{name} root, {CROPS} crops",
        seconds["ours"],
        seconds[best],
        against=best,
        equal="latents within 1e-4 of the largest, fp32, the same threads",
        aim=">= 0.83 of the best",
        note="; ".join(missing),
    )
    bench.figures[f"{name} root, images/s"] = {k: round(CROPS / v, 1) for k, v in medians.items()}


def _in_turn(works: dict[str, Values], repeats: int) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            taken[name].append(time.perf_counter() - started)
    return taken


def _others(
    tap: Tap, crops: torch.Tensor, folder: Path, *, quick: bool
) -> tuple[dict[str, Values], list[str]]:
    """What there is to compare with, and what is missing and why."""
    network = random_network(tap, 0).requires_grad_(False)
    pixels = Root(network, "none", "none").pixels(crops).contiguous()
    last = random_network(tap, 0).requires_grad_(False).to(memory_format=torch.channels_last)
    others = {
        "eager": _torch(network, pixels),
        "channels_last": _torch(last, pixels.contiguous(memory_format=torch.channels_last)),
    }
    if quick:
        return others, ["quick: no runtimes"]
    missing = []
    makers: dict[str, Callable[[], Values]] = {
        "compile": lambda: _compiled(last, pixels),
        "ONNX Runtime": lambda: _onnx_runtime(network, pixels, folder / "root.onnx"),
        "OpenVINO": lambda: _openvino(network, pixels),
    }
    for name, make in makers.items():
        try:
            others[name] = make()
        except Exception as error:  # not installed, no compiler, an operation that it lacks
            missing.append(f"no {name}: {str(error).splitlines()[0][:80]}")
    return others, missing


def _torch(network: Callable[[torch.Tensor], torch.Tensor], pixels: torch.Tensor) -> Values:
    def run() -> NDArray[np.float32]:
        with torch.no_grad():
            parts = [network(part).flatten(1) for part in torch.split(pixels, GROUP)]
        return torch.cat(parts).numpy()

    return run


def _compiled(network: nn.Module, pixels: torch.Tensor) -> Values:
    run = _torch(
        torch.compile(network, options={"freezing": True}),
        pixels.contiguous(memory_format=torch.channels_last),
    )
    run()
    return run


def _onnx_runtime(network: nn.Module, pixels: torch.Tensor, path: Path) -> Values:
    runtime: Any = importlib.import_module("onnxruntime")
    torch.onnx.export(network, (pixels[:GROUP],), path, dynamo=True, verbose=False)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    parts = [part.numpy() for part in torch.split(pixels, GROUP)]

    def run() -> NDArray[np.float32]:
        out = [session.run(None, {name: part})[0].reshape(GROUP, -1) for part in parts]
        return np.concatenate(out)

    run()
    return run


def _openvino(network: nn.Module, pixels: torch.Tensor) -> Values:
    """A group is one stream's, and there are as many streams as threads, as ours has it."""
    runtime: Any = importlib.import_module("openvino")
    threads = torch.get_num_threads()
    model = runtime.convert_model(network, example_input=pixels[:GROUP])
    model.reshape([GROUP, *pixels.shape[1:]])
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    queue = runtime.AsyncInferQueue(runtime.Core().compile_model(model, "CPU", settings), threads)
    parts = [part.numpy() for part in torch.split(pixels, GROUP)]

    def run() -> NDArray[np.float32]:
        out: list[Any] = [None] * len(parts)

        def keep(request: Any, place: int) -> None:
            out[place] = request.get_output_tensor(0).data.reshape(GROUP, -1).copy()

        queue.set_callback(keep)
        for place, part in enumerate(parts):
            queue.start_async({0: part}, place)
        queue.wait_all()
        return np.concatenate(out)

    run()
    return run
