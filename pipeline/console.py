"""What a person sees: progress bars, summaries, and mistakes in one sentence."""

from __future__ import annotations

import errno
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from cache.errors import CacheDamagedError, Refused
from cache.printable import printable
from cache.remote.url import redacted

if TYPE_CHECKING:
    from rich.progress import Progress

# A path that cannot be used as it was given: the user's to mend, like any other mistake.
_WRONG_PLACE = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR}
)

Tick = Callable[[int], None]


class Bars:
    """Progress bars, one below the other."""

    def __init__(self, bars: Progress | None) -> None:
        """None: there is nobody to look at them."""
        self._bars = bars

    def add(self, title: str, total: int, unit: str, before: int = 0) -> Tick:
        """A bar and its `tick(n)`; `before` is what an earlier run did, no part of the rate."""
        if self._bars is None:
            return lambda _: None
        bars = self._bars
        task = bars.add_task(
            printable(title), total=total, unit=unit, before=before, completed=before
        )
        return lambda count: bars.advance(task, count)


@contextmanager
def bars() -> Iterator[Bars]:
    """Bars on a terminal, nothing elsewhere."""
    if not _is_terminal():
        yield Bars(None)
        return
    from pipeline.bars import counting

    with counting() as shown:
        yield Bars(shown)


@contextmanager
def progress(title: str, total: int, unit: str) -> Iterator[Tick]:
    """A single bar."""
    with bars() as shown:
        yield shown.add(title, total, unit)


@contextmanager
def byte_progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar in bytes: `tell(there, of)`, where it may turn out that there are more or fewer."""
    if not _is_terminal():
        yield lambda *_: None
        return
    from pipeline.bars import bytewise

    with bytewise() as shown:
        task = shown.add_task(printable(title), total=None)
        yield lambda there, of: shown.update(task, completed=there, total=of)


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def say(text: str) -> None:
    """Lines for people, on stderr: stdout is for results.

    Strangers' text may be in them (names, settings, what a library says of a broken file).
    """
    if sys.stderr is not None:  # above a bar, if there is one: rich stands in for stderr then
        print(*map(printable, text.split("\n")), sep="\n", file=sys.stderr, flush=True)


def writable(text: str) -> str:
    """With a ? for each letter that stdout cannot hold."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


Json = Annotated[bool, typer.Option("--json", help="For machines: JSON on stdout")]


def print_json(value: Any) -> None:
    """The result, for machines: on stdout, in ASCII, so that no terminal is commanded."""
    typer.echo(json.dumps(value, indent=1, allow_nan=False))


def summary(title: str, rows: dict[str, object]) -> None:
    """A title and aligned `name  value` lines."""
    width = max(len(name) for name in rows)
    say(title)
    for name, value in rows.items():
        say(f"  {name.ljust(width)}  {value}")


def bytes_text(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count} bytes"


class Guarded(TyperGroup):
    """All commands: a mistake of the user is one sentence and exit code 2, never a traceback."""

    def make_context(self, *given: Any, **more: Any) -> Any:
        try:
            return super().make_context(*given, **more)
        except KeyboardInterrupt:  # Typer imports what it reads the words with
            say("Interrupted.")
            raise typer.Exit(130) from None

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.Exit:  # a RuntimeError to Python
            raise
        except Refused as error:
            say(f"Error: {error}")
            if isinstance(error, CacheDamagedError) and error.cache is not None:
                cache = shlex.quote(str(error.cache))
                say(
                    f"lgr-pipe cache verify {cache} tells all that is damaged, lgr-pipe cache "
                    f"repair {cache} makes only that again. Or fetch the cache again from where it "
                    "came, or make it again: the same crop or extract command with --overwrite."
                )
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            say("Interrupted. What was finished is kept; the same command goes on from there.")
            raise typer.Exit(130) from None
        except OSError as error:
            if error.errno is None:
                raise
            if error.errno == errno.EPIPE:  # the reader of a pipe had enough, as head does
                sys.stdout = None  # nothing more to flush
                raise typer.Exit(0) from None
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            place = f"{error.filename}: " if error.filename else ""
            hint = " What was finished is kept; make room and run it again." if full else ""
            say(f"Error: {place}{error.strerror}.{hint}")
            raise typer.Exit(2 if error.errno in _WRONG_PLACE else 1) from None
        except (MemoryError, RuntimeError) as error:
            from concurrent.futures.process import BrokenProcessPool

            if isinstance(error, BrokenProcessPool):
                say(
                    "Error: a worker process was killed, perhaps for lack of memory. What was "
                    "finished is kept; run the same command again, with fewer --workers."
                )
                raise typer.Exit(1) from None
            if not isinstance(error, MemoryError) and "allocate" not in str(error):
                raise
            say(f"Error: there is not enough memory for these settings. {error}")
            raise typer.Exit(1) from None


def command_line() -> str:
    """The command as it was typed, without the folder of the program and what URLs hide."""
    return shlex.join(["lgr-pipe", *(redacted(word) for word in sys.argv[1:])])
