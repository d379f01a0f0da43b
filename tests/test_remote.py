"""Caches from object storage and web servers: what comes is what was written, or is refused."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from cache.errors import CacheDamagedError, CacheMissingError, Refused
from cache.files import tree_bytes
from cache.listing import expected_files
from cache.reader import Cache
from cache.remote import streams, transfer
from cache.remote.fetch import fetch, locate
from cache.remote.url import Url
from cache.schema import MANIFEST, PROVENANCE, SAMPLES, read_manifest
from cache.source import Held
from cache.store import STORES
from tests.making import make_cache
from tests.servers import Web, cut_wire, files_of, web_server

pytest.importorskip("aiohttp", reason="needs lgr-pipe[remote]")

ROOM = 1 << 30
ROWS = np.random.default_rng(0).random((2000, 600)).astype(np.float32)  # 4.8 MB, 2 shards
BUCKET = "lab"


def _silent(_: int, __: int) -> None:
    """Nobody watches."""


def _fetch(url: str, room: int = ROOM, **how: Any) -> Held:
    return fetch(locate(url), room, _silent, **how).place  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("remote")
    for store in STORES:
        make_cache(folder / store, store, ROWS, shard_rows=1024)
    return {store: folder / store for store in STORES}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting, and nothing of this machine's configuration."""
    monkeypatch.setattr(transfer, "_WAIT", 0.001)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(scope="module")
def s3_port(caches: dict[str, Path]) -> Iterator[int]:
    """A real S3 server, with both caches in its bucket."""
    moto = pytest.importorskip("moto.server", reason="needs moto[s3] and flask")
    pytest.importorskip("s3fs", reason="needs lgr-pipe[remote]")
    boto3 = pytest.importorskip("boto3")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    words = {"aws_access_key_id": "k", "aws_secret_access_key": "s", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", **words)
    client.create_bucket(Bucket=BUCKET)
    for name, folder in caches.items():
        for key, data in files_of(folder, f"caches/{name}").items():
            client.put_object(Bucket=BUCKET, Key=key, Body=data)
    yield port
    server.stop()


@pytest.fixture
def s3(s3_port: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Points the environment to a port; at first that of the server."""

    def point(port: int) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    point(s3_port)
    return point


def _same(held: Held, folder: Path) -> None:
    """Byte for byte, and as a reader sees it."""
    assert {f"c/{name}": data for name, data in held.files().items()} == files_of(folder)
    with Cache(held) as cache, Cache(folder) as local:
        np.testing.assert_array_equal(cache.bulk(), ROWS)
        assert cache.manifest == local.manifest
        assert cache.samples() == local.samples()
        np.testing.assert_array_equal(cache.side("split"), local.side("split"))


# what comes is what was written


@pytest.mark.usefixtures("s3")
def test_from_s3(caches: dict[str, Path], store: str) -> None:
    told: list[tuple[int, int]] = []
    found = fetch(
        Url.parse(f"s3://{BUCKET}/caches/{store}/"), ROOM, lambda *said: told.append(said)
    )
    _same(found.place, caches[store])
    size = tree_bytes(caches[store])
    assert (found.bytes, found.cuts, told[-1]) == (size, 0, (size, size))
    assert [there for there, _ in told] == sorted(there for there, _ in told)
    assert all(there <= of for there, of in told)
    assert str(found.place) == f"s3://{BUCKET}/caches/{store}"


@pytest.mark.parametrize("ranges", [True, False])
def test_from_a_web_server(caches: dict[str, Path], store: str, ranges: bool) -> None:
    with web_server(Web(files_of(caches[store]), ranges)) as web:
        _same(_fetch(f"{web.url}/c"), caches[store])
        wanted = expected_files(read_manifest(caches[store]))
        assert sorted(web.paths()) == sorted(f"c/{name}" for name in wanted)  # once, no listing


def test_cut_wire_to_s3(
    caches: dict[str, Path], store: str, s3_port: int, s3: Callable[[int], None]
) -> None:
    cuts = [100, 3_000, 40_000, 1_800_000, 700, *[30_000] * 9]
    with cut_wire(s3_port, cuts) as wire:
        s3(wire.port)
        found = fetch(Url.parse(f"s3://{BUCKET}/caches/{store}"), ROOM, _silent)
        _same(found.place, caches[store])
        assert found.cuts  # not of each: on a connection that is used again, aiohttp tries again
        assert wire.made > len(cuts)


@pytest.mark.parametrize("ranges", [True, False])
def test_cut_web_connections(caches: dict[str, Path], store: str, ranges: bool) -> None:
    """Every file is cut at first; with Range, it goes on from about there."""
    files = files_of(caches[store])
    seen: set[str] = set()

    def cut(path: str) -> int | None:
        first = path not in seen
        seen.add(path)
        return len(files[path]) // 2 if first else None

    with web_server(Web(files, ranges, cut)) as web:
        found = fetch(Url.parse(f"{web.url}/c"), ROOM, _silent)
        _same(found.place, caches[store])
    assert found.cuts == len(files)
    again = [path for path, asked in web.asked if asked and not asked.startswith("bytes=0-")]
    large = {path for path, data in files.items() if len(data) > 2_000_000}
    assert large
    assert large <= set(again)
    whole, halves = (sum(len(data) // n for data in files.values()) for n in (1, 2))
    # What was on its way when a connection was cut is sent again: at worst all of it.
    assert whole <= web.sent <= whole + halves if ranges else web.sent == whole + halves


def test_every_answer_is_cut(caches: dict[str, Path], store: str) -> None:
    """As long as a connection brings a little more, nothing is lost."""
    with web_server(Web(files_of(caches[store]), cut=lambda _: 30_000)) as web:
        found = fetch(Url.parse(f"{web.url}/c"), ROOM, _silent)
        _same(found.place, caches[store])
    assert 1 < found.cuts < 30


def test_a_byte_that_changes_on_the_way(caches: dict[str, Path]) -> None:
    """What does not have its digest is fetched once more."""
    files = files_of(caches["hdf5"])
    web = Web(dict(files))
    whole, name = files["c/data.h5"], "c/data.h5"

    def mend(_: str) -> None:
        web.files[name] = whole if name in web.paths()[:-1] else _flipped(whole)

    web.status = mend
    with web_server(web):
        _same(_fetch(f"{web.url}/c"), caches["hdf5"])
    assert web.paths().count(name) == 2


# what is refused


def _flipped(data: bytes, at: int | None = None) -> bytes:
    at = len(data) // 2 if at is None else at
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_a_flipped_byte_in_any_file(caches: dict[str, Path], store: str) -> None:
    files = files_of(caches[store])
    for name, data in files.items():
        with web_server(Web({**files, name: _flipped(data)})) as web:
            with pytest.raises(CacheDamagedError, match=r"c/[\w./]*") as caught:
                _fetch(f"{web.url}/c")
            assert f"{web.url}/{name}" in str(caught.value)


def test_a_missing_file(caches: dict[str, Path], store: str) -> None:
    files = files_of(caches[store])
    for name in files:
        rest = {n: data for n, data in files.items() if n != name}
        kind = CacheMissingError if name.endswith(MANIFEST) else CacheDamagedError
        with web_server(Web(rest)) as web, pytest.raises(kind) as caught:
            _fetch(f"{web.url}/c")
        assert name.removeprefix("c/") in str(caught.value)


def test_a_server_that_dies(caches: dict[str, Path]) -> None:
    """Given up after a few tries, and told how far it came."""
    web = Web(files_of(caches["hdf5"]))
    web.cut = lambda path: None if path != "c/data.h5" else 1_500_000 * (not web.asked[-1][1])
    with web_server(web), pytest.raises(Refused) as caught:
        _fetch(f"{web.url}/c")
    came = re.search(r"data\.h5: the connection failed 5 times, (\d+) bytes", str(caught.value))
    assert came
    assert 0 < int(came[1]) <= 1_500_000
    assert web.paths().count("c/data.h5") == transfer.TRIES
    assert web.asked[-1][1].startswith(f"bytes={came[1]}-")


def test_a_server_without_range_that_always_cuts_is_given_up(caches: dict[str, Path]) -> None:
    web = Web(files_of(caches["hdf5"]), False, lambda p: 1_500_000 if p == "c/data.h5" else None)
    with (
        web_server(web),
        pytest.raises(Refused, match=r"failed [0-9]+ times, 1[0-9]{6} bytes"),
    ):
        _fetch(f"{web.url}/c")
    assert web.paths().count("c/data.h5") < 50


@pytest.mark.parametrize(
    ("status", "says", "asked"),
    [(500, "failed 5 times.*500", 5), (429, "failed 5 times.*429", 5), (403, "denied.*403", 1),
     (401, "denied.*401.*netrc", 1), (404, "no cache at", 1), (410, "cannot be read.*410", 1),
     (204, "cannot be read.*204", 1)],
)  # fmt: skip
def test_answers(caches: dict[str, Path], status: int, says: str, asked: int) -> None:
    web = Web(files_of(caches["zarr"]), status=lambda _: status)
    with web_server(web), pytest.raises(Refused, match=says):
        _fetch(f"{web.url}/c")
    assert len(web.asked) == asked


def test_a_server_that_falls_silent(
    caches: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_SILENT", 0.2)
    done = threading.Event()
    web = Web(files_of(caches["hdf5"]), cut=lambda _: done.wait(10) or 0)
    with web_server(web), pytest.raises(Refused, match=r"failed 5 times.*Timeout"):
        _fetch(f"{web.url}/c")
    done.set()


def test_a_busy_server_is_asked_again(caches: dict[str, Path]) -> None:
    web = Web(files_of(caches["zarr"]))
    web.status = lambda _: 503 if len(web.asked) % 3 else None
    with web_server(web):
        _same(_fetch(f"{web.url}/c"), caches["zarr"])


@pytest.mark.parametrize("name", [MANIFEST, SAMPLES, PROVENANCE, "data.h5"])
def test_a_server_that_sends_without_end(caches: dict[str, Path], name: str) -> None:
    """It is cut off long before memory is full."""
    files = {n: data for n, data in files_of(caches["hdf5"]).items() if n != f"c/{name}"}
    with (
        web_server(Web(files, endless=f"c/{name}")) as web,
        pytest.raises(Refused, match=f"{name} can have at most .* sends more"),
    ):
        _fetch(f"{web.url}/c", room=100_000_000)
    assert web.sent < 120_000_000


def test_a_stated_length_is_believed_before_it_is_read(caches: dict[str, Path]) -> None:
    files = files_of(caches["hdf5"])
    with (
        web_server(Web({**files, "c/data.h5": bytes(40_000_000)})) as web,
        pytest.raises(Refused, match="but the server has 40000000"),
    ):
        _fetch(f"{web.url}/c")
    assert web.sent < 30_000_000  # what the sockets hold, not all


def test_too_large_for_memory(caches: dict[str, Path], store: str) -> None:
    """Refused before any array is asked for."""
    with (
        web_server(Web(files_of(caches[store]))) as web,
        pytest.raises(Refused, match="memory for 0 MB"),
    ):
        _fetch(f"{web.url}/c", room=400_000)
    assert not [path for path in web.paths() if "data" in path]


def test_no_cache(caches: dict[str, Path]) -> None:
    with (
        web_server(Web({"c/manifest.json": b"\n<html>Please log in"})) as web,
        pytest.raises(CacheMissingError, match="comes a web page"),
    ):
        _fetch(f"{web.url}/c")
    with (
        web_server(Web(files_of(caches["zarr"]), headers={"Content-Encoding": "gzip"})) as web,
        pytest.raises(Refused, match="cannot be read"),
    ):
        _fetch(f"{web.url}/c")
    with pytest.raises(Refused, match="failed 5 times"):
        _fetch(f"{web.url}/c")  # gone
    with pytest.raises(Refused, match="cannot be read"):
        _fetch("http://no-host.invalid/c")


def test_moved(caches: dict[str, Path], tmp_path: Path) -> None:
    """Another address of the web is gone to, a file of this machine is not."""
    files = files_of(caches["zarr"])
    with web_server(Web(files, moved={f"old/{n[2:]}": f"/{n}" for n in files})) as web:
        _same(_fetch(f"{web.url}/old"), caches["zarr"])
    (tmp_path / MANIFEST).write_bytes(files[f"c/{MANIFEST}"])
    with (
        web_server(Web({}, moved={f"c/{MANIFEST}": f"file://{tmp_path}/{MANIFEST}"})) as web,
        pytest.raises(Refused, match="cannot be read"),
    ):
        _fetch(f"{web.url}/c")


def test_s3_that_is_not_there(s3: Callable[[int], None], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CacheMissingError, match="no manifest"):
        _fetch(f"s3://{BUCKET}/none")
    with pytest.raises(CacheMissingError, match="bucket does not exist"):
        _fetch("s3://nobody/c")
    with web_server(Web({}, status=lambda _: 403)) as web:
        s3(int(web.url.rpartition(":")[2]))
        with pytest.raises(Refused, match=r"denied.*AWS_ACCESS_KEY_ID.*AWS_ENDPOINT_URL"):
            _fetch(f"s3://{BUCKET}/c")
    with pytest.raises(Refused, match="failed 5 times"):
        _fetch(f"s3://{BUCKET}/c")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", "/nonexistent")
    with pytest.raises(Refused, match="denied: Unable to locate credentials"):
        _fetch(f"s3://{BUCKET}/c")


def test_a_link_out_of_an_hdf5_file_in_memory(caches: dict[str, Path], tmp_path: Path) -> None:
    files = {name[2:]: data for name, data in files_of(caches["hdf5"]).items()}
    path = tmp_path / "data.h5"
    path.write_bytes(files["data.h5"])
    with h5py.File(path, "r+") as file:
        del file["label"]
        file["label"] = h5py.ExternalLink(str(caches["hdf5"] / "data.h5"), "label")
    held = Held("s3://b/c", {**files, "data.h5": path.read_bytes()})
    with pytest.raises(CacheDamagedError, match="label"), Cache(held) as cache:
        cache.side("label")
