"""A chunk of a Zarr array: a zstd frame (RFC 8878) and its crc32c.

What zstd hardly makes smaller is framed as it is, in blocks of 128 kB, which any zstd unpacks and
which is read straight to where it belongs:

    chunk = [head] [block] [head] [block] ... [crc32c]

Any other frame is unpacked only where its own header says that it is exactly as large as a chunk
is: memory is bounded by the shape.
"""

from __future__ import annotations

from functools import lru_cache

import google_crc32c
import numpy as np
from numcodecs import zstd
from numpy.typing import NDArray

from cache.errors import CacheDamagedError
from cache.stores.blob import Blob

SOUND = 0x48674BC7
"""crc32c of whatever ends with its own crc32c."""
_MAGIC = b"\x28\xb5\x2f\xfd"
_ONE_SEGMENT = b"\xe0"
"""In a frame's header: its size follows in eight bytes, there is no checksum."""
_BLOCK = 1 << 17
_CRC = 4  # bytes

Bytes = NDArray[np.uint8]


def read_chunks(file: Blob, offset: int, size: int, rooms: Bytes, sums: bool) -> None:
    """Chunks of `size` bytes with their checksums, one after the other, into `rooms` (chunks,
    bytes), which are as large as they unpacked.  Without `sums`, those of frames of raw blocks are
    not looked at.

    Raises:
        CacheDamagedError: a checksum is wrong, or a chunk is not as large.
    """
    if size == raw_size(rooms.shape[1]) and _read_raw(file, offset, rooms, sums):
        return
    for number, room in enumerate(rooms):
        unpack(file.read(offset + number * size, size), room)


def _read_raw(file: Blob, offset: int, rooms: Bytes, sums: bool) -> bool:
    """All with one call.  False: there are other frames than of raw blocks, or wrong checksums."""
    heads = raw_heads(rooms.shape[1])
    ends = np.cumsum([0, *map(len, heads)])
    beside = np.empty((len(rooms), ends[-1] + _CRC), dtype=np.uint8)
    chunks: list[list[Bytes]] = []
    for room, rest in zip(rooms, beside, strict=True):
        pieces = [rest[ends[-1] :]]
        for k in reversed(range(len(heads))):
            pieces += [room[k * _BLOCK : (k + 1) * _BLOCK], rest[ends[k] : ends[k + 1]]]
        chunks.append(pieces[::-1])
    if not file.fill(offset, [piece for pieces in chunks for piece in pieces]):
        return False
    if (beside[:, : ends[-1]] != np.frombuffer(b"".join(heads), np.uint8)).any():
        return False
    return not sums or all(_sum(pieces) == SOUND for pieces in chunks)


def _sum(pieces: list[Bytes]) -> int:
    crc = 0
    for piece in pieces:
        crc = google_crc32c.extend(crc, piece)
    return crc


def raw_size(size: int) -> int:
    """Of a chunk of raw blocks that hold `size` bytes."""
    return sum(map(len, raw_heads(size))) + size + _CRC


@lru_cache(8)  # side columns have other sizes than the bulk column
def raw_heads(size: int) -> tuple[bytes, ...]:
    """What stands before each block of a frame of `size` bytes, at least one, as they are.

    >>> [head.hex() for head in raw_heads(2)]
    ['28b52ffde00200000000000000110000']
    """
    first = _MAGIC + _ONE_SEGMENT + size.to_bytes(8, "little")
    starts = range(0, size, _BLOCK)
    heads = [(min(_BLOCK, size - k) << 3 | (k == starts[-1])).to_bytes(3, "little") for k in starts]
    return first + heads[0], *heads[1:]


def framed(data: bytes) -> bytes:
    """A frame of `data` as it is."""
    heads = raw_heads(len(data))
    return b"".join(h + data[k * _BLOCK : (k + 1) * _BLOCK] for k, h in enumerate(heads))


def unpack(packed: bytes, room: Bytes) -> None:
    """One chunk with its checksum into `room`, which is exactly as large.

    Raises:
        CacheDamagedError: the checksum is wrong, or it is not as large.
    """
    if google_crc32c.value(packed) != SOUND:
        raise CacheDamagedError("a checksum or size is wrong.")
    size = zstd_size(packed[:18])
    if size != room.nbytes:
        says = "an unknown number of" if size is None else str(size)
        raise CacheDamagedError(
            f"a chunk would have {says} bytes unpacked instead of {room.nbytes}; not unpacked."
        )
    try:  # more frames may follow the first: there is room for one
        zstd.decompress(memoryview(packed)[:-_CRC], room)
    except (RuntimeError, ValueError) as error:
        raise CacheDamagedError("a checksum or size is wrong.") from error


def zstd_size(frame: bytes) -> int | None:
    """Bytes of what a zstd frame holds, as its header says (RFC 8878); None where it does not.

    >>> zstd_size(bytes.fromhex("28b52ffd604000")), zstd_size(b"no frame")
    (320, None)
    """
    if len(frame) < 5 or frame[:4] != _MAGIC:
        return None
    flags = frame[4]
    single = flags >> 5 & 1
    width = (single, 2, 4, 8)[flags >> 6]
    start = 5 + (not single) + (0, 1, 2, 4)[flags & 3]
    field = frame[start : start + width]
    if not width or len(field) < width:
        return None
    return int.from_bytes(field, "little") + (256 if width == 2 else 0)
