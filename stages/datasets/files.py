"""What lies in the folder of a data set: listed once, and nothing outside it.

A folder is listed with one call instead of one `stat` for each file.  The
folders that a layout names may be links (people keep images elsewhere); below
them a link may lead anywhere inside, never out.
"""

from __future__ import annotations

import csv
import errno
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath

from cache.errors import Refused
from stages.datasets.sample import About, refuse_mistakes, short, some

IMAGE_SUFFIXES = (
    ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
_NOT_OURS = frozenset({"thumbs.db", "desktop.ini"})
_LONGEST = 4096
"""Characters in a path; no system takes more."""
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})


def is_file(what: Path | os.DirEntry[str]) -> bool:
    """False, too, for a link to itself, for a name that is too long, and out of reach."""
    try:
        return what.is_file()
    except OSError:
        return False


def is_dir(what: Path | os.DirEntry[str]) -> bool:
    """As `is_file`."""
    try:
        return what.is_dir()
    except OSError:
        return False


def listed(folder: Path) -> list[os.DirEntry[str]]:
    """What lies directly in `folder`, by name, but no hidden files; nothing if it is not there.

    Raises Refused: it cannot be listed.
    """
    try:
        with os.scandir(folder) as found:
            ours = (e for e in found if e.name[0] != "." and e.name.lower() not in _NOT_OURS)
            return sorted(ours, key=lambda entry: entry.name)
    except OSError as error:
        if error.errno in _ABSENT:
            return []
        raise Refused(f"{folder} cannot be listed: {error.strerror}.") from None


class Tree:
    """The files below `root`, by paths relative to it, with `/`."""

    def __init__(self, root: Path, *named: str) -> None:
        """`named`: the folders that the layout names."""
        self.root = root
        real = {os.path.realpath(root / name) for name in ("", *named)}
        self._inside = tuple(f"{top.rstrip(os.sep)}{os.sep}" for top in real)
        self._mistakes: dict[str, None] = {}

    @property
    def mistakes(self) -> list[str]:
        """Links that lead out and names that are no text, which are not listed, and others."""
        return list(self._mistakes)

    def mistake(self, text: str) -> None:
        """Once, however often it is found: a folder may be listed more than once."""
        self._mistakes[text] = None

    def files(self, folder: str, suffixes: tuple[str, ...] = ("",)) -> list[str]:
        """Names of the files directly in `folder`, sorted; none if there is no such folder.

        `suffixes`: in small letters; other names are not looked at.
        """
        return self.both(folder, suffixes)[0]

    def folders(self, folder: str) -> list[str]:
        """Names of the folders directly in `folder`, sorted; none if there is no such folder."""
        return self.both(folder)[1]

    def both(self, folder: str, suffixes: tuple[str, ...] = ("",)) -> tuple[list[str], list[str]]:
        """`files` and `folders`, from one listing."""
        entries = self._list(folder, suffixes)
        folders = [entry.name for entry in entries if is_dir(entry)]
        return [entry.name for entry in entries if is_file(entry)], folders

    def present(self, names: Iterable[str]) -> set[str]:
        """All files in the folders of `names`, one listing for each folder."""
        folders = {name.rpartition("/")[0] for name in names}
        return {
            f"{folder}/{name}" if folder else name
            for folder in sorted(folders)
            for name in self.files(folder)
        }

    def stays(self, path: Path) -> bool:
        """A mistake if not: it is or goes through a link that leads out."""
        inside = f"{os.path.realpath(path)}{os.sep}".startswith(self._inside)
        if not inside:
            name = short(str(path.relative_to(self.root)))
            self.mistake(f"{name} is a link that leads out of {self.root}")
        return inside

    def _list(self, folder: str, suffixes: tuple[str, ...]) -> list[os.DirEntry[str]]:
        path = self.root / folder
        if not self.stays(path):
            return []
        entries = (e for e in listed(path) if e.name.lower().endswith(suffixes))
        return [entry for entry in entries if self._counts(path, entry)]

    def _counts(self, folder: Path, entry: os.DirEntry[str]) -> bool:
        if not entry.name.isprintable():
            name = short(ascii(entry.name))
            self.mistake(f"rename {name} in {short(str(folder))}: the name is not plain text")
            return False
        return not entry.is_symlink() or self.stays(folder / entry.name)


def own_file(root: Path, name: str) -> Path:
    """A file that a layout names.  Raises Refused: it is a link that leads out of `root`."""
    tree = Tree(root, *map(str, PurePosixPath(name).parents))
    tree.stays(root / name)
    refuse_mistakes(root, tree.mistakes)
    return root / name


def plain(name: str) -> str:
    """The name, if it is a path below some folder as a table should have it.

    Raises ValueError: absolute, with `..`, `\\` or an empty part, endless, or not printable.
    """
    odd = "\\" in name or not name.isprintable() or len(name) > _LONGEST
    if odd or {"", ".", ".."}.intersection(name.split("/")):
        raise ValueError(f"{short(ascii(name))} is no plain path below a folder")
    return name


def lines(table: Path) -> list[str]:
    """Raises Refused: not UTF-8, or not to be read."""
    try:
        return table.read_text(encoding="utf-8-sig").splitlines()
    except (UnicodeDecodeError, OSError) as error:
        raise Refused(f"{table} is no text in UTF-8: {error}.") from None


def read_csv(
    table: Path, needed: Sequence[str], without_header: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, str]]]:
    """Line and cells, by column, of each row of a CSV file.

    `without_header`: the columns of a table that does not begin with their names.

    Raises Refused: no such columns, no CSV, not UTF-8, or not to be read.
    """
    rows = _rows(table)
    number, first = next(rows, (1, []))
    bare = bool(without_header) and needed[0] not in first
    names = without_header if bare else first
    absent = [name for name in needed if name not in names]
    if absent:
        raise Refused(
            f"{table} has no column {', '.join(absent)}. "
            f"Its first line must name {', '.join(needed)}; it may name others, too."
        )
    twice = [name for name, count in Counter(names).items() if count > 1 and name.strip()]
    if twice:
        raise Refused(f"{table} has two columns of one name: {some(twice)}.")
    for line, cells in chain([(number, first)] if bare and first else [], rows):
        yield line, dict(zip(names, cells, strict=False))


def _rows(table: Path) -> Iterator[tuple[int, list[str]]]:
    line = 0
    try:
        with table.open(newline="", encoding="utf-8-sig") as handle:
            # without `strict` a quotation mark that is never closed takes all rows after it
            reader = csv.reader(handle, strict=True)
            while True:
                line = reader.line_num + 1
                cells = next(reader, None)
                if cells is None:
                    return
                if reader.line_num > line:
                    raise csv.Error("it has a cell with a line break")
                if len(cells) > 1 or "".join(cells).strip():
                    yield line, cells
    except csv.Error as error:
        raise Refused(
            f"{table} line {line} is no CSV as expected: {error}. "
            "Is a quotation mark missing there, or one too many?"
        ) from None
    except (UnicodeDecodeError, OSError) as error:
        raise Refused(f"{table} is no CSV file in UTF-8: {error}. Save it as UTF-8.") from None


def require(root: Path, entries: tuple[str, ...], about: About) -> None:
    """Raises Refused: one of the entries is not in `root`; says where they are, if just below."""
    missing = [name for name in entries if not _exists(root / name)]
    if missing:
        hint = elsewhere(root, entries)
        raise Refused(f"There is no {missing[0]} in {root}.{hint}\n{expected(about)}")


def elsewhere(root: Path, entries: tuple[str, ...]) -> str:
    """`" Did you mean ..."` if one sub-folder of `root` holds them all, "" otherwise."""
    tree = Tree(root)
    holders = [
        root / name
        for name in tree.folders("")
        if all(_exists(root / name / entry) for entry in entries)
    ]
    return f" Did you mean --root {holders[0]}? It is there." if len(holders) == 1 else ""


def _exists(path: Path) -> bool:
    return is_file(path) or is_dir(path)


def expected(about: About) -> str:
    layout = "\n".join(f"  {line}" for line in about.layout.splitlines())
    return f"Expected below --root:\n{layout}"


def notes(found: Mapping[str, list[str]]) -> list[str]:
    """One sentence for each finding that has names, with their number and the first few.

    >>> notes({"images not there": ["a", "b"], "images not listed": []})
    ['images not there: 2 (a, b)']
    """
    return [f"{text}: {len(names)} ({some(names)})" for text, names in found.items() if names]
