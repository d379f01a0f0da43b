"""The commands that send caches out, take them in and clean up: export, import, gc."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from cache.errors import Refused
from pipeline.console import Json, print_json
from pipeline.folders import LOCAL_FOLDERS, folders_of_caches


def export(
    source: Annotated[Path, typer.Argument(metavar="CACHE", help="A finished cache")],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="File to make; with --to npy a folder")
    ],
    to: Annotated[str, typer.Option("--to", help="npy, safetensors, zip or parquet")],
    crops: Annotated[
        bool, typer.Option("--crops/--no-crops", help="Allow pictures of faces to be exported")
    ] = False,
    names: Annotated[
        bool,
        typer.Option(
            "--names/--no-names", help="Sample ids and people as they are, or numbers for them"
        ),
    ] = True,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an export of the same format at OUT")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a cache for other programs, or as one file to send.

    npy: a folder of plain arrays, a table and a README. safetensors, parquet: one file with
    everything (parquet needs pip install 'lgr-pipe[parquet]'). zip: the cache as it is, for
    lgr-pipe cache import or any unzip; the same cache gives the same bytes.

    Crops are pictures of people and stay here unless --crops is given. Ids and subjects are often
    file names: --no-names writes numbers instead (not in a zip, whose digests are kept).

    Every row is checked when it is read. OUT is put in place by one rename: killed at any moment,
    nothing half is there, and the same command again cleans up and makes it.

    Exit code 0: OUT is there; 2: refused (OUT is taken, CACHE is damaged), nothing was changed.
    """
    from cache.files import tree_bytes
    from cache.schema import read_manifest
    from cache.share.export import FORMATS, steps
    from cache.share.export import export as write
    from pipeline.console import bytes_text, progress, say

    if to not in FORMATS:
        raise Refused(f"--to must be {', '.join(FORMATS[:-1])} or {FORMATS[-1]}, got {to!r}.")
    manifest = read_manifest(source)
    unit = "files and shards" if to == "zip" else "shards"
    with progress("export", steps(source, to), unit) as tick:
        made = write(source, out, to, crops=crops, names=names, overwrite=overwrite, tick=tick)
    size = tree_bytes(out) if out.is_dir() else out.stat().st_size
    if as_json:
        print_json({"path": str(out), "to": to, "kind": manifest.kind, "rows": manifest.rows,
                    "names": names, "fingerprint": manifest.fingerprint,
                    "content": manifest.content, "bytes": size, "made": made})  # fmt: skip
    elif made:
        say(f"{out} holds the {manifest.rows:,} {manifest.kind} of {source}, {bytes_text(size)}.")
        if names:
            say(
                "Sample ids and people's names are in it"
                + (": they are part of the cache." if to == "zip" else "; not with --no-names.")
            )
    else:
        say(f"{out} is there already, byte for byte: nothing to do.")


def import_(
    file: Annotated[
        Path, typer.Argument(metavar="ZIP", help="From lgr-pipe cache export --to zip")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a cache of the same kind at OUT")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make the cache in a zip file a cache again.

    The file need not be trusted: only files that a cache consists of are unpacked, none outside
    of OUT and not more bytes than the zip has; all is then verified as lgr-pipe cache verify
    does, and put in place by one rename.

    Exit code 0: OUT is there; 2: refused (OUT is taken, no whole cache in it), nothing was made.
    """
    from cache.share.unzip import unzip
    from pipeline.console import bars, say

    with bars() as shown:
        manifest, made = unzip(file, out, overwrite=overwrite, bar=shown.add)
    if as_json:
        print_json({"path": str(out), "kind": manifest.kind, "store": manifest.store,
                    "rows": manifest.rows, "fingerprint": manifest.fingerprint,
                    "content": manifest.content, "made": made})  # fmt: skip
    elif made:
        say(f"{out} holds {manifest.rows:,} {manifest.kind}, verified; {manifest.fingerprint}.")
    else:
        say(f"{out} is there already, with the same manifest: nothing to do.")


def gc(
    root: Annotated[
        Path | None,
        typer.Argument(
            metavar="ROOT",
            help="Folder to look through; a cache root that others share only if it is named",
            show_default=LOCAL_FOLDERS,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would go, and why")
    ] = False,
    older_than: Annotated[
        float,
        typer.Option(
            min=0, metavar="DAYS", help="Unfinished work untouched for so long goes; 0: all of it"
        ),
    ] = 7,
    as_json: Json = False,
) -> None:
    """Remove what interrupted commands have left; never a finished cache.

    Unfinished work goes when nothing in it has changed for --older-than days: until then the same
    crop or extract command goes on with it. What nobody needs any more (of a killed convert,
    export, import or repair, work whose cache is finished, a replaced cache) goes after an hour.
    With --older-than 0 all goes, even what a running crop or extract is at: let none run.

    What only looks like a leftover is left alone and named. Links are not followed.

    Exit code 0; 1: something could not be removed; 2: there is no such folder.
    """
    from cache.care.collect import collect, remove
    from pipeline.caches.share_text import verdict_json, verdict_lines
    from pipeline.console import bytes_text, say

    if math.isnan(older_than):  # would be older than nothing, and so take everything
        raise Refused("--older-than must be a number of days, got nan.")
    roots = folders_of_caches(root, shared=False)
    seconds = older_than * 86400
    found = [verdict for place in roots for verdict in collect(place, seconds)]
    going = [verdict for verdict in found if verdict.goes]
    failed = {} if dry_run else {v.path: why for v in going if (why := remove(v, seconds))}
    freed = sum(verdict.bytes for verdict in going if verdict.path not in failed)
    if as_json:
        print_json({"dry_run": dry_run, "freed": freed,
                    "found": [verdict_json(v, failed.get(v.path)) for v in found]})  # fmt: skip
    else:
        if found:
            typer.echo("\n".join(verdict_lines(found, failed, dry_run=dry_run)))
        done = len(going) - len(failed)
        would = "would go" if dry_run else "went"
        where = " and ".join(map(str, roots))
        said = f"{done} of {len(found)} leftovers {would}, {bytes_text(freed)}."
        say(said if found else f"Nothing is left over below {where}.")
    raise typer.Exit(1 if failed else 0)
