"""What is known of the published numbers that limits a comparison with them, and in which settings
ours differ.  Numbers: the paper's tables, and the logs and pickles published with its code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from stages.report.numbers.columns import ACCURACY
from stages.report.page.document import quoted
from stages.report.reading.about import as_text
from stages.report.reading.published import STRATEGIES, Published, Settings
from stages.report.reading.runs import Run, Study
from stages.report.sections.weights import is_random

_FACES = ("ckplus", "rafdb", "affectnet")
_GENERATIVE = ("dgr", "lgr", "dgr+d", "lgr+d")
_LATENT = ("lr", "lgr", "lgr+d")


@dataclass(frozen=True)
class Caveat:
    """Of the published runs; empty: of all."""

    topic: str
    text: str
    datasets: tuple[str, ...] = ()
    backbones: tuple[str, ...] = ()
    strategies: tuple[str, ...] = ()
    """It concerns whoever has run one of them."""
    scenario: str = "task"

    def holds(self, study: Study) -> bool:
        run = study.first
        mine = {one.strategy for one in study.runs}
        return (
            run.scenario == self.scenario
            and (not self.datasets or run.dataset in self.datasets)
            and (not self.backbones or run.backbone in self.backbones)
            and (not self.strategies or bool(mine & set(self.strategies)))
        )


_CAVEATS = (
    Caveat(
        "No replay",
        "No baseline without replay is in the paper. The authors' own runs (VGG-16, 3 seeds, "
        "another split) had one: none 84.73 %, LGR+d 84.73, LR 84.38, NR 84.22, DGR+d 83.68, "
        "LGR 80.35, DGR 79.42.",
        ("ckplus",),
    ),
    Caveat(
        "No replay",
        "No baseline without replay is in the paper. The authors' own runs (VGG-16, 3 seeds, "
        "another protocol) had one: none 64.72 %, LGR+d 66.38, LR 65.59, NR 65.43, DGR+d 63.73, "
        "LGR 61.47, DGR 61.17.",
        ("affectnet",),
    ),
    Caveat(
        "No replay",
        "No baseline without replay is in the paper, and none is known for this data set.",
        ("rafdb", "cifar10"),
    ),
    Caveat(
        "No replay",
        "No baseline without replay is in the paper. The authors' one run of it got 83.01 %.",
        ("mnist",),
    ),
    Caveat(
        "A single class",
        "The fourth task has a single class and is always answered right: 100 % in all 72 "
        "published runs, a quarter of every average.",
        ("rafdb",),
    ),
    Caveat(
        "Without it",
        "Without that task the published means are NR 72.70 %, LR 72.92, DGR 75.72, LGR 77.77, "
        "DGR+d 76.71, LGR+d 82.55, and a constant answer gets 73.46.",
        ("rafdb",),
        ("vgg16",),
    ),
    Caveat(
        "Collapse",
        "LGR's accuracy on the first task is that of a constant answer (70.97 %) in all 3 runs; "
        "in the authors' dump of one run its generated latents had 3 % of the variance of the "
        "real ones after the first task, and all 32 got one label.",
        ("ckplus",),
        ("vgg16",),
        _GENERATIVE,
    ),
    Caveat(
        "Collapse",
        "DGR's and LGR's accuracy on the first task is that of a constant answer (80.76 %) in "
        "all 3 runs.",
        ("rafdb",),
        ("vgg16",),
        _GENERATIVE,
    ),
    Caveat(
        "Collapse",
        "DGR and LGR are at exactly 50.0 %, a constant answer, in each of the first 3 tasks.",
        ("affectnet",),
        ("resnet18", "mobilenet_v2"),
        ("dgr", "lgr"),
    ),
    Caveat(
        "Root",
        "The paper's root was not frozen in LR and LGR: its dropout (0.5) stayed on, at test time "
        "too.",
        backbones=("alexnet",),
        strategies=_LATENT,
    ),
    Caveat(
        "Root",
        "The paper's root was not frozen in LR and LGR: it normalised with the statistics of each "
        "batch, test batches too, and went on updating its own.",
        backbones=("resnet18", "mobilenet_v2"),
        strategies=_LATENT,
    ),
    *(
        Caveat(
            "Root",
            "The published root was not frozen in LR and LGR: its dropout (0.25) stayed on, at "
            "test time too.",
            backbones=("lenet",),
            strategies=_LATENT,
            scenario=scenario,
        )
        for scenario in ("task", "class")
    ),
    Caveat(
        "Split",
        "The paper's split (1,043 training and 264 test images, 79.8:20.2, where it says 70:30) "
        "was not published.",
        ("ckplus",),
    ),
    Caveat(
        "Tuning",
        "Its iterations, generator widths and buffer sizes were chosen by accuracy on CK+'s test "
        "images.",
        ("ckplus",),
    ),
    Caveat("Images", "Which 88,021 training images were taken was not published.", ("affectnet",)),
    Caveat(
        "Order",
        "The classes were not shuffled (the paper says they were): the 3 runs differ in "
        "initialisation and batches only, which makes their spread small.",
        _FACES,
    ),
    *(
        Caveat(
            "Pairs",
            "Each published run had a seed, and so an order of the classes, of its own: "
            "strategies were not compared on equal tasks.",
            ("mnist",),
            scenario=scenario,
        )
        for scenario in ("task", "class")
    ),
    Caveat(
        "Source",
        "No log, command or number of tasks of these runs was published (5 tasks fit their "
        "training times); a notebook of other runs has LGR+d 69.11 % and DGR+d 69.42, where the "
        "paper has 72.71 and 68.48.",
        ("cifar10",),
    ),
    Caveat(
        "Chance",
        "DGR and DGR+d are at chance, 12.50 %: they know the last class only.",
        ("ckplus",),
        strategies=("dgr", "dgr+d"),
        scenario="class",
    ),
)

COSTS = (
    "Costs are of other machines, and mean other things: the released code runs the root again "
    "for every batch{times}, ours once for all, and then only for the images that nr and dgr "
    "replay. Its RAM is the peak of the whole process, of which 2.0 to 2.4 GiB are what CUDA "
    "itself takes; its GPU memory is that of the whole device, optimiser states copied with each "
    "snapshot included, sampled every 10 s."
)
_TIMES = {"ckplus": 245, "rafdb": 83, "affectnet": 11.6}


def caveats(study: Study, beside: Published) -> Iterator[tuple[str, str]]:
    """A topic and a line each; Markdown."""
    run = study.first
    floor = beside.settings.floor
    low = [
        f"{name.upper().replace('+D', '+d')} {100 * found.mean:.2f}"
        for name in STRATEGIES
        if (found := beside.values[name, ACCURACY.key]).mean < (floor or 0) + 5e-5
    ]
    if floor is not None and low:
        yield (
            "Floor",
            f"A constant answer gets {100 * floor:.2f} %; published at or below that: "
            f"{', '.join(low)}.",
        )
    yield from ((one.topic, one.text) for one in _CAVEATS if one.holds(study))
    if run.scenario == "task" and {one.strategy for one in study.runs} & {"nr", "lr"}:
        ours = (
            "ours repeat that (protocol released)"
            if run.protocol == "released"
            else "ours teach it to its own"
        )
        yield (
            "NR and LR",
            "The released code teaches every stored sample to the first task's head, whatever "
            f"task it is of; {ours}.",
        )


def on_costs(run: Run) -> str:
    """What holds for costs of these runs."""
    times = _TIMES.get(run.dataset) if run.scenario == "task" else None
    said = f" (LGR: {times:g} times a pass over the training images)" if times else ""
    return COSTS.format(times=said)


def differing(study: Study, beside: Published) -> Iterator[str]:
    """Settings of ours that are not the published ones, in words."""
    run, theirs = study.first, beside.settings
    if run.dataset in _FACES and not run.weights.startswith("ImageNet"):
        yield f"weights {quoted(run.weights)}, published ImageNet"
    elif is_random(run.weights):
        yield f"weights {quoted(run.weights)}, published trained before on held-out images"
    for name, ours, published in (
        ("iterations a task", run.iters, theirs.iters),
        ("batch", run.batch_size, theirs.batch_size),
        ("learning rate", run.lr, theirs.lr),
        ("training rows", _sum(run.task_train_rows), theirs.train_rows),
        ("test rows", _sum(run.task_test_rows), theirs.test_rows),
    ):
        if ours is not None and published is not None and ours != published:
            yield f"{name} {ours:,g}, published {published:,g}".replace(",g", "")
    counts = sorted({len(one.runs) for one in study.runs})
    if counts != [theirs.seeds]:
        said = "-".join(str(n) for n in dict.fromkeys([counts[0], counts[-1]]))
        yield f"{said} seed{'s' * (counts[-1] > 1)}, published {theirs.seeds}"
    if theirs.order and run.task_classes is not None and not _same_tasks(run, theirs):
        yield f"tasks {_groups(run.task_classes)}, published {_spaced(theirs.order)}"
    activation = run.about.data.activation if run.about and run.about.data else None
    if activation not in (None, "sigmoid"):
        yield f"activation {quoted(activation)}, published sigmoid"
    if run.evaluated_on == "validation":
        yield "accuracies of validation rows, published of test rows"
    if run.precision != "fp32":
        yield f"{run.precision} products, published fp32"
    for one in study.runs:
        yield from _options(one, theirs)


def _options(run: Run, theirs: Settings) -> Iterator[str]:
    mine = run.about.options if run.about else {}
    for name, published in theirs.options.items():
        strategy, option = name.split(".")
        ours = mine.get(option)
        if strategy == run.strategy and ours is not None and ours != published:
            said = f"{quoted(run.label)}: {option.replace('_', ' ')} {quoted(as_text(ours))}"
            yield f"{said}, published {published:g}"


def _same_tasks(run: Run, theirs: Settings) -> bool:
    groups = [set(group.split(",")) for group in theirs.order.split(";")]
    return [set(group) for group in run.task_classes or []] == groups


def _groups(groups: list[list[str]]) -> str:
    return "; ".join(", ".join(map(quoted, group)) for group in groups)


def _spaced(order: str) -> str:
    return order.replace(",", ", ").replace(";", "; ")


def _sum(rows: list[int] | None) -> int | None:
    return sum(rows) if rows else None
