"""What lies in the folder of a data set: listed once, and nothing outside it.

A folder is listed with one call instead of one `stat` for each file.  The
folders that a layout names may be links (people keep images elsewhere); below
them a link may lead anywhere inside, never out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from cache.errors import Refused
from stages.datasets.sample import About, some

_NOT_OURS = frozenset({"thumbs.db", "desktop.ini"})


class Tree:
    """The files below `root`, by paths relative to it, with `/`."""

    def __init__(self, root: Path, *named: str) -> None:
        """`named`: the folders that the layout names."""
        self.root = root
        self._inside = tuple({os.path.realpath(root / name) for name in ("", *named)})
        self.mistakes: list[str] = []
        """Links that lead out and names that are no text; they are not listed."""

    def files(self, folder: str) -> list[str]:
        """Names of the files directly in `folder`, sorted; none if there is no such folder."""
        return [entry.name for entry in self._list(folder) if entry.is_file()]

    def folders(self, folder: str) -> list[str]:
        """Names of the folders directly in `folder`, sorted; none if there is no such folder."""
        return [entry.name for entry in self._list(folder) if entry.is_dir()]

    def present(self, names: Iterable[str]) -> set[str]:
        """All files in the folders of `names`, one listing for each folder."""
        folders = {name.rpartition("/")[0] for name in names}
        return {
            f"{folder}/{name}" if folder else name
            for folder in sorted(folders)
            for name in self.files(folder)
        }

    def _list(self, folder: str) -> list[os.DirEntry[str]]:
        path = self.root / folder
        if not self._stays(path):
            return []
        try:
            with os.scandir(path) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise Refused(f"{path} cannot be listed: {error.strerror}.") from None
        return [entry for entry in entries if self._counts(path, entry)]

    def _counts(self, folder: Path, entry: os.DirEntry[str]) -> bool:
        if entry.name.startswith(".") or entry.name.lower() in _NOT_OURS:
            return False
        if not entry.name.isprintable():
            self._wrong(f"rename {entry.name!a} in {folder}: the name is not plain text")
            return False
        return not entry.is_symlink() or self._stays(folder / entry.name)

    def _stays(self, path: Path) -> bool:
        real = os.path.realpath(path)
        inside = any(real == top or real.startswith(top + os.sep) for top in self._inside)
        if not inside:
            self._wrong(f"{path.relative_to(self.root)} is a link that leads out of {self.root}")
        return inside

    def _wrong(self, text: str) -> None:
        if text not in self.mistakes:  # a folder may be listed more than once
            self.mistakes.append(text)


def plain(name: str) -> str:
    """The name, if it is a path below some folder as a table should have it.

    Raises ValueError: absolute, with `..`, `\\` or an empty part, or not printable.
    """
    if "\\" in name or not name.isprintable() or {"", ".", ".."}.intersection(name.split("/")):
        raise ValueError(f"{name!a} is no plain path below a folder")
    return name


def lines(table: Path) -> list[str]:
    """Raises Refused: not UTF-8, or not to be read."""
    try:
        return table.read_text(encoding="utf-8-sig").splitlines()
    except (UnicodeDecodeError, OSError) as error:
        raise Refused(f"{table} is no text in UTF-8: {error}.") from None


def require(root: Path, entries: tuple[str, ...], about: About) -> None:
    """Raises Refused: one of the entries is not in `root`; says where they are, if just below."""
    missing = [name for name in entries if not (root / name).exists()]
    if missing:
        hint = elsewhere(root, entries)
        raise Refused(f"There is no {missing[0]} in {root}.{hint}\n{expected(about)}")


def elsewhere(root: Path, entries: tuple[str, ...]) -> str:
    """`" Did you mean ..."` if one sub-folder of `root` holds them all, "" otherwise."""
    tree = Tree(root)
    holders = [
        root / name
        for name in tree.folders("")
        if all((root / name / entry).exists() for entry in entries)
    ]
    return f" Did you mean --root {holders[0]}? It is there." if len(holders) == 1 else ""


def expected(about: About) -> str:
    layout = "\n".join(f"  {line}" for line in about.layout.splitlines())
    return f"Expected below --root:\n{layout}"


def notes(found: Mapping[str, list[str]]) -> list[str]:
    """One sentence for each finding that has names, with their number and the first few.

    >>> notes({"images not there": ["a", "b"], "images not listed": []})
    ['images not there: 2 (a, b)']
    """
    return [f"{text}: {len(names)} ({some(names)})" for text, names in found.items() if names]
