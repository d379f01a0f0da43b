"""Wire the pre-training of a small root: settings -> crops -> weight file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cache.errors import CacheExistsError, Refused
from cache.reader import Cache
from pipeline import crops as crop_room
from pipeline.console import progress, say, summary
from pipeline.how import How
from pipeline.params import Params
from stages.extract.pretrain import WITH_PRETRAIN_ROWS, PretrainSettings
from stages.extract.pretrain import pretrain as train


def pretrain(
    params: Params, crops: Path, out: Path, how: How, *, given: dict[str, Any], overwrite: bool
) -> None:
    """Train lenet on the pretrain rows of the crops (made first where missing)."""
    if out.is_dir():
        raise CacheExistsError(f"{out} is a folder: --out is the weight file to make.")
    if out.exists() and not overwrite:
        raise CacheExistsError(f"{out} exists already: add --overwrite, or choose another --out.")
    if not crops.exists():
        if params.dataset.name not in WITH_PRETRAIN_ROWS:
            raise Refused(
                f"The data set {params.dataset.name} keeps no images aside for the root. These "
                f"do: {', '.join(WITH_PRETRAIN_ROWS)}."
            )
        say(f"There are no crops at {crops} yet: making them first.")
        crop_room.crop(params, crops, how)
    else:
        crop_room.check(params, crops, how)
    settings = PretrainSettings(**given)
    out.parent.mkdir(parents=True, exist_ok=True)
    with Cache(crops) as cache, progress("pretrain lenet", settings.iters, "it") as tick:
        done = train(cache, settings, out, device=how.device, tick=tick)
    summary(
        f"{out} is finished.",
        {
            "trained on": f"{done.rows} images, {done.trained_on.data}",
            "classes": ", ".join(done.trained_on.names),
            "right on training images it never saw": f"{100 * done.accuracy:.2f} %",
            "seconds": f"{done.seconds:.1f}",
        },
    )
    say(f"Now: lgr-pipe extract --backbone lenet --weights {out} --crops {crops} --out CACHE")
