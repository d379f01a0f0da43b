"""The commands that look after caches: info, verify, diff, ls, convert, samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cache.errors import Refused
from pipeline import options as o

cache_app = typer.Typer(
    help=(
        "Look after caches: what there is, whether it is whole, in what two differ.\n\n"
        "A cache is a folder that lgr-pipe crop or extract has made. All but convert only read."
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
)
CachePath = Annotated[Path, typer.Argument(help="Cache, from lgr-pipe crop or extract")]


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=1, allow_nan=False))  # ASCII: no terminal is commanded


@cache_app.command("info")
def info(path: CachePath, as_json: o.Json = False) -> None:
    """Say what a cache holds, where it comes from, and who can make it again from what.

    Rows by split and class, faces found, store and size, the root and its weights, the range of
    values, the fingerprint with all settings behind it, when and with which versions it was made.
    Of an unfinished cache: how far it is and how to go on.

    Exit code 0; 2: there is no cache, or it cannot be read.
    """
    from pipeline import cache_info

    said = cache_info.about(path)
    if as_json:
        _print_json(said)
        return
    typer.echo(cache_info.text(said))


@cache_app.command("verify")
def verify(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Caches, of crops or latents")
    ],
    as_json: o.Json = False,
) -> None:
    """Read every byte of caches and compare it with what was written; tell all faults.

    Complete, and nothing strange in the folder; each file, column and row has its digest; no NaN,
    no infinity, nothing outside of the stated range; label, split, subject and crop of each row
    are those of the sample table; manifest and provenance have theirs. A single changed byte is
    found, with the rows and shards that it concerns.

    Exit code 0: whole; 1: faults; 2: one of them is no finished cache, or may not be read.
    """
    from pipeline import cache_text
    from pipeline.console import progress, say

    code, reports = 0, []
    for path in paths:
        try:
            report = _verified(path, progress)
        except (Refused, OSError) as error:
            text = str(error)
            if not isinstance(error, Refused):  # a file that may not be read, a disk that fails
                text = f"{error.filename or path}: {error.strerror}."
            say(f"Error: {_safe(text)}")
            reports.append({"path": str(path), "ok": False, "error": text})
            code = 2
            continue
        reports.append(cache_text.verify_json(report))
        code = max(code, 1 if report.faults else 0)
        if not as_json:
            typer.echo(cache_text.verify_text(report))
    if as_json:
        _print_json(reports)
    raise typer.Exit(code)


def _verified(path: Path, progress: Any) -> Any:
    from cache.verify import steps
    from cache.verify import verify as check

    with progress(f"verify {path.name}", steps(path), "files and shards") as tick:
        return check(path, tick)


def _safe(text: object) -> str:
    from cache.printable import printable

    return "\n".join(printable(line) for line in str(text).split("\n"))


@cache_app.command("diff")
def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="A cache")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another of the same kind")],
    as_json: o.Json = False,
) -> None:
    """Compare two caches: settings, rows and values; the store does not matter.

    Rows are matched by sample id. Equal are caches whose digests say so (lgr-pipe cache verify
    checks that the bytes have them); where they differ, the rows concerned are read, for the
    largest difference.

    Exit code 0: equal content, even if some setting differs (which is printed); 1: they differ;
    2: they cannot be compared (crops and latents), or one cannot be read.
    """
    from dataclasses import asdict

    from cache.diff import diff as compare
    from cache.schema import read_manifest
    from pipeline.cache_text import diff_text
    from pipeline.console import progress

    with progress("diff", read_manifest(a).rows, "rows") as tick:
        found = compare(a, b, tick)
    if as_json:
        _print_json({"a": str(a), "b": str(b), **asdict(found)})
    else:
        typer.echo(diff_text(a, b, found))
    raise typer.Exit(0 if found.same_content else 1)


@cache_app.command("ls")
def ls(
    root: Annotated[
        Path | None,
        typer.Argument(help="Folder to look through", show_default="data and caches, or ."),
    ] = None,
    as_json: o.Json = False,
) -> None:
    """List all caches below a folder: kind, data set, backbone, rows, size, age, state.

    Unfinished ones are listed with the units that are done. Only manifests are opened; the age is
    that of the manifest file.

    Exit code 0, also if there are none; 2: there is no such folder.
    """
    from cache.find import find
    from pipeline.cache_text import found_json, found_lines
    from pipeline.console import say

    usual = [Path(name) for name in ("data", "caches") if Path(name).is_dir()]
    roots = [root] if root is not None else usual or [Path()]
    if not roots[0].is_dir():
        raise Refused(f"There is no folder {roots[0]} to look through.")
    found = [cache for place in roots for cache in find(place)]
    if as_json:
        _print_json([found_json(cache) for cache in found])
    elif found:
        typer.echo("\n".join(found_lines(found)))
    else:
        say(f"No caches below {' and '.join(map(str, roots))}.")


@cache_app.command("convert")
def convert(
    source: Annotated[Path, typer.Argument(metavar="A", help="A finished cache")],
    out: Annotated[Path, typer.Argument(metavar="B", help="Folder to make")],
    store: Annotated[str, typer.Option(help="What B is to be: zarr or hdf5")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a cache of the same kind at B")
    ] = False,
    as_json: o.Json = False,
) -> None:
    """Write a cache in the other store: same rows, samples, fingerprint and content digest.

    Every row is checked when it is read, and the new cache is read back and checked before it is
    put in place by one rename. Killed at any moment, nothing half is at B, and the same command
    again cleans up and makes it.

    Exit code 0: B is there; 2: refused (B is taken, A is damaged), and nothing was changed.
    """
    from datetime import UTC, datetime

    from cache.convert import convert as write
    from cache.schema import read_manifest
    from cache.store import STORES
    from pipeline.console import progress, say

    if store not in STORES:
        raise Refused(f"--store must be {' or '.join(STORES)}, got {store!r}.")
    before = read_manifest(source)
    shards = -(-before.rows // before.shard_rows)
    made = datetime.now(UTC).isoformat(timespec="seconds")
    with progress("convert", 2 * shards, "shards") as tick:
        new = write(source, out, store, overwrite=overwrite, made=made, tick=tick)
    if as_json:
        _print_json({"path": str(out), "store": store, "rows": before.rows,
                     "content": before.content, "made": new is not None})  # fmt: skip
    elif new is None:
        say(f"{out} is there already, with the content of {source}: nothing to do.")
    else:
        say(f"{out} holds the {before.rows:,} {before.kind} of {source}, content {before.content}.")


@cache_app.command("samples")
def samples(
    path: CachePath,
    status: Annotated[
        str | None, typer.Option(help="Only these: found, whole, center, dropped, failed")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Only these: train, test, pretrain")] = None,
    label: Annotated[str | None, typer.Option(help="Only this class")] = None,
    as_json: o.Json = False,
) -> None:
    """List the rows of a cache: id, class, subject, split, status, and why an image failed.

    Exit code 0; 2: there is no cache, or it cannot be read.
    """
    from cache.printable import printable
    from cache.reader import Cache
    from cache.schema import SPLITS
    from stages.extract.faces import Status

    with Cache(path) as cache:
        manifest, rows = cache.manifest, cache.samples()
    choices = {
        "status": (status, tuple(s.name.lower() for s in Status)),
        "split": (split, SPLITS),
        "label": (label, manifest.classes),
    }
    for field, (wanted, known) in choices.items():
        if wanted is not None and wanted not in known:
            listed = ", ".join(map(printable, known))
            raise Refused(f"--{field} must be one of {listed}, got {wanted!r}.")
        rows = [row for row in rows if wanted in (None, row.get(field))]
    if manifest.kind == "latents" and status in ("failed", "dropped"):
        raise Refused(f"{path} holds latents: what has none is listed in its crop cache.")
    if as_json:
        _print_json(rows)
        return
    for row in rows:
        shown = ("row", "id", "label", "subject", "split", "status", "reason")
        typer.echo("\t".join(printable(row.get(key, "")) for key in shown))
