"""A root's weights in plain words."""

from __future__ import annotations

from stages.report.page.document import quoted
from stages.report.reading.about import DataAbout


def is_random(weights: str) -> bool:
    """Of a run's `weights`: nobody has trained this root."""
    return weights.startswith("random")


def weights_said(weights: str, data: DataAbout | None) -> str:
    """As the cache words them, and what that means; Markdown.

    >>> weights_said("random (seed 0)", None)
    'random (seed 0): untrained. Compare strategies, not levels'
    """
    said = quoted(weights)
    if is_random(weights):
        calibrated = (
            "; calibrated: each output has mean 0 and deviation 1 over training images"
            if "calibrated" in weights
            else ""
        )
        return f"{said}: untrained{calibrated}. Compare strategies, not levels"
    if data is not None and data.trained_on:
        return f"{said}: trained before on {quoted(data.trained_on)}, then frozen"
    if weights.startswith("ImageNet"):
        return f"{said}: trained before on photographs of a thousand kinds of things, then frozen"
    return f"{said}: what it was trained on is not recorded"
