"""Latents again, from their crops and the root that the manifest names: for verify and repair."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cache.errors import CacheDamagedError, CacheMismatchError, Refused
from cache.listing import read_provenance
from cache.reader import Cache
from cache.schema import Manifest
from cache.store import Array
from pipeline.device import choose
from pipeline.image_root import side_of
from stages.extract.backbones import cost
from stages.extract.forward import GROUP, Forward
from stages.extract.latents import ALIKE, VERSION, sample_lines
from stages.extract.recover import move, recover
from stages.extract.root import Root
from stages.extract.source import CachedCrops, usable_rows


class LatentsAgain:
    """What a latent cache is made of.  Nothing is opened before it is asked for.

    As source of a repair it goes through the crops in the groups in which they
    first went through the root: the same machine gives the same bits.
    """

    why_others = (
        "Another processor, another version of torch or a GPU adds in another order, and the last "
        "bits differ: repair where it was made, or make it again (lgr-pipe extract --overwrite)."
    )

    def __init__(
        self, path: Path, manifest: Manifest, crops: Path | None, weights: str | None
    ) -> None:
        """`path`: the latents, `manifest`: theirs; `weights`: FILE, where they came from one."""
        self._path, self._manifest = path, manifest
        self._given, self._weights = crops, weights
        self._open = ExitStack()

    def __enter__(self) -> LatentsAgain:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @cached_property
    def crops(self) -> Cache:
        """Raises Refused: none are given, or they are others."""
        if self._given is None:
            raise Refused(
                f"{self._path} holds latents, which are made again from their crops: name the crop "
                "cache, --crops DIR."
            )
        cache = self._open.enter_context(Cache(self._given))
        cache.expect("crops")
        wanted = self._manifest.settings.get("crops")
        if cache.manifest.fingerprint != wanted:
            raise CacheMismatchError(
                f"{self._path} was not made of the crops in {self._given}: fingerprint "
                f"{cache.manifest.fingerprint}, expected {wanted}."
            )
        side_of(cache)
        if "status" not in cache.manifest.columns:
            raise CacheMismatchError(f"{self._given} does not say which of its crops are usable.")
        return cache

    @cached_property
    def root(self) -> Root:
        """Where it was when it made the cache, if there is such a device here.

        Raises:
            Refused: weights that are not given or are others; another version of the extraction.
        """
        settings = self._manifest.settings.get("root")
        version = settings.get("version", VERSION) if isinstance(settings, dict) else VERSION
        if version not in ALIKE:
            raise CacheMismatchError(
                f"{self._path} was made by version {version!r} of the extraction, this is version "
                f"{VERSION}: its latents cannot be made again here."
            )
        side = side_of(self.crops)
        tap, root = recover(self._manifest, self._weights)
        dim = cost(tap, side).dim
        held = self._manifest.columns[self._manifest.bulk].shape[1]
        if dim != held:
            raise CacheMismatchError(
                f"{self._path} holds latents of {held} values, its root gives {dim}."
            )
        return move(root, self.device)

    @cached_property
    def device(self) -> str:
        try:
            made_on = read_provenance(self._path).get("devices")
        except CacheDamagedError:
            made_on = None
        return choose("auto" if made_on == ["cuda"] else "cpu")

    def latents(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """float32 (k, D) of uint8 (k, S, S, 3), grouped from the first on."""
        made = list(self._forward(self.root, torch.from_numpy(np.ascontiguousarray(pixels))))
        return torch.cat(made).numpy()

    @cached_property
    def _forward(self) -> Forward:
        return Forward(self.device)

    @cached_property
    def _crop_rows(self) -> NDArray[np.int64]:
        """Of each latent.  Raises CacheMismatchError: these crops give more latents, or fewer."""
        rows = usable_rows(self.crops)
        if len(rows) != self._manifest.rows:
            raise CacheMismatchError(
                f"{self._given} has {len(rows)} crops of which a latent is made, {self._path} has "
                f"{self._manifest.rows} latents."
            )
        return rows

    def rows(self, start: int, stop: int, samples: Path) -> Array:
        """Latents start..stop-1 as they are stored."""
        del samples
        dtype = self._manifest.columns[self._manifest.bulk].dtype
        return np.concatenate(list(self._pieces(start, stop))).astype(dtype)

    def _pieces(self, start: int, stop: int) -> Iterator[NDArray[np.float32]]:
        """A unit is a shard of the crops, its usable crops are grouped from its first on."""
        rows, source = self._crop_rows, CachedCrops(self.crops)
        size = self.crops.manifest.shard_rows
        for unit in range(rows[start] // size, rows[stop - 1] // size + 1):
            first, last = (int(k) for k in np.searchsorted(rows, (unit * size, (unit + 1) * size)))
            (crops,) = source.units([unit])
            begin = first + max(start - first, 0) // GROUP * GROUP
            pixels = crops.pixels[crops.usable][begin - first :]
            pixels = pixels[: -(-(min(stop, last) - begin) // GROUP) * GROUP]
            yield self.latents(pixels)[max(start - begin, 0) : stop - begin]

    def side(self, name: str, samples: Path) -> Array:
        """Raises Refused: it is not known where such a column comes from."""
        del samples
        if name == "row":
            return self._crop_rows.astype(np.int32)
        if name not in ("label", "split", "subject"):
            raise Refused(f"It is not known how column {name} of {self._path} was made.")
        return self.crops.side(name)[self._crop_rows]

    def table(self) -> Iterable[dict[str, Any]]:
        try:
            return list(sample_lines(self.crops.lines(), self._crop_rows))
        except KeyError as error:
            raise CacheMismatchError(
                f"The sample table of {self._given} states no {error.args[0]}."
            ) from None
