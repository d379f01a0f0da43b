"""Is this the cache that the settings ask for?

Compared is what somebody said: by an option, in the settings file, in the
preset.  What nobody said may be anything, and so may what decides nothing here
(the margin, where no face is cut out).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from cache.errors import CacheMismatchError, Refused
from cache.fingerprint import Settings, canonical_json, nested
from cache.printable import printable
from cache.schema import MANIFEST, Manifest, read_manifest
from pipeline.params import Params, Resolved, Sources


class Asked(NamedTuple):
    """The value of a setting, and where it was said ("" where that is not kept)."""

    value: Any
    source: str = ""


Said = dict[str, Asked]
"""By dotted name, as in params.yaml: dataset.*, crop.*, extract.*; never None."""

_ELSEWHERE = ("root", "watch")
"""Of a data set: where it lies decides nothing."""


@dataclass(frozen=True)
class Comparison:
    differing: list[str] = field(default_factory=list)
    """One line for each setting that the cache does not have."""
    unknown: list[str] = field(default_factory=list)
    """Settings of which the cache does not tell what it has."""


def said(params: Params, sources: Sources | None = None) -> Said:
    """What was said of data set, crops and root."""
    found: Said = {}
    for name in ("dataset", "crop", "extract"):
        section = getattr(params, name)
        for key in type(section).model_fields:
            value = getattr(section, key)
            if key in section.model_fields_set and value is not None and key not in _ELSEWHERE:
                found[f"{name}.{key}"] = Asked(value, (sources or {}).get((name, key), ""))
    return found


def said_by(resolved: Resolved) -> Said:
    """The same, with where each was said."""
    return said(resolved.params, resolved.sources)


def compare_latents(asked: Said, manifest: Manifest, crops: Path | None = None) -> Comparison:
    """`manifest`: of a latent cache.  `crops`: its crop cache, where that is at hand; only
    needed where the latents were made before they kept what their crops were made with."""
    made_of, options = manifest.info.crops, manifest.info.dataset_options
    if made_of is None and crops is not None and (crops / MANIFEST).is_file():
        named = read_manifest(crops)
        if named.fingerprint == manifest.settings.get("crops"):
            made_of, options = named.settings, named.info.dataset_options
    if made_of is None:
        made_of = {"dataset": {"name": manifest.info.dataset}}
    rest = compare_crops(asked, made_of, options)
    settings = manifest.settings
    if not isinstance(settings.get("root"), dict):  # not made by extract
        settings = {"root": {"backbone": manifest.info.backbone}}
    root = compare_root(asked, settings)
    return Comparison(rest.differing + root.differing, rest.unknown + root.unknown)


def compare_crops(
    asked: Said, settings: Settings, options: dict[str, int | str] | None = None
) -> Comparison:
    """`settings`: of a crop cache, or so much of them as is known; `options`: its
    `info.dataset_options`."""
    found = Comparison()
    data, crop = nested(settings, "dataset"), settings.get("crop")
    for name, (value, source) in asked.items():
        section, _, key = name.partition(".")
        if section == "crop":
            if not isinstance(crop, dict):
                found.unknown.append(name)
            elif key in crop:  # the others decide nothing
                _differ(found, name, value, source, crop[key])
            elif key == "smallest_face" and crop.get("face_crop") == "dlib":  # kept above 0 only
                _differ(found, name, value, source, 0.0)
        elif name == "dataset.name":
            _differ(found, name, value, source, data.get("name"))
        elif section == "dataset":
            _compare_option(found, name, value, source, data, options)
    return found


def _compare_option(
    found: Comparison,
    name: str,
    value: Any,
    source: str,
    data: dict[str, Any],
    options: dict[str, int | str] | None,
) -> None:
    """An option of the data set; it shows in the fingerprint by the rows that come of it."""
    key, rows = name.partition(".")[2], data.get("rows")
    if key == "limit":
        if isinstance(rows, int) and rows > value:
            found.differing.append(_line(name, value, source, f"{rows} rows"))
        elif options is None:
            found.unknown.append(name)
        elif "limit" in options:  # or else all rows are fewer
            _differ(found, name, value, source, options["limit"])
    elif options is None:
        found.unknown.append(name)
    else:
        _differ(found, name, value, source, options.get(key, _default(data.get("name"), key)))


def _default(dataset: Any, option: str) -> Any:
    """What a data set takes for an option that is not given."""
    from stages import datasets

    try:
        return datasets.options(str(dataset)).get(option)
    except Refused:  # a stranger's
        return None


def compare_root(asked: Said, settings: Settings) -> Comparison:
    """`settings`: of a latent cache, or so much of them as is known."""
    found = Comparison()
    root = nested(settings, "root")
    for name, (value, source) in asked.items():
        section, _, key = name.partition(".")
        place = settings if key == "dtype" else root
        if section != "extract" or key in ("weights", "weights_seed"):
            continue
        if key in place:
            _differ(found, name, value, source, place[key])
        else:
            found.unknown.append(name)
    if "weights" in root:
        _compare_weights(found, asked, root)
    else:
        found.unknown.extend(name for name in asked if name.startswith("extract.weights"))
    return found


def _compare_weights(found: Comparison, asked: Said, root: dict[str, Any]) -> None:
    are = nested(root, "weights")
    if "extract.weights" in asked:
        value, source = asked["extract.weights"]
        wanted = _weights(str(value), root, are)
        if wanted is None:
            found.unknown.append("extract.weights")
        elif any(are.get(key) != one for key, one in wanted.items()):
            shown = ", ".join(str(are[k]) for k in ("kind", "member", "sha256") if k in are)
            also = f" ({wanted['sha256']})" if "sha256" in wanted else ""
            found.differing.append(
                _line("extract.weights", value, source, shown or "none that are known", also)
            )
    if "extract.weights_seed" in asked and are.get("kind") == "random":
        _differ(found, "extract.weights_seed", *asked["extract.weights_seed"], are.get("seed"))


def _weights(asked: str, root: dict[str, Any], are: dict[str, Any]) -> dict[str, str] | None:
    """What must stand in the fingerprint for `--weights asked`; None: that cannot be known."""
    if asked == "random":
        return {"kind": "random"}
    member = _member(asked, root)
    if member is not None:
        return {"kind": "imagenet", "member": member}
    if asked == "imagenet":
        return {"kind": "imagenet"}
    if Path(asked).is_file():
        with Path(asked).open("rb") as handle:
            return {"kind": "file", "sha256": hashlib.file_digest(handle, "sha256").hexdigest()}
    return None if are.get("kind") == "file" else {"kind": "file"}


def _member(weights: str, root: dict[str, Any]) -> str | None:
    """torchvision's entry, for the network that the cache's root is."""
    from stages.extract import imagenet
    from stages.extract.backbones import choose

    if weights == "random" or "/" in weights:
        return None
    try:
        found = imagenet.member(choose(str(root.get("backbone")), str(root.get("layer"))), weights)
    except Refused:
        return None
    return None if found is None else str(found)


def _differ(found: Comparison, name: str, value: Any, source: str, is_: Any) -> None:
    if canonical_json({"": value}) != canonical_json({"": is_}):
        found.differing.append(_line(name, value, source, repr(is_)))


def _line(name: str, value: Any, source: str, is_: str, also: str = "") -> str:
    where = f" ({source})" if source else ""
    return f"{name}: expected {value!r}{also}{where}, found {printable(is_)}"


def refuse_other(
    asked: Said,
    manifest: Manifest,
    path: object,
    crops: Path | None = None,
    *,
    note: Callable[[str], None],
) -> None:
    """`note` is told which settings could not be compared.

    Raises:
        CacheMismatchError: the latent cache at `path` is not what the settings ask for; the
            text names each setting that differs.
    """
    found = compare_latents(asked, manifest, crops)
    if found.differing:
        lines = "\n  ".join(found.differing)
        raise CacheMismatchError(
            f"{path} is not the cache that these settings ask for:\n  {lines}\n"
            "Name another with --cache, change the settings, or make one with them: "
            "lgr-pipe extract with the same --params, --preset and options."
        )
    if found.unknown:
        note(
            f"Note: not compared: {', '.join(found.unknown)}. {path} was made before caches kept "
            "that, or the settings name a file that is not here."
        )
