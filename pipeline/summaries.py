"""What stage one says at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cache.files import tree_bytes
from cache.parts import Parts
from cache.schema import MANIFEST, Manifest, read_manifest, scratch_folders
from cache.writer import clear_leftovers
from pipeline.console import bytes_text, say, summary

_WORDS = {
    "whole": "no face, whole image taken",
    "center": "no face, middle square taken",
    "dropped": "no face, no latent made",
}
"""How the counts of the manifest read."""


def nothing_to_do(out: Path) -> None:
    say(f"{out} is finished already and is what was asked for: nothing to do.")


def _unsearched(manifest: Manifest) -> bool:
    """No face was looked for (of latents: as it seems)."""
    if manifest.kind == "crops":
        return bool(manifest.settings["crop"]["face_crop"] == "off")
    images = manifest.info.images
    return images["found"] == 0 and images["whole"] + images["failed"] == sum(images.values())


def finished_already(out: Path, kind: str) -> bool:
    """Says so if `out` is a finished cache and no other work on it is under way."""
    if not (out / MANIFEST).is_file():
        return False
    found = read_manifest(out)
    clear_leftovers(out, found.fingerprint)
    there = found.kind == kind and not scratch_folders(out)
    if there:
        say(f"{out} is finished already.")
    return there


def stripe_done(parts: Parts, shard: tuple[int, int], made: int) -> None:
    """After a --shard run: how far all of them are."""
    missing, total = len(parts.missing()), len(parts.plan.units)
    command = "extract" if parts.plan.kind == "latents" else "crop"
    say(
        f"Shard {shard[0]}/{shard[1]} is done: {made} {parts.plan.kind} made. "
        f"{total - missing} of {total} units are there"
        + ("." if missing else f": all of them. Now: lgr-pipe {command} finalize --out {parts.out}")
    )


def finished(out: Path, manifest: Manifest, made: int, seconds: float | None) -> None:
    """The counts of a finished cache; `seconds`: None where they would say nothing."""
    images = manifest.info.images
    total = sum(images.values())
    rows: dict[str, Any] = {"images": total}
    if _unsearched(manifest):
        rows["whole images"] = images["whole"]
    else:
        rows["faces found"] = f"{images['found']} ({100 * images['found'] / total:.1f} %)"
        rows |= {_WORDS[status]: n for status, n in images.items() if n and status in _WORDS}
    rows["failed"] = images["failed"]
    if made < manifest.rows:
        rows["made by an earlier run"] = manifest.rows - made
    if seconds is not None:
        rows["seconds"] = f"{seconds:.1f}"
        rows["images per second"] = f"{made / seconds:.1f}"
    rows["bytes"] = bytes_text(tree_bytes(out))
    if manifest.kind == "latents":
        rows["weights"] = manifest.info.weights
        if manifest.info.trained_on is not None:
            rows["trained on"] = manifest.info.trained_on.data
        rows["latents"] = " x ".join(str(n) for n in manifest.columns["latents"].shape)
    rows["fingerprint"] = manifest.fingerprint
    summary(f"{out} is finished.", rows)
    if images["failed"] and manifest.kind == "crops":
        say(f"The failed images and the reasons: lgr-pipe cache samples {out} --status failed")
