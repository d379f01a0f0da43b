"""Settings of published studies: one YAML file each.

Its path below this folder, less `.yaml`, is its name on the command line.  A file
holds `source` (one line: where its values stand) and sections as params.yaml
has them.  Putting it here is all there is to adding one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cache.errors import Refused

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Preset:
    source: str
    settings: dict[str, Any]
    """Section -> settings, as in params.yaml; not yet validated."""


def names() -> list[str]:
    """All presets.  Reads none of them."""
    return sorted(
        file.relative_to(_HERE).with_suffix("").as_posix() for file in _HERE.rglob("*.yaml")
    )


def load(name: str) -> Preset:
    """
    Raises:
        Refused: there is none of that name.
    """
    if name not in names():
        raise Refused(f"There is no preset {name!r}. There are: {', '.join(names())}.")
    settings = yaml.safe_load((_HERE / f"{name}.yaml").read_bytes())
    return Preset(settings.pop("source"), settings)
