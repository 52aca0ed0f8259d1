"""Downloads against a real HTTP server that misbehaves on request."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from configs.errors import DataError, UnavailableError
from trainers.data.download import ATTEMPTS, REMOTES, Remote, fetch_remote

CONTENT = bytes(range(256)) * 4000  # 1,024,000 bytes


class Server(ThreadingHTTPServer):
    """Serves CONTENT; `cuts` are the bytes after which the next answers break off, `statuses` what they answer instead."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.cuts: list[int] = []
        self.statuses: list[int] = []
        self.ignores_range = False
        self.ranges: list[str | None] = []


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        wanted = self.headers.get("Range")
        server.ranges.append(wanted)
        if server.statuses:
            self.send_error(server.statuses.pop(0))
            return
        start = 0 if wanted is None or server.ignores_range else int(wanted.removeprefix("bytes=").removesuffix("-"))
        body = server.content[start:]
        if start:
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cuts.pop(0)] if server.cuts else body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def fetch(server: Server, folder: Path, content: bytes = CONTENT) -> Path:
    url = f"http://127.0.0.1:{server.server_address[1]}/data.bin"
    remote = Remote(url, len(content), hashlib.sha256(content).hexdigest())
    pauses: list[float] = []
    return fetch_remote(
        "set", "data.bin", folder, lambda done, total: None, {"set": {"data.bin": remote}}, pauses.append
    )


def test_a_file_is_downloaded_once(server: Server, tmp_path: Path) -> None:
    path = fetch(server, tmp_path)
    assert path == tmp_path / "set" / "data.bin"
    assert path.read_bytes() == CONTENT
    assert path.stat().st_mode & 0o777 == 0o600
    assert fetch(server, tmp_path) == path
    assert server.ranges == [None]


def test_a_changed_file_is_downloaded_again(server: Server, tmp_path: Path) -> None:
    path = fetch(server, tmp_path)
    path.write_bytes(CONTENT[:-1] + b"x")
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_interrupted_transfers_go_on_where_they_stopped(server: Server, tmp_path: Path) -> None:
    server.cuts = [300_000, 200_000]
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=300000-", "bytes=500000-"]
    assert not (tmp_path / "set" / "data.bin.part").exists()


def test_an_earlier_process_left_a_part(server: Server, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "data.bin.part").write_bytes(CONTENT[:1000])
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges == ["bytes=1000-"]


def test_a_part_of_something_else_is_thrown_away(server: Server, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    part = tmp_path / "set" / "data.bin.part"
    part.write_bytes(b"?" * 1000)
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges == ["bytes=1000-", None]
    (tmp_path / "set" / "data.bin").unlink()
    part.write_bytes(b"?" * (len(CONTENT) + 5))  # longer than the file
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_a_server_that_ignores_ranges_starts_from_the_front(server: Server, tmp_path: Path) -> None:
    server.ignores_range = True
    server.cuts = [300_000]
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=300000-"]


def test_wrong_content_is_refused_with_both_checksums(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + b"x"
    with pytest.raises(DataError) as caught:
        fetch(server, tmp_path)
    assert hashlib.sha256(server.content).hexdigest() in caught.value.message
    assert hashlib.sha256(CONTENT).hexdigest() in caught.value.message
    assert {path.name for path in (tmp_path / "set").iterdir()} == {"data.bin.lock"}


def test_more_than_the_pinned_size_is_not_read(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT * 20
    with pytest.raises(DataError, match=r"not the expected file: 1\d{6} bytes"):
        fetch(server, tmp_path)


def test_a_missing_file_is_told_at_once(server: Server, tmp_path: Path) -> None:
    server.statuses = [404]
    with pytest.raises(UnavailableError, match="the server answers 404") as caught:
        fetch(server, tmp_path)
    assert f"put the file at {tmp_path}/set/data.bin, or set data.path=" in caught.value.hint
    assert len(server.ranges) == 1


def test_passing_server_errors_are_tried_again(server: Server, tmp_path: Path) -> None:
    server.statuses = [503, 500]
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    server.statuses = [503] * ATTEMPTS
    (tmp_path / "set" / "data.bin").unlink()
    with pytest.raises(UnavailableError, match=rf"cannot download data\.bin after {ATTEMPTS} attempts: 503"):
        fetch(server, tmp_path)


def test_offline_says_where_to_put_the_file(tmp_path: Path) -> None:
    with Server() as closed:
        pass  # its port refuses connections now
    with pytest.raises(UnavailableError, match=r"cannot download data\.bin after 5 attempts") as caught:
        fetch(closed, tmp_path)
    assert str(tmp_path / "set" / "data.bin") in caught.value.hint


def test_only_https_is_used(tmp_path: Path) -> None:
    assert all(remote.url.startswith("https://") for files in REMOTES.values() for remote in files.values())
    plain = {"set": {"data.bin": Remote("http://example.org/data.bin", 1, "0" * 64)}}
    with pytest.raises(DataError, match="https only"):
        fetch_remote("set", "data.bin", tmp_path, lambda done, total: None, plain)
