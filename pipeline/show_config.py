"""Settings as YAML, each with where it comes from: what --show-config prints.

Given back with --params it makes the same settings.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import yaml

from pipeline.params import COMMAND_LINE, Resolved, Sources


def config_text(resolved: Resolved) -> str:
    """All settings; those that somebody gave say who, the others are defaults."""
    lines = ["# What has no comment is a default; null leaves it to the data set or the backbone."]
    if resolved.preset is not None:
        lines.append("# preset {}: {}".format(*resolved.preset))
    return "\n".join([*lines, *_lines(resolved.params.model_dump(), resolved.sources)])


def with_strategy(resolved: Resolved, strategy: str, given: dict[str, str]) -> Resolved:
    """`options` holds all of the strategy's; `given`: those of the command line, as text.

    Raises:
        Refused: no such strategy or option, or a value that does not fit.
    """
    from pipeline.stage_two import read_options

    options = resolved.params.options
    whole = asdict(read_options(strategy, {**options.get(strategy, {}), **given}))
    sources = {_underscored(path): source for path, source in resolved.sources.items()}
    for name in given:
        sources[_underscored(("options", strategy, name))] = COMMAND_LINE
    params = resolved.params.model_copy(update={"options": {**options, strategy: whole}})
    return replace(resolved, params=params, sources=sources)


def _underscored(path: tuple[Any, ...]) -> tuple[Any, ...]:
    """Options may be written as on the command line, buffer-size."""
    return (*path[:2], *(str(part).replace("-", "_") for part in path[2:]))


def _lines(values: dict[str, Any], sources: Sources, path: tuple[Any, ...] = ()) -> Iterator[str]:
    for key, value in values.items():
        here = (*path, key)
        start = f"{'  ' * len(path)}{_yaml(key)}:"
        if isinstance(value, dict) and value:
            yield start
            yield from _lines(value, sources, here)
        else:
            source = sources.get(here)
            yield f"{start} {_yaml(value)}" + (f"  # {source}" if source else "")


def _yaml(value: Any) -> str:
    """A value in one line of YAML."""
    if isinstance(value, Path):
        value = str(value)
    elif isinstance(value, tuple):
        value = list(value)
    quoted = '"' if isinstance(value, str) and not value.isprintable() else None
    text: str = yaml.safe_dump(
        value, default_flow_style=True, default_style=quoted, width=math.inf, allow_unicode=True
    )
    return text.removesuffix("\n").removesuffix("\n...")
