"""Wire the cache root: use what is there, put there what was made, choose what to train on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cache.errors import CacheDamagedError, CacheMissingError, Refused
from cache.fingerprint import Settings
from cache.parts import Parts, Plan
from cache.printable import printable
from cache.root import Entry, Root
from cache.schema import Manifest, read_manifest
from cache.writer import existing_match
from pipeline import summaries
from pipeline.caches.match import Comparison, Said, compare_latents
from pipeline.caches.text import crop_words
from pipeline.console import Tick, progress, say

_SHOWN = 12
"""Caches that a message names."""


def refuse_nowhere(root: Root | None, out: Path | None, *, retry_failed: bool = False) -> None:
    """Raise Refused where no place is named, or one that must not change."""
    if out is None and root is None:
        raise _nowhere()
    if out is None and retry_failed:
        raise Refused(
            "--retry-failed replaces a cache, and others may be using what is in a cache root: "
            "name the cache with --out, and its crops with --crops."
        )


def _nowhere() -> Refused:
    return Refused("Missing option '--out': where the cache is to be; or name a --cache-root.")


def place(root: Root | None, out: Path | None, plan: Plan) -> Path:
    """Where the cache is made: `out`, or else its place in the root.

    Raises:
        Refused: neither is given.
    """
    if out is not None:
        return out
    if root is None:
        raise _nowhere()
    return root.place(plan)


def ready(root: Root | None, out: Path | None, plan: Plan, *, overwrite: bool) -> Path | None:
    """Where the cache is, if nothing is to be made: it is at `out`, or in the root, from where it
    is copied to `out` if that is given.

    `overwrite`: what is at `out` may be replaced; without `out`, what is in the root.

    Raises:
        CacheExistsError: the place is taken.
        CacheDamagedError: the match in the root is damaged.
    """
    if out is not None and _matches(out, plan, plan.store, overwrite):
        summaries.nothing_to_do(out)
        share(root, out)
        return out
    found = None if root is None or (out is None and overwrite) else root.find(plan)
    if found is None:
        return None
    store = read_manifest(found).store
    if out is None:
        _matches(found, plan, store, False)  # what a killed run has left beside it goes
        other = f" It is kept as {store}, with equal content." if store != plan.store else ""
        say(f"{found} is there already and is what was asked for: nothing is made.{other}")
        return found
    from cache.care.convert import convert

    with _copying(found) as (made, tick):
        convert(found, out, plan.store, overwrite=overwrite, made=made, tick=tick)
    Parts(out, plan).discard()  # of a run that was interrupted
    say(f"{found} is what was asked for: {out} is a copy of it, every row checked.")
    return out


def _matches(place: Path, plan: Plan, store: str, overwrite: bool) -> bool:
    return existing_match(place, plan.kind, plan.settings, store, overwrite=overwrite) is not None


def holds(place: Path, plan: Plan) -> bool:
    """This cache is there and finished."""
    try:
        return read_manifest(place).fingerprint == plan.fingerprint
    except Refused:
        return False


def share(root: Root | None, out: Path) -> None:
    """Put the finished cache `out` into the root as well; a root that cannot take it is no
    failure of what was made."""
    if root is None or out.resolve().is_relative_to(root.path.resolve()):
        return
    try:
        with _copying(out) as (made, tick):
            put = root.put(out, made=made, tick=tick)
    except (Refused, OSError) as error:
        say(f"Note: {out} is finished, but was not put into the cache root {root.path}: {error}")
        return
    if put is not None:
        say(f"A copy for other projects is at {put}.")


@contextmanager
def _copying(source: Path) -> Iterator[tuple[str, Tick]]:
    """The time, and a bar over all shards, written and read back."""
    steps = 2 * read_manifest(source).shards
    with progress(f"copy {source.name}", steps, "shards") as tick:
        yield datetime.now(UTC).isoformat(timespec="seconds"), tick


# --- what to train on --------------------------------------------------------------------


def chosen(cache: Any, root: Path | None, asked: Said) -> Any:
    """`cache` where it was named; or else the only latent cache in the root that is what the
    settings ask for.

    Raises:
        CacheMissingError: none is, and how those that are there differ.
        Refused: neither was named, or several caches fit.
    """
    if cache is not None:
        return cache
    if root is None:
        raise Refused(
            "Missing option '--cache': the latents to train on; or a --cache-root that has them."
        )
    entries = list(Root(root).latents())
    found = [(entry, _compared(asked, entry)) for entry in entries]
    fitting = [entry for entry, is_ in found if entry.manifest and not is_.differing]
    if not fitting:
        raise CacheMissingError(_none(root, found))
    if len(fitting) > 1:
        raise Refused(
            f"{len(fitting)} caches in {root} are what the settings ask for:\n  "
            + _listed([f"{entry.path}: {_about(entry.manifest)}" for entry in fitting])
            + "\nName one with --cache, or say more: --dataset, --backbone, --weights, or "
            "crop: and extract: in the file of --params."
        )
    say(f"Cache: {fitting[0].path}, the only one in {root} that is what the settings ask for.")
    return fitting[0].path


def _compared(asked: Said, entry: Entry) -> Comparison:
    return compare_latents(asked, entry.manifest) if entry.manifest else Comparison()


def _none(root: Path, found: list[tuple[Entry, Comparison]]) -> str:
    if not found:
        return (
            f"There are no latent caches in {root} yet: lgr-pipe extract --cache-root {root} "
            "makes them."
        )
    few = sorted(found, key=lambda one: (one[0].manifest is None, len(one[1].differing)))
    lines = [
        f"{entry.path}: {'; '.join(is_.differing) or printable(entry.problem)}"
        for entry, is_ in few
    ]
    return (
        f"No cache in {root} is what the settings ask for:\n  {_listed(lines)}\n"
        "Name one with --cache and settings that are its own, or make it: lgr-pipe extract with "
        f"the same settings and --cache-root {root}."
    )


def _listed(lines: list[str]) -> str:
    more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return "\n  ".join([*lines[:_SHOWN], *more])


def _about(manifest: Manifest | None) -> str:
    """What tells caches apart, in a line."""
    if manifest is None:
        return ""
    info = manifest.info
    words = [info.dataset, info.backbone, info.weights, *root_words(manifest.settings)]
    words.append(f"{manifest.rows} rows")
    if info.crops is not None:
        words.append(f"crops: {crop_words(info.crops)}")
    return printable(", ".join(word for word in words if word))


def root_words(settings: Settings) -> list[str]:
    """Layer, activation and normalisation of a root, and the type of its latents."""
    root = settings.get("root")
    said = root if isinstance(root, dict) else {}
    words = [
        f"{name} {said[name]}" for name in ("layer", "activation", "normalize") if name in said
    ]
    return [*words, str(settings.get("dtype", ""))]


def crops_of(manifest: Manifest, root: Path | None) -> Path | None:
    """The crop cache in the root that the latents were made of, if it is there.

    Raises:
        CacheDamagedError: it is, and not whole.
    """
    try:
        key = str(manifest.settings.get("crops"))
        return None if root is None else Root(root).find_crops(manifest.info.dataset, key)
    except CacheDamagedError:
        raise
    except Refused:  # names that are none of ours
        return None
