"""The commands that look after caches: info, verify, diff, ls, convert, samples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cache.errors import Refused
from pipeline import cli_cache_mend as mend
from pipeline import cli_cache_share as share
from pipeline.console import Json, print_json
from pipeline.folders import FOLDERS_OF_CACHES, folders_of_caches

cache_app = typer.Typer(
    help=(
        "Look after caches: what there is, whether it is whole, in what two differ.\n\n"
        "A cache is a folder that lgr-pipe crop or extract has made. All but convert, repair, "
        "export, import and gc only read."
    ),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
CachePath = Annotated[Path, typer.Argument(help="Cache, from lgr-pipe crop or extract")]
CacheWhere = Annotated[
    str,
    typer.Argument(
        metavar="PATH|URL",
        help="Cache, from lgr-pipe crop or extract: a folder, or a URL (s3, gs, https), all of "
        "which is read into memory",
    ),
]


@cache_app.command("info")
def info(path: CacheWhere, as_json: Json = False) -> None:
    """Say what a cache holds, where it comes from, and who can make it again from what.

    Rows by split and class, faces found, store and size, the root and its weights, the range of
    values, the fingerprint with all settings behind it, when and with which versions it was made.
    Of an unfinished cache: how far it is and how to go on.

    Exit code 0; 2: there is no cache, or it cannot be read.
    """
    from cache.remote.fetch import locate
    from pipeline.caches import info as cache_info
    from pipeline.caches.places import place

    said = cache_info.about(place(locate(path)))
    if as_json:
        print_json(said)
        return
    typer.echo(cache_info.text(said))


@cache_app.command("verify")
def verify(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH|URL...",
            help="Caches, of crops or latents: folders, or URLs; or a folder with caches below it",
        ),
    ],
    recompute: Annotated[
        int | None,
        typer.Option(min=1, metavar="K", help="Make K random rows again, too, and compare them"),
    ] = None,
    crops: mend.Crops = None,
    root: mend.Images = None,
    weights: mend.Weights = None,
    as_json: Json = False,
) -> None:
    """Read every byte of caches and compare it with what was written; tell all faults.

    Complete, and nothing strange in the folder; each file, column and row has its digest; no NaN,
    no infinity, nothing outside of the stated range; label, split, subject and crop of each row
    are those of the sample table; manifest and provenance have theirs. A single changed byte is
    found, with the rows and shards that it concerns.

    --recompute tells what no digest can, a cache made of the wrong crops or with the wrong
    weights: K rows are made again, latents from --crops (float32 within 1e-5, as much of their
    size above 1; float16 half a unit in its last place more; of a calibrated random root more where
    it hardly varies, up to 0.01), crops from the images in --root (equal).

    Exit code 0: whole; 1: faults; 2: one of them is no finished cache, or may not be read.
    """
    from cache.remote.url import redacted
    from pipeline.caches import text as cache_text
    from pipeline.caches.recheck import Given
    from pipeline.console import progress, say

    code, reports = 0, []
    for named in [one for given in paths for one in _below(given)]:
        path = redacted(named)
        try:
            report = _verified(named, progress)
            if recompute is not None:
                _recompute(report, recompute, Given(crops, root, weights))
        except (Refused, OSError) as error:
            text = str(error)
            if not isinstance(error, Refused):  # a file that may not be read, a disk that fails
                text = f"{error.filename or path}: {error.strerror}."
            say(f"Error: {_safe(text)}")
            reports.append({"path": path, "ok": False, "error": text})
            code = 2
            continue
        reports.append(cache_text.verify_json(report))
        code = max(code, 1 if report.faults else 0)
        if not as_json:
            typer.echo(cache_text.verify_text(report))
    if as_json:
        print_json(reports)
    raise typer.Exit(code)


def _below(given: str) -> list[str]:
    """All caches below a folder that is none itself."""
    from cache.find import find
    from cache.schema import MANIFEST

    path = Path(given)
    if not path.is_dir() or (path / MANIFEST).exists():
        return [given]
    found = [str(cache.path) for cache in find(path) if cache.state in ("finished", "damaged")]
    return found or [given]


def _verified(named: str, progress: Any) -> Any:
    from cache.care.verify import steps
    from cache.care.verify import verify as check
    from cache.remote.fetch import locate
    from pipeline.caches.places import place

    path = place(locate(named), checked=False)  # all faults are told, not only the first
    with progress(f"verify {path.name}", steps(path), "files and shards") as tick:
        return check(path, tick)


def _recompute(report: Any, count: int, given: Any) -> None:
    """Add what that shows to the report."""
    import secrets

    from pipeline.caches.recheck import recheck
    from pipeline.console import progress

    seed = secrets.randbelow(1 << 32)
    with progress(f"recompute {report.path.name}", count, "rows") as tick:
        recheck(report, count, seed, given, tick)


def _safe(text: object) -> str:
    from cache.printable import printable

    return "\n".join(printable(line) for line in str(text).split("\n"))


@cache_app.command("diff")
def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="A cache")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another of the same kind")],
    as_json: Json = False,
) -> None:
    """Compare two caches: settings, rows and values; the store does not matter.

    Rows are matched by sample id. Equal are caches whose digests say so (lgr-pipe cache verify
    checks that the bytes have them); where they differ, the rows concerned are read, for the
    largest difference.

    Exit code 0: equal content, even if some setting differs (which is printed); 1: they differ;
    2: they cannot be compared (crops and latents), or one cannot be read.
    """
    from dataclasses import asdict

    from cache.care.diff import diff as compare
    from cache.schema import read_manifest
    from pipeline.caches.text import diff_text
    from pipeline.console import progress

    with progress("diff", read_manifest(a).rows, "rows") as tick:
        found = compare(a, b, tick)
    if as_json:
        print_json({"a": str(a), "b": str(b), **asdict(found)})
    else:
        typer.echo(diff_text(a, b, found))
    raise typer.Exit(0 if found.same_content else 1)


@cache_app.command("ls")
def ls(
    root: Annotated[
        Path | None,
        typer.Argument(help="Folder to look through", show_default=FOLDERS_OF_CACHES),
    ] = None,
    as_json: Json = False,
) -> None:
    """List all caches below a folder: kind, data set, backbone, rows, size, age, state.

    Unfinished ones are listed with the units that are done. Only manifests are opened; the age is
    that of the manifest file.

    Exit code 0, also if there are none; 2: there is no such folder.
    """
    from cache.find import find
    from pipeline.caches.text import found_json, found_lines
    from pipeline.console import say

    roots = folders_of_caches(root, shared=True)
    found = [cache for place in roots for cache in find(place)]
    if as_json:
        print_json([found_json(cache) for cache in found])
    elif found:
        typer.echo("\n".join(found_lines(found)))
    else:
        say(f"No caches below {' and '.join(map(str, roots))}.")


@cache_app.command("convert")
def convert(
    source: Annotated[
        str, typer.Argument(metavar="A", help="A finished cache: a folder, or a URL")
    ],
    out: Annotated[Path, typer.Argument(metavar="B", help="Folder to make")],
    store: Annotated[str, typer.Option(help="What B is to be: zarr or hdf5")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a cache of the same kind at B")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a cache in the other store: same rows, samples, fingerprint and content digest.

    Every row is checked when it is read, and the new cache is read back and checked before it is
    put in place by one rename. Killed at any moment, nothing half is at B, and the same command
    again cleans up and makes it.

    A may be a URL: then B is a copy of it, in the same store or the other.

    Exit code 0: B is there; 2: refused (B is taken, A is damaged), and nothing was changed.
    """
    from datetime import UTC, datetime

    from cache.care.convert import convert as write
    from cache.remote.fetch import locate
    from cache.schema import read_manifest
    from cache.store import STORES
    from pipeline.caches.places import place
    from pipeline.console import progress, say

    if store not in STORES:
        raise Refused(f"--store must be {' or '.join(STORES)}, got {store!r}.")
    there = place(locate(source))
    before = read_manifest(there)
    made = datetime.now(UTC).isoformat(timespec="seconds")
    with progress("convert", 2 * before.shards, "shards") as tick:
        new = write(there, out, store, overwrite=overwrite, made=made, tick=tick)
    if as_json:
        print_json({"path": str(out), "store": store, "rows": before.rows,
                    "content": before.content, "made": new is not None})  # fmt: skip
    elif new is None:
        say(f"{out} is there already, with the content of {there}: nothing to do.")
    else:
        say(f"{out} holds the {before.rows:,} {before.kind} of {there}, content {before.content}.")


@cache_app.command("samples")
def samples(
    path: CachePath,
    status: Annotated[
        str | None, typer.Option(help="Only these: found, whole, center, dropped, failed")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Only these: train, test, pretrain")] = None,
    label: Annotated[str | None, typer.Option(help="Only this class")] = None,
    as_json: Json = False,
) -> None:
    """List the rows of a cache: id, class, subject, split, status, and why an image failed.

    Exit code 0; 2: there is no cache, or it cannot be read.
    """
    from cache.printable import printable
    from cache.reader import Cache
    from cache.schema import SPLITS
    from stages.extract.faces import Status

    with Cache(path) as cache:
        manifest, rows = cache.manifest, cache.lines()
    choices = {
        "status": (status, tuple(s.name.lower() for s in Status)),
        "split": (split, SPLITS),
        "label": (label, manifest.classes),
    }
    for field, (wanted, known) in choices.items():
        if wanted is not None and wanted not in known:
            listed = ", ".join(map(printable, known))
            raise Refused(f"--{field} must be one of {listed}, got {wanted!r}.")
    if manifest.kind == "latents" and status in ("failed", "dropped"):
        raise Refused(f"{path} holds latents: what has none is listed in its crop cache.")
    kept = (r for r in rows if all(w in (None, r.get(f)) for f, (w, _) in choices.items()))
    if as_json:
        print_json(list(kept))
        return
    for row in kept:
        shown = ("row", "id", "label", "subject", "split", "status", "reason")
        typer.echo("\t".join(printable(row.get(key, "")) for key in shown))


cache_app.command("repair")(mend.repair)
cache_app.command("export")(share.export)
cache_app.command("import")(share.import_)
cache_app.command("gc")(share.gc)
