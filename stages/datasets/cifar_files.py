"""The files of CIFAR are Python pickles.  Here they are read without running anything.

A pickle is a little program that may call any function.  This reader lets a
file name only the few functions with which numpy writes an array, gives it
stand-ins that do nothing but remember what they were called with, and builds
the arrays itself.  Before that, each instruction is looked at: only plain data
may be made, no more memory be asked for than the file is long, and a key of a
dictionary be nothing but text.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from cache.errors import Refused
from stages.datasets.sample import short

PIXELS = 3 * 32 * 32
_MOST_BYTES = 400_000_000
_MOST_STEPS = 3_000_000
"""The largest published file has 153,702,752 bytes and under a million instructions."""

_GLOBALS = frozenset(
    {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
    | {
        (f"numpy.{core}.{module}", name)
        for core in ("core", "_core")
        for module, name in (("multiarray", "_reconstruct"), ("numeric", "_frombuffer"))
    }
)

_MAKERS = """
EMPTY_DICT DICT EMPTY_LIST LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3
GLOBAL STACK_GLOBAL REDUCE BUILD
"""
_OTHERS = """
PROTO FRAME STOP MARK PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET
SETITEM SETITEMS APPEND APPENDS NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG1
STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8
"""
_STEPS = frozenset((_MAKERS + _OTHERS).split())
_TEXTS = frozenset({pickletools.pybytes_or_str, pickletools.pybytes, pickletools.pyunicode})
_KEYS = {"SETITEM": slice(1, 2), "SETITEMS": slice(2, None, 2), "DICT": slice(1, None, 2)}
"""Where they lie in what these instructions take from the stack."""
_MOST_MADE = 200
"""Containers and calls; a published file makes about twenty.  Deep ones would overrun the stack."""


class _Call:
    """What a stand-in was called with, and the state that came after."""

    __slots__ = ("args", "name", "state")

    def __init__(self, name: str, args: tuple[Any, ...]) -> None:
        self.name, self.args, self.state = name, args, None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _StandIn:
    """In place of a function or class of numpy: remembers, does nothing."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *args: Any) -> _Call:
        return _Call(self.name, args)

    def __setstate__(self, state: Any) -> NoReturn:
        raise pickle.UnpicklingError("it changes a function")


class _Shadow:
    """The stack of a reader of pickles, with the kind of each thing in place of the thing.

    To see keys before anything hashes them: tuples of one tuple, again and again,
    take time without end, and numbers can be chosen to collide.
    """

    def __init__(self) -> None:
        self._stack: list[object] = []
        self._marks: list[int] = []
        self._memo: dict[int, object] = {}

    def step(self, step: pickletools.OpcodeInfo, argument: Any) -> None:
        """Raises ValueError: a key that is no text.  IndexError, KeyError: a damaged file."""
        if step.name == "MEMOIZE":
            self._memo[len(self._memo)] = self._stack[-1]
        elif step.name.endswith("PUT"):
            self._memo[int(argument)] = self._stack[-1]
        elif step.name.endswith("GET"):
            self._stack.append(self._memo[int(argument)])
        else:
            taken = self._take(step.stack_before)
            if step.name in _KEYS and not _TEXTS.issuperset(taken[_KEYS[step.name]]):
                raise ValueError("it has a key that is no text")
            if step.name == "MARK":
                self._marks.append(len(self._stack))
            self._stack += step.stack_after

    def _take(self, wanted: list[pickletools.StackObject]) -> list[object]:
        """From the stack: so many things, or a few, a mark and all that lies upon it."""
        if not wanted:
            return []
        if pickletools.markobject in wanted:
            start = self._marks.pop() - wanted.index(pickletools.markobject)
        else:
            start = len(self._stack) - len(wanted)
        if start < (self._marks[-1] + 1 if self._marks else 0):
            raise ValueError("it takes more than there is")
        taken = self._stack[start:]
        del self._stack[start:]
        return taken


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _GLOBALS:
            raise pickle.UnpicklingError(f"it asks for {module[:40]!a} {name[:40]!a}")
        return _StandIn(name)


def read_pickle(path: Path) -> dict[str, Any]:
    """The dictionary in a CIFAR file: plain data and `_Call`s, keys as text.

    Raises Refused: anything that such a file has no need of.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES} bytes")
        data = path.read_bytes()
        _look_at(data)
        content = _Reader(io.BytesIO(data), encoding="bytes").load()
        if not isinstance(content, dict):
            raise ValueError("it holds no dictionary")
        return {_text(key): value for key, value in content.items()}
    except Exception as error:  # a damaged pickle raises many kinds
        raise _refusal(path, error) from None


def _refusal(path: Path, error: Exception) -> Refused:
    why = short(ascii(str(error)[:200])[1:-1])
    return Refused(f"{path} is no CIFAR file as published: {why}. Fetch it again.")


def _look_at(data: bytes) -> None:
    """Raises ValueError: an instruction, or an amount, that no CIFAR file has."""
    makers = frozenset(_MAKERS.split())
    shadow, made = _Shadow(), 0
    for count, (step, argument, _) in enumerate(pickletools.genops(data)):
        if step.name not in _STEPS:
            raise ValueError(f"it has the instruction {step.name}")
        made += step.name in makers
        place = int(argument or 0) if step.name.endswith("PUT") else 0
        if max(count, place) > _MOST_STEPS or made > _MOST_MADE:
            raise ValueError("it has more parts than any published one")
        shadow.step(step, argument)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8")
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError("it has a name that is no plain text")  # not shown: may be endless
    return value


def images(path: Path, content: dict[str, Any]) -> NDArray[np.uint8]:
    """uint8 (N, 32, 32, 3), a view of the bytes in the file.

    Raises Refused: no array of that kind.
    """
    try:
        shape, buffer = _array(content.get("data"))
        if len(shape) != 2 or shape[1] != PIXELS or len(buffer) != shape[0] * PIXELS:
            raise ValueError(f"its data are {shape}, expected (N, {PIXELS})")
    except Exception as error:  # any kind, as the file decides what is found where
        raise _refusal(path, error) from None
    planes = np.frombuffer(buffer, np.uint8).reshape(-1, 3, 32, 32)
    return planes.transpose(0, 2, 3, 1)


def _array(node: Any) -> tuple[tuple[int, ...], bytes]:
    """Shape and bytes, from the two ways in which numpy pickles an array."""
    if not isinstance(node, _Call):
        raise ValueError("it has no array of pixels")
    if node.name == "_reconstruct" and isinstance(node.state, tuple) and len(node.state) == 5:
        _, shape, dtype, by_column, buffer = node.state
    elif node.name == "_frombuffer" and len(node.args) == 4 and node.state is None:
        buffer, dtype, shape, order = node.args
        by_column = order not in ("C", b"C")
    else:
        raise ValueError("its pixels are no plain array")
    called = isinstance(dtype, _Call) and dtype.name == "dtype"
    kind = dtype.args[0] if called and dtype.args else None
    if kind not in ("u1", b"u1", "|u1", b"|u1") or by_column:
        raise ValueError("its pixels are no bytes, row by row")
    if not isinstance(shape, tuple) or not all(type(n) is int and n > 0 for n in shape):
        raise ValueError("its array has no shape")
    return shape, _bytes(buffer)


def _bytes(node: Any) -> bytes:
    """Python 3 writes bytes in old protocols as text that is to be encoded."""
    if isinstance(node, _Call) and node.name == "encode" and len(node.args) == 2:
        text, encoding = node.args
        if isinstance(text, str) and encoding in ("latin1", "latin-1", b"latin1"):
            return text.encode("latin-1")
    if isinstance(node, bytes | bytearray):
        return bytes(node)
    raise ValueError("its array has no bytes")


def labels(path: Path, content: dict[str, Any], key: str, count: int, classes: int) -> list[int]:
    """Raises Refused: no list of `count` numbers of classes."""
    found = content.get(key)
    if not isinstance(found, list) or len(found) != count:
        raise Refused(f"{path} has no list {key} of {count} numbers. Fetch it again.")
    wrong = [code for code in found if type(code) is not int or not 0 <= code < classes]
    if wrong:
        raise Refused(
            f"{path} has {len(wrong)} labels that are no class, expected 0 to {classes - 1}."
        )
    return found


def names(path: Path, key: str, count: int) -> tuple[str, ...]:
    """The names of the classes in the file of names.

    Raises Refused: another number of them, or no text.
    """
    found = read_pickle(path).get(key)
    if not isinstance(found, list) or len(found) != count:
        raise Refused(f"{path} has no list {key} of {count} names. Fetch it again.")
    try:
        texts = tuple(_text(name) for name in found)
    except (ValueError, UnicodeError) as error:
        raise Refused(f"{path}: {error}, expected the name of a class.") from None
    if len(set(texts)) < count or "" in texts or len(max(texts, key=len)) > 200:
        raise Refused(f"{path} has a class without a name, two of one name, or an endless one.")
    return texts
