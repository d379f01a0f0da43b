"""URLs on the command line: train, info, verify, convert; what they hide, who refuses them."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cache.errors import Refused
from cache.reader import Cache
from cache.remote.fetch import fetch, locate
from cache.remote.url import Url, redacted
from tests.command import Run, without_costs
from tests.making import make_cache
from tests.servers import Web, files_of, web_server

pytest.importorskip("aiohttp", reason="needs lgr-pipe[remote]")

SECRET = "dontshow"
FAST = ("--tasks", "2", "--iters", "3", "--seeds", "0", "--device", "cpu")


@pytest.fixture
def web() -> Iterator[Web]:
    with web_server(Web({})) as web:
        yield web


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


def _ok(done: subprocess.CompletedProcess[str], code: int = 0) -> str:
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def _refused(done: subprocess.CompletedProcess[str]) -> str:
    said = _ok(done, 2)
    assert "Error: " in said
    assert "Traceback" not in said
    return said


def _signed(web: Web, name: str) -> str:
    """With a password and a signature."""
    return f"{web.url.replace('//', f'//me:{SECRET}@')}/{name}?sig={SECRET}1"


def test_train_equals_a_local_one(here: Run, latents: Path, web: Web, tmp_path: Path) -> None:
    web.files = files_of(latents, "lab/m")
    metrics = []
    for name, place in (("local", latents), ("remote", _signed(web, "lab/m"))):
        run = here("train", "--strategy", "lr", "--cache", place, "--out", tmp_path / name, *FAST)
        said = _ok(run)
        metrics.append(without_costs(json.loads((tmp_path / name / "metrics.json").read_text())))
    assert metrics[0] == metrics[1]
    assert f"Read {web.url}/lab/m into memory: " in said
    record = json.loads((tmp_path / "remote" / "run.json").read_text())
    assert record["cache"] == f"{web.url}/lab/m"
    assert record["cache_bytes"] == sum(map(len, web.files.values()))
    for path in (tmp_path / "remote").rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes(), path
    assert SECRET not in said
    assert all(path.endswith(f"?sig={SECRET}1") for path, _ in web.asked)
    assert len(web.logins) == 1
    assert web.logins.pop().startswith("Basic ")


def test_train_reads_crops_too(
    here: Run, latents: Path, crops: Path, web: Web, tmp_path: Path
) -> None:
    web.files = files_of(crops, "crops")
    train = ("train", "--strategy", "nr", "--cache", latents, "--buffer-size", "8", *FAST)
    urls = ("--crops", f"{web.url}/crops")
    _ok(here(*train, *urls, "--out", tmp_path / "remote"))
    _ok(here(*train, "--crops", crops, "--out", tmp_path / "local"))
    both = [json.loads((tmp_path / n / "metrics.json").read_text()) for n in ("remote", "local")]
    assert without_costs(both[0]) == without_costs(both[1])


def test_the_command_that_is_recorded_hides_secrets(
    lgr_pipe: Run, web: Web, tmp_path: Path
) -> None:
    make_cache(tmp_path / "c", "zarr", np.random.default_rng(0).random((40, 3), dtype=np.float32))
    web.files = files_of(tmp_path / "c")
    words = ("train", "--strategy", "none", f"--cache={_signed(web, 'c')}", "--out", "r", *FAST)
    said = _ok(lgr_pipe(*words, cwd=tmp_path))
    record = (tmp_path / "r" / "run.json").read_text()
    assert f"--cache={web.url}/c --out r" in record
    assert SECRET not in record + said


def test_mistakes_hide_secrets(here: Run, web: Web, tmp_path: Path) -> None:
    train = ("train", "--strategy", "lr", "--out", tmp_path / "r", *FAST, "--cache")
    for status, says in ((404, "There is no cache at"), (403, "denied"), (418, "cannot be read")):
        web.status = lambda _, status=status: status  # type: ignore[misc]
        said = _refused(here(*train, _signed(web, "c")))
        assert says in said
        assert f"{web.url}/c" in said
        assert SECRET not in said
    for wrong in (f"ftp://me:{SECRET}@h/c", f"s3://me:{SECRET}@b/c", f"https://h:x/?{SECRET}"):
        assert SECRET not in _refused(here(*train, wrong))
    assert not (tmp_path / "r").exists()


def test_a_flipped_byte_is_named_by_verify(here: Run, web: Web, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).random((40, 3), dtype=np.float32)
    make_cache(tmp_path / "c", "hdf5", rows, shard_rows=8)
    web.files = files_of(tmp_path / "c")
    assert "whole, 40 latents, nothing wrong" in _ok(here("cache", "verify", f"{web.url}/c"))
    data = web.files["c/data.h5"]
    at = data.index(rows[17].tobytes())
    web.files["c/data.h5"] = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    done = here("cache", "verify", _signed(web, "c"), "--json")
    _ok(done, 1)
    (report,) = json.loads(done.stdout)
    assert report["path"] == f"{web.url}/c"
    assert any(fault["shards"] == [2] for fault in report["faults"])
    del web.files["c/samples.jsonl"]
    assert "samples.jsonl" in _ok(here("cache", "verify", f"{web.url}/c"), 1)
    web.files = {}
    assert "There is no cache" in _refused(here("cache", "verify", f"{web.url}/c"))


def test_info_and_a_copy(here: Run, latents: Path, web: Web, tmp_path: Path) -> None:
    web.files = files_of(latents)
    url = f"{web.url}/c"
    there, local = (json.loads(here("cache", "info", p, "--json").stdout) for p in (url, latents))
    assert there["path"] == url
    for field in ("rows", "content", "fingerprint", "bytes", "rows_by_split", "provenance"):
        assert there[field] == local[field]
    for store in ("zarr", "hdf5"):
        said = _ok(here("cache", "convert", url, tmp_path / store, "--store", store))
        assert f"of {url}, content" in said
        assert "nothing wrong" in _ok(here("cache", "verify", tmp_path / store))
        with Cache(tmp_path / store) as copy, Cache(latents) as cache:
            assert copy.manifest.content == cache.manifest.content
    assert "nothing to do" in _ok(
        here("cache", "convert", url, tmp_path / "zarr", "--store", "zarr")
    )


def test_who_takes_no_urls(here: Run, latents: Path, tmp_path: Path) -> None:
    url = "s3://lab/caches/m"
    sweep = ("sweep", "--out", tmp_path / "s", "--strategy", "lr", "--grid", "iters=1,2")
    assert "cache convert" in _refused(here(*sweep, "--cache", url))
    assert "cache convert" in _refused(here(*sweep, "--cache", latents, "--crops", url))
    assert "verify and convert read URLs" in _refused(here("cache", "diff", url, latents))
    assert "verify and convert read URLs" in _refused(here("cache", "samples", url))


# URLs


@pytest.mark.parametrize(
    ("text", "shown", "file"),
    [
        ("s3://lab/a/b/", "s3://lab/a/b", "lab/a/b/f"),
        ("S3://lab/a", "s3://lab/a", "lab/a/f"),
        ("gs://lab/a", "gs://lab/a", "lab/a/f"),
        ("https://h/a?x=1", "https://h/a", "https://h/a/f?x=1"),
        ("https://u:p@h:8443/", "https://h:8443", "https://u:p@h:8443/f"),
        ("http://[::1]:80/a", "http://[::1]:80/a", "http://[::1]:80/a/f"),
        ("https://h/a::zip://b", "https://h/a::zip://b", "https://h/a::zip://b/f"),
        ("https://h/\x1b[2Ja", "https://h/\\x1b[2Ja", "https://h/\x1b[2Ja/f"),
    ],
)
def test_urls(text: str, shown: str, file: str) -> None:
    url = locate(text)
    assert isinstance(url, Url)
    assert (str(url), url.file("f")) == (shown, file)
    assert "p@" not in repr(url)
    assert "x=1" not in repr(url)


@pytest.mark.parametrize(
    "text",
    [
        "file:///etc/passwd", "ftp://h/c", "memory://c", "simplecache::s3://b/c", "abfs://c/x",
        "zip://x::https://h/c", "reference::https://h/c", "sftp://h/c", "://x", "local://c",
        "s3://", "s3://bucket", "s3://me:you@b/c", "s3://b:80/c", "gs://b/c?x=1", "https:///c",
        "https://h/c#part", "https://h:port/c", "http://[::1/c",
    ],
)  # fmt: skip
def test_what_is_no_url_of_a_cache(text: str) -> None:
    with pytest.raises(Refused, match="cache"):
        locate(text)


@pytest.mark.parametrize("text", ["data/latents", "/a/b", "s3", "a::b", "C:/x", "s3:/b/c", ""])
def test_folders(text: str) -> None:
    assert locate(text) == Path(text)


def test_redacted() -> None:
    text = "train --cache s3://b/c --crops=https://u:p@h/x?sig=1 --params a.yaml odd://u:p@h"
    assert redacted(text) == "train --cache s3://b/c --crops=https://h/x --params a.yaml odd://..."


def test_plain_http_is_told(here: Run) -> None:
    assert locate("http://h.invalid/c").exposed  # type: ignore[union-attr]
    for safe in ("https://h/c", "s3://b/c", "http://127.0.0.1:1/c", "http://[::1]/c"):
        assert not locate(safe).exposed  # type: ignore[union-attr]
    said = _refused(here("cache", "info", "http://no-host.invalid/c"))
    assert "comes without encryption" in said


# what must be installed


@pytest.mark.parametrize(
    ("scheme", "module"), [("gs", "gcsfs"), ("s3", "s3fs"), ("https", "aiohttp"), ("s3", "fsspec")]
)
def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, scheme: str, module: str) -> None:
    known = importlib.import_module("fsspec.registry")._registry
    monkeypatch.delitem(known, scheme, raising=False)
    monkeypatch.delitem(sys.modules, "fsspec.implementations.http", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(Refused, match=r"pip install 'lgr-pipe\[remote\]'"):
        fetch(Url.parse(f"{scheme}://host/c"), 1 << 20, lambda _, __: None)


def test_a_local_cache_needs_no_library_for_remote_ones(tmp_path: Path) -> None:
    make_cache(tmp_path / "c", "hdf5", np.ones((4, 3), dtype=np.float32))
    code = (
        "import sys; from cache.reader import Cache; from cache.remote.fetch import fetch, locate\n"
        "with Cache(locate(sys.argv[1])) as cache: cache.bulk()\n"
        "assert not {'fsspec', 'aiohttp', 's3fs', 'botocore'} & sys.modules.keys()"
    )  # zarr itself imports fsspec where it is installed
    subprocess.run([sys.executable, "-c", code, tmp_path / "c"], check=True, timeout=60)
