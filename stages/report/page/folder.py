"""A folder that holds a report: only what a report has put there is ever replaced or deleted."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cache.errors import Refused
from cache.files import refuse_url, write_atomically, write_json
from cache.printable import printable

LIST = ".report-files.json"
"""Names what is ours; written before the first file and after the last."""
_FORMAT = "lgr-pipe report files"
_OURS = re.compile(
    r"report\.(?:html|md)|tables/[a-z0-9-]{1,120}\.(?:csv|tex)|figures/[a-z0-9-]{1,120}\.(?:svg|png|csv)"
)
_FOLDERS = ("tables", "figures")
_LARGEST_LIST = 4_000_000
"""Bytes; a name has less than 140."""


class ReportFolder:
    """For the files `names`, relative to `out`, which need not be there yet."""

    def __init__(self, out: Path, names: Collection[str]) -> None:
        refuse_url(out)
        assert all(_OURS.fullmatch(name) for name in names), names
        self.out = out
        self._names = sorted(names)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """All files are written within; then those of an earlier report that are no longer made
        go.  Interrupted, the folder holds whole files, old and new, and all are known as ours.

        Raises:
            Refused: a file of another origin has one of the names, or nothing can be written.
        """
        with _told(self.out):
            old = self._earlier()
            self._refuse_others(old)
            for name in (
                "",
                *sorted({name.partition("/")[0] for name in self._names if "/" in name}),
            ):
                (self.out / name).mkdir(parents=True, exist_ok=True)
            self._record(sorted({*old, *self._names}))
        yield
        with _told(self.out):
            for name in sorted(old - set(self._names)):
                (self.out / name).unlink(missing_ok=True)
            for name in _FOLDERS:
                if not any(kept.startswith(f"{name}/") for kept in self._names):
                    with suppress(OSError):  # not there, or something of others is in it
                        (self.out / name).rmdir()
            self._record(self._names)

    def write(self, name: str, content: str | bytes) -> None:
        """Whole or not at all."""
        assert name in self._names, name
        raw = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
        with _told(self.out):
            write_atomically(self.out / name, lambda handle: handle.write(raw))

    def _record(self, names: list[str]) -> None:
        write_json(self.out / LIST, {"format": _FORMAT, "files": names})

    def _earlier(self) -> set[str]:
        """What an earlier report left here; anything else in the list counts for nothing."""
        path = self.out / LIST
        if not path.is_file() or path.stat().st_size > _LARGEST_LIST:
            return set()
        try:
            told = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            return set()
        names = told.get("files") if isinstance(told, dict) else None
        if not isinstance(names, list) or told.get("format") != _FORMAT:
            return set()
        return {name for name in names if isinstance(name, str) and _OURS.fullmatch(name)}

    def _refuse_others(self, old: set[str]) -> None:
        for name in _FOLDERS:
            if (self.out / name).is_symlink():
                raise Refused(
                    f"{printable(self.out / name)} is a link: a report writes into folders of "
                    "its own. Remove the link, or name another folder."
                )
        taken = [name for name in self._names if name not in old and (self.out / name).exists()]
        if taken:
            more = f" and {len(taken) - 1} more" if len(taken) > 1 else ""
            raise Refused(
                f"{printable(self.out / taken[0])}{more} would be replaced, and no report is "
                "known to have written it. Name another folder, or remove the file."
            )


@contextmanager
def _told(out: Path) -> Iterator[None]:
    """What the system refuses, as a sentence."""
    try:
        yield
    except OSError as error:
        where = printable(error.filename or out)
        raise Refused(
            f"The report cannot be written to {printable(out)}: {error.strerror or error} "
            f"({where}). Name a folder that can be written, with room on its disk."
        ) from error
