"""What each measure is, by formula, and where it comes from."""

from __future__ import annotations

from typing import NamedTuple


class Definition(NamedTuple):
    name: str
    text: str
    source: str


ACCURACIES = (
    Definition("accuracy", "mean over j of R[T, j]", "LGR paper, IV-D"),
    Definition(
        "class-, task-incremental",
        "the same after the last task, from the same logits, but judged in the other scenario: "
        "all classes compete, or only those of the row's task",
        "van de Ven and Tolias 2019",
    ),
    Definition(
        "avg. incr.",
        "average incremental accuracy: mean over i of (mean over j ≤ i of R[i, j])",
        "Rebuffi et al. 2017",
    ),
    Definition("learning accuracy", "mean over i of R[i, i]", "Riemer et al. 2019"),
    Definition(
        "forgetting",
        "mean over j < T of (the highest R[i, j] with j ≤ i < T) − R[T, j]; may be negative",
        "Chaudhry et al. 2018",
    ),
    Definition(
        "BWT",
        "backward transfer: mean over j < T of R[T, j] − R[j, j]",
        "Lopez-Paz and Ranzato 2017",
    ),
    Definition(
        "FWT",
        "forward transfer: mean over j > 1 of R[j − 1, j] − (accuracy on j before any training)",
        "Lopez-Paz and Ranzato 2017",
    ),
    Definition(
        "balanced accuracy",
        "mean of the recalls TP / (TP + FN) of the classes with test rows, after the last task",
        "Brodersen et al. 2010",
    ),
    Definition(
        "macro-F1",
        "mean over the same classes of 2 TP / (2 TP + FP + FN)",
        "van Rijsbergen 1979; Opitz and Burst 2019",
    ),
    Definition(
        "majority floor",
        "accuracy of the best constant answer on the test rows: one constant for each task where "
        "the task is told, then the mean over tasks; else one constant for all",
        "",
    ),
    Definition(
        "95 % interval",
        "mean(d) ± t · sd(d) / √n, t the 97.5 % point of Student's distribution with n − 1 degrees "
        "of freedom; d = a − b seed by seed, or the accuracies themselves. † where that of "
        "a − none includes 0 or lies below it",
        "Student 1908",
    ),
)
COSTS = (
    Definition("training s", "wall time of learning all tasks, evaluation excluded", ""),
    Definition(
        "CPU s",
        "user and system seconds of all threads of the process, loading of rows and evaluation "
        "included; child processes excluded",
        "",
    ),
    Definition("peak RAM, peak RSS", "highest sample of the process's resident memory", ""),
    Definition("RSS growth", "the same less its value when training began", ""),
    Definition("GPU use", "mean of the samples, of the whole device", "NVML"),
    Definition(
        "GPU memory", "highest sample of the whole device, other processes included", "NVML"
    ),
    Definition(
        "kept memory",
        "bytes that are kept between tasks against forgetting: stored samples (buffer), generator, "
        "copies of former networks (snapshots)",
        "",
    ),
    Definition(
        "MMAC / iteration",
        "millions of multiply-accumulates of an iteration once there is something to replay; a "
        "training step counts as three forward passes. GMAC a crop: of one forward pass of the "
        "root, in thousands of millions",
        "",
    ),
)
REPLAYS = (
    Definition(
        "variance ratio",
        "trace of the covariance of the replayed latents over that of the real training latents "
        "of the tasks learnt so far; near 0: the generator has collapsed",
        "",
    ),
    Definition("labels", "how often each class is the answer taught for a replayed sample", ""),
    Definition(
        "nearest-class-mean agreement",
        "share of these answers that name the class, of the same head, whose mean real latent is "
        "nearest; beside it the same of real latents with their true classes",
        "",
    ),
)
