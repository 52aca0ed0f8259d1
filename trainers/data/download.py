"""Downloading public data sets: https, pinned sha256, resumed after a cut, whole or not there at all."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from configs.errors import DataError, UnavailableError
from trainers.data.cache import make_private_dir, sha256_file, write_error

Fetch = Callable[[str, str], Path]
"""(data set, file name) -> the downloaded and verified file."""
Advance = Callable[[int, int], None]
"""(bytes there, bytes in all)"""

ATTEMPTS = 5
TIMEOUT_S = 30
_CHUNK_BYTES = 1 << 18
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Remote:
    """A public file and what it must contain."""

    url: str
    num_bytes: int
    sha256: str


_COGCOMP = "https://cogcomp.seas.upenn.edu/Data/QA/QC"
_CHARCNN = "https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/master/data/ag_news_csv"
_FASTAI = "https://s3.amazonaws.com/fast-ai-nlp"
REMOTES: Mapping[str, Mapping[str, Remote]] = {
    "trec": {
        "train_5500.label": Remote(
            f"{_COGCOMP}/train_5500.label", 335858, "9e4c8bdcaffb96ed61041bd64b564183d52793a8e91d84fc3a8646885f466ec3"
        ),
        "TREC_10.label": Remote(
            f"{_COGCOMP}/TREC_10.label", 23354, "033f22c028c2bbba9ca682f68ffe204dc1aa6e1cf35dd6207f2d4ca67f0d0e8e"
        ),
    },
    "imdb": {
        "aclImdb_v1.tar.gz": Remote(
            "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
            84125825,
            "c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",
        ),
    },
    "ag_news": {
        "train.csv": Remote(
            f"{_CHARCNN}/train.csv", 29470338, "76a0a2d2f92b286371fe4d4044640910a04a803fdd2538e0f3f29a5c6f6b672e"
        ),
        "test.csv": Remote(
            f"{_CHARCNN}/test.csv", 1857427, "521465c2428ed7f02f8d6db6ffdd4b5447c1c701962353eb2c40d548c3c85699"
        ),
    },
    "yahoo": {
        "yahoo_answers_csv.tgz": Remote(
            f"{_FASTAI}/yahoo_answers_csv.tgz",
            319476345,
            "2d4277855faf8b35259009425fa8f7fe1888b5644b47165508942d000f4c96ae",
        ),
    },
    "dbpedia": {
        "dbpedia_csv.tgz": Remote(
            f"{_FASTAI}/dbpedia_csv.tgz",
            68341743,
            "42db5221ddedddb673a4cabcc5f3a7d869714c878bcfe4ba94b29d14aa38e417",
        ),
    },
    "yelp_polarity": {
        "yelp_review_polarity_csv.tgz": Remote(
            f"{_FASTAI}/yelp_review_polarity_csv.tgz",
            166373201,
            "528f22e286cad085948acbc3bea7e58188416546b0e364d0ae4ca0ce666abe35",
        ),
    },
    "yelp_full": {
        "yelp_review_full_csv.tgz": Remote(
            f"{_FASTAI}/yelp_review_full_csv.tgz",
            196146755,
            "56006b0a17a370f1e366504b1f2c3e3754e4a3dda17d3e718a885c552869a559",
        ),
    },
    "sogou_pinyin": {
        "sogou_news_csv.tgz": Remote(
            f"{_FASTAI}/sogou_news_csv.tgz",
            384269937,
            "6b77fc935561d339b82aa552d7e31ea59eff492a494920579b3ce70604efb5c2",
        ),
    },
}


class Interrupted(Exception):
    """A transfer ended early; another attempt may go on from there."""


def fetch_remote(
    dataset: str,
    name: str,
    folder: Path,
    advance: Advance,
    remotes: Mapping[str, Mapping[str, Remote]] = REMOTES,
    pause: Callable[[float], None] = time.sleep,
) -> Path:
    """The file `name` of a data set in `folder`/`dataset`, downloaded if it is not there with the right content.

    Raises UnavailableError when the source cannot be reached, DataError when it serves something else, CannotWriteError.
    """
    remote = remotes[dataset][name]
    target = folder / dataset / name
    try:
        make_private_dir(target.parent)
        with _locked(target):
            if _is_complete(target, remote):
                return target
            _download(remote, target, advance, pause, f"put the file at {target}, or set data.path= to a local copy")
    except OSError as error:
        raise write_error(error, target, remote.num_bytes) from error
    return target


def _is_complete(path: Path, remote: Remote) -> bool:
    return path.is_file() and path.stat().st_size == remote.num_bytes and sha256_file(path) == remote.sha256


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """One download of a file at a time; the lock goes with its process."""
    with open(target.with_name(target.name + ".lock"), "a", opener=_private) as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _download(remote: Remote, target: Path, advance: Advance, pause: Callable[[float], None], hint: str) -> None:
    part = target.with_name(target.name + ".part")
    for attempt in range(ATTEMPTS):
        if attempt:
            pause(2.0 ** (attempt - 1))
        resumed = part.exists()
        try:
            _transfer(remote, part, advance)
            _accept(remote, part, target, resumed, hint)
            return
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 416, 429):
                raise UnavailableError(f"{remote.url}: the server answers {error.code} {error.reason}", hint) from error
            reason = f"{error.code} {error.reason}"
            if error.code == 416:  # the partial file does not fit what the server has
                part.unlink(missing_ok=True)
        except urllib.error.URLError as error:
            reason = str(error.reason)
        except Interrupted as error:
            reason = str(error)
    raise UnavailableError(f"{remote.url}: cannot download {target.name} after {ATTEMPTS} attempts: {reason}", hint)


def _transfer(remote: Remote, part: Path, advance: Advance) -> None:
    """Add what is missing to the partial file; Interrupted when the connection ends before the last byte."""
    there = part.stat().st_size if part.exists() else 0
    if there > remote.num_bytes:
        part.unlink()
        there = 0
    if there == remote.num_bytes:
        return
    headers = {"User-Agent": "bert4doc", "Accept-Encoding": "identity"}
    request = urllib.request.Request(remote.url, headers=headers)  # noqa: S310 - _opener allows https only
    if there:
        request.add_header("Range", f"bytes={there}-")
    with _connect(remote.url, request) as response:
        if there and not _continues_at(response, there):
            there = 0
        with open(part, "ab" if there else "wb", opener=_private) as stream:
            while there <= remote.num_bytes and (chunk := _read_chunk(response)):
                stream.write(chunk)
                there += len(chunk)
                advance(min(there, remote.num_bytes), remote.num_bytes)
    if there < remote.num_bytes:
        raise Interrupted(f"the connection ended after {there} of {remote.num_bytes} bytes")


def _connect(url: str, request: urllib.request.Request) -> http.client.HTTPResponse:
    try:
        return _opener(url).open(request, timeout=TIMEOUT_S)  # type: ignore[no-any-return]
    except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
        raise Interrupted(str(error) or type(error).__name__) from error


def _read_chunk(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(_CHUNK_BYTES)
    except (http.client.HTTPException, OSError) as error:  # the network's, told apart from a failing disk
        raise Interrupted(str(error) or type(error).__name__) from error


def _continues_at(response: http.client.HTTPResponse, position: int) -> bool:
    return response.status == 206 and (response.headers.get("Content-Range") or "").startswith(f"bytes {position}-")


def _accept(remote: Remote, part: Path, target: Path, resumed: bool, hint: str) -> None:
    """Put a finished download in place. Wrong content is removed: DataError, or Interrupted if an old partial file may be to blame."""
    size = part.stat().st_size
    digest = hashlib.sha256()
    with open(part, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
        os.fsync(stream.fileno())
    if size != remote.num_bytes or digest.hexdigest() != remote.sha256:
        part.unlink()
        if resumed:
            raise Interrupted("a partial download from before did not fit the file")
        raise DataError(
            f"{remote.url}: not the expected file: {size} bytes with sha256 {digest.hexdigest()}; "
            f"expected {remote.num_bytes} bytes with sha256 {remote.sha256}",
            hint,
        )
    os.replace(part, target)


def _opener(url: str) -> urllib.request.OpenerDirector:
    parts = urlsplit(url)
    if parts.hostname in _LOOPBACK:
        return urllib.request.build_opener(urllib.request.ProxyHandler({}))
    if parts.scheme != "https":
        raise DataError(f"{url}: data is downloaded by https only")
    return urllib.request.build_opener(_SecureRedirects())


class _SecureRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https only."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme != "https":
            raise DataError(f"{req.full_url}: redirected to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
