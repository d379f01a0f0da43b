"""What `lgr-pipe cache info` says: what a cache holds, and who can make it again from what."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import CacheDamagedError
from cache.files import tree_bytes
from cache.fingerprint import nested
from cache.listing import read_provenance, without_list
from cache.printable import printable
from cache.progress import Work, works
from cache.reader import Cache
from cache.schema import MANIFEST, SPLITS, Manifest
from cache.source import Place
from pipeline.caches.text import CROP_OPTIONS, crop_words
from pipeline.console import bytes_text

_ROOT_OPTIONS = ("backbone", "layer", "activation", "normalize")


def about(path: Place) -> dict[str, Any]:
    """Everything as one JSON object; of an unfinished cache, how far it is.

    Raises:
        Refused: there is no cache, or it is damaged.
    """
    found = works(path) if isinstance(path, Path) else []
    if not (path / MANIFEST).is_file() and found:
        return {"path": str(path), "state": "unfinished", "work": [_work(work) for work in found]}
    with Cache(path) as cache:
        said = _finished(cache, path)
    return {**said, "work": [_work(work) for work in found]}


def _work(work: Work) -> dict[str, Any]:
    plan = work.plan
    command = "crop" if plan.kind == "crops" else "extract"
    out = shlex.quote(str(work.out))
    return {
        "folder": str(work.folder),
        "kind": plan.kind,
        "dataset": plan.info.dataset,
        "backbone": plan.info.backbone,
        "weights": plan.info.weights,
        "rows": plan.rows,
        "units": work.total,
        "units_done": work.done,
        "fingerprint": plan.fingerprint,
        "settings": plan.settings,
        "go_on": f"lgr-pipe {command} finalize --out {out}"
        if work.done == work.total
        else f"the same lgr-pipe {command} command again, with --out {out}",
    }


def _finished(cache: Cache, path: Place) -> dict[str, Any]:
    manifest, info = cache.manifest, cache.manifest.info
    bulk = manifest.columns[manifest.bulk]
    said = info.model_dump(mode="json", exclude={"calibration"})
    try:
        made = without_list(read_provenance(path))
    except CacheDamagedError as error:
        made = {"cannot be read": str(error)}
    return {
        "path": str(path),
        "state": "finished",
        "kind": manifest.kind,
        **said,
        "rows": manifest.rows,
        "classes": list(manifest.classes),
        "rows_by_split": _by_split(cache),
        "store": manifest.store,
        "shards": manifest.shards,
        "shard_rows": manifest.shard_rows,
        "bytes": tree_bytes(path),
        "row_shape": list(bulk.shape[1:]),
        "dtype": bulk.dtype,
        "fingerprint": manifest.fingerprint,
        "content": manifest.content,
        "settings": manifest.settings,
        "provenance": made,
        "made_again": _again(manifest, path),
    }


def _by_split(cache: Cache) -> dict[str, dict[str, int]]:
    classes, known = cache.manifest.classes, len(cache.manifest.classes)
    pairs = cache.side("split") * np.int64(known) + cache.side("label")
    counts = np.bincount(pairs, minlength=len(SPLITS) * known).reshape(-1, known)
    return {
        split: {classes[k]: int(n) for k, n in enumerate(counts[number]) if n}
        for number, split in enumerate(SPLITS)
        if counts[number].any()
    }


def _again(manifest: Manifest, path: Place) -> dict[str, str]:
    """Who can make it again: what is needed, and the command; empty where no setting tells."""
    settings, store = manifest.settings, f"--store {manifest.store} --out {shlex.quote(str(path))}"
    if manifest.kind == "crops":
        data = nested(settings, "dataset")
        options = _options(nested(settings, "crop"), CROP_OPTIONS)
        read = manifest.info.dataset_options or {}
        if not (data and options):
            return {}
        return {
            "needs": f"the images of the data set {data.get('name')} as they were: "
            f"{data.get('rows')} rows, {data.get('digest')}",
            "command": f"lgr-pipe crop --dataset {shlex.quote(str(data.get('name')))} --root DIR "
            f"{_options(read, tuple(read))}{options}{store}",
        }
    root = nested(settings, "root")
    weights, words = _weights(nested(root, "weights"))
    options = _options(root, _ROOT_OPTIONS)
    if not options:
        return {}
    return {
        "needs": f"the crop cache {settings.get('crops')}, and weights: {words}",
        "command": f"lgr-pipe extract --crops CROPS {options}--weights {weights} "
        f"--dtype {shlex.quote(str(settings.get('dtype')))} {store}",
    }


def _weights(said: dict[str, Any]) -> tuple[str, str]:
    """For the command line, and in words."""
    kind = said.get("kind")
    if kind == "random":
        return f"random --weights-seed {shlex.quote(str(said.get('seed')))}", "none, they are drawn"
    sha = f"sha256 {said.get('sha256')}"
    if kind == "imagenet":
        member = str(said.get("member")).rpartition(".")[2]
        return shlex.quote(member), f"torchvision's {said.get('member')}, {sha}"
    return "FILE", f"the file with {sha}"


def _options(settings: dict[str, Any], names: tuple[str, ...]) -> str:
    return "".join(
        f"--{name.replace('_', '-')} {shlex.quote(str(settings[name]))} "
        for name in names
        if settings.get(name) is not None
    )


def text(said: dict[str, Any]) -> str:
    """The same for people."""
    lines = [] if said["state"] == "unfinished" else _lines(said)
    for work in said["work"]:
        lines += [
            f"{said['path']}: unfinished {work['kind']} of {work['dataset']}",
            f"  done       {work['units_done']} of {work['units']} units, of {work['rows']} rows",
            f"  go on      {work['go_on']}",
            f"  so far in  {work['folder']}",
        ]
    return "\n".join(printable(line) for line in lines)


def _lines(said: dict[str, Any]) -> list[str]:
    latents = said["kind"] == "latents"
    facts: dict[str, Any] = {
        "data set": ", ".join([said["dataset"], *_words(said.get("dataset_options") or {})]),
        "rows": f"{said['rows']:,} of {' x '.join(map(str, said['row_shape']))} {said['dtype']}",
    }
    for split, counts in said["rows_by_split"].items():
        shown = [f"{name} {n:,}" for name, n in list(counts.items())[:12]]
        more = f", and {len(counts) - 12} more classes" if len(counts) > 12 else ""
        facts[f"  {split}"] = f"{sum(counts.values()):,}: {', '.join(shown)}{more}"
    facts["images"] = ", ".join(f"{n:,} {name}" for name, n in said["images"].items() if n)
    if latents:
        trained, stated = said["trained_on"], said["value_range"]
        seen = said["observed_range"]
        facts |= {
            "made of crops": crop_words(said.get("crops") or {}) or "settings not kept",
            "backbone": said["backbone"],
            "weights": said["weights"],
            "trained on": trained["data"] if trained else "not known" if said["pretrained"] else "",
            "values": (f"within {stated[0]:g} to {stated[1]:g}" if stated else "without bounds")
            + (f", found {seen[0]:g} to {seen[1]:g}" if seen else ""),
        }
    facts |= {
        "store": f"{said['store']}, {said['shards']} x {said['shard_rows']} rows a shard, "
        f"{bytes_text(said['bytes'])}",
        "fingerprint": said["fingerprint"],
        **{f"  {name}": value for name, value in _flat(said["settings"])},
        "content": said["content"],
        "provenance": "",
        **{f"  {name}": value for name, value in _flat(said["provenance"])},
        "made again from": said["made_again"].get("needs", "not known: the settings do not say"),
        "  by": said["made_again"].get("command"),
    }
    width = max(len(name) for name in facts)
    title = f"{said['path']}: {said['kind']} ({'latent' if latents else 'crop'} cache, finished)"
    empty = ("provenance",)
    shown_facts = [(n, v) for n, v in facts.items() if v not in ("", None) or n in empty]
    return [title, *(f"  {name.ljust(width)}  {value}".rstrip() for name, value in shown_facts)]


def _words(options: dict[str, Any]) -> list[str]:
    """Options of a data set."""
    return [f"{name} {value}" for name, value in options.items()]


def _flat(settings: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """(dotted name, value in at most 100 characters)"""
    lines = []
    for key, value in settings.items():
        if isinstance(value, dict):
            lines += _flat(value, f"{prefix}{key}.")
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            lines.append((f"{prefix}{key}", shown if len(shown) <= 100 else f"{shown[:97]}..."))
    return lines
