"""How a plan reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pipeline.caches.text import aligned
from pipeline.extraction_plan import Plan, Planned

_SIZES = ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def size_text(count: float) -> str:
    """
    >>> size_text(46_100_000_000_000), size_text(3_000_000_000), size_text(2312), size_text(7)
    ('46 TB', '3.0 GB', '2.3 kB', '7 B')
    """
    for size, word in _SIZES:
        if count >= size:
            return f"{_short(count / size)} {word}"
    return f"{count:.0f} B"


def hours_text(hours: float) -> str:
    """
    >>> hours_text(0.004), hours_text(0.5), hours_text(47.6), hours_text(123456.7)
    ('14 s', '30 min', '48 h', '123,457 h')
    """
    if hours < 1 / 60:
        return f"{_short(3600 * hours)} s"
    return f"{_short(60 * hours)} min" if hours < 0.99 else f"{_short(hours)} h"


def _short(value: float) -> str:
    """Two digits at least, and no more where they are whole."""
    return f"{value:.1f}" if value < 9.95 else f"{value:,.0f}"


def text(plan: Plan) -> str:
    """The table, and below it what of it was measured."""
    rows: list[tuple[str, Iterable[str]]] = [
        ("images", (f"{p.images:,}" for p in plan.planned)),
        *_rows(plan),
    ]
    table = [(name, *cells) for name, cells in rows]
    return "\n".join([*aligned(table, right=tuple(range(1, 1 + len(plan.planned)))), *_notes(plan)])


def _rows(plan: Plan) -> list[tuple[str, list[str]]]:
    unit, shard = plan.sizes.unit_rows, plan.sizes.shard_rows

    def row(name: str, cell: Callable[[Planned], str]) -> tuple[str, list[str]]:
        return name, [cell(p) for p in plan.planned]

    walls = [
        row(f"start to end, {_jobs(jobs)}{each}", lambda p, k=k, on=on: _wall(p, k, on))  # type: ignore[misc]
        for on, each in (("cpu", ""), ("gpu", ", a GPU each"))
        for k, jobs in enumerate(plan.machine.jobs)
    ]
    return [
        row(f"units of {unit} images", lambda p: f"{p.units:,}"),
        row("caches needed", lambda p: f"{p.caches:,}"),
        row("files of crops", lambda p: f"{p.crop_files:,}"),
        row(f"files of latents, {shard} rows each", lambda p: f"{p.latent_files:,}"),
        row("crops, unpacked", lambda p: size_text(p.disk.crops_raw)),
        row("crops, on disk", lambda p: size_text(p.disk.crops)),
        row("latents, unpacked", lambda p: size_text(p.disk.latents_raw)),
        row("latents, on disk", lambda p: size_text(p.disk.latents)),
        row("other columns", lambda p: size_text(p.disk.columns)),
        row("sample tables", lambda p: size_text(p.disk.tables)),
        row("manifests", lambda p: size_text(p.disk.manifests)),
        row("provenance", lambda p: size_text(p.disk.provenance)),
        row("records and table of the work", lambda p: size_text(p.disk.work)),
        row("disk at the most", lambda p: size_text(p.disk.at_most)),
        row("memory of a job, list of images", lambda p: size_text(p.list_memory)),
        row("memory to finalize", lambda p: size_text(p.finalize_memory)),
        row("core time, digests of images", lambda p: hours_text(p.hours.read)),
        row("core time, faces and crops", lambda p: hours_text(p.hours.crop)),
        row("core time, root", lambda p: hours_text(p.hours.root)),
        row("or GPU time, root", lambda p: hours_text(p.hours.gpu)),
        row("core time, finalize", lambda p: hours_text(p.hours.finish)),
        *walls,
    ]


def _jobs(count: int) -> str:
    return f"{count} job{'s' if count > 1 else ''}"


def _wall(planned: Planned, which: int, on: str) -> str:
    wall = planned.wall[which]
    return hours_text(wall.cpu if on == "cpu" else wall.gpu)


def _notes(plan: Plan) -> list[str]:
    sizes, rates, machine = plan.sizes, plan.rates, plan.machine
    gpu = (
        f"The GPU was not measured: {2 * sizes.gmacs:.3g} GFLOP a crop at "
        f"{machine.gpu_tflops:g} TFLOP/s in practice (--gpu-tflops)."
        if rates.gpu is None
        else f"GPU: {1e3 * rates.gpu:.2f} ms a latent, measured."
    )
    return [
        "",
        f"{sizes.backbone}, crops of {sizes.crop_side} x {sizes.crop_side} pixels, latents of "
        f"{sizes.dim} {sizes.dtype}, store {sizes.store}.",
        f"Measured on {rates.images} images (--limit), by one core: "
        f"{1e3 * rates.read:.2f} ms an image for its digest, {1e3 * rates.crop:.1f} ms for its "
        f"crop, {1e3 * rates.root:.1f} ms for its latent, {1e3 * rates.finish:.2f} ms to finalize "
        "(too much rather than too little: fixed costs are in it); "
        f"latents of {100 * rates.usable:.1f} %; crops take {100 * rates.crops.ratio:.0f} %, "
        f"latents {100 * rates.latents.ratio:.0f} % of their bytes on disk.",
        gpu,
        "Everything else is worked out from that in proportion: processor time, without waiting "
        f"for disks or networks; jobs (--shard i/n) of {machine.cores} cores each (--workers), "
        "every one of which takes the digests of all images, then one that finalizes.",
        "Memory: by what made-up rows have taken. train holds all latents unpacked.",
    ]
