"""Atomic files, growing files of JSON lines, pipes of JSON lines."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from launcher.channel import LineReader, LineWriter, readable
from launcher.files import last_lines, read_json_object, write_atomic, write_json
from launcher.spec import Bounds, LaunchSpec, NodeShape, NodeSpec
from launcher.tail import MAX_LINE_BYTES, JsonLinesTail


def test_a_file_is_replaced_whole_and_private(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for value in ({"a": 1}, {"b": 2}):
        write_json(path, value, durable=True)
        assert read_json_object(path) == value
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_planted_link_is_replaced_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    (tmp_path / "x").symlink_to(target)
    write_atomic(tmp_path / "x", b"new")
    assert target.read_text() == "precious"
    assert (tmp_path / "x").read_bytes() == b"new"


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", '"text"', "{" * 100000])
def test_what_is_no_object_is_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x"
    path.write_text(content)
    assert read_json_object(path) is None
    assert read_json_object(tmp_path / "absent") is None


def test_the_end_of_a_log_has_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"first\n" + b"x" * 100 + b"\nlast \xff\n")
    assert last_lines(path, 50) == "last \ufffd\n"
    assert last_lines(path).startswith("first\n")
    assert last_lines(tmp_path / "absent") == ""


def test_a_growing_file_yields_each_complete_line_once(tmp_path: Path) -> None:
    path = tmp_path / "records"
    tail = JsonLinesTail(path)
    assert tail.read() == []
    with open(path, "ab", buffering=0) as file:
        file.write(b'{"n": 1}\n{"n": ')
        assert tail.read() == [{"n": 1}]
        file.write(b'2}\nnoise \xff\n[3]\n{"n": 4}\n')
        assert tail.read() == [{"n": 2}, {"n": 4}]
        assert tail.read() == []
        file.write(b'{"long": "' + b"x" * (MAX_LINE_BYTES + 10))
        assert tail.read_all() == []
        file.write(b'"}\n{"n": 5}\n')
        assert tail.read_all() == [{"n": 5}]


def test_many_lines_come_in_parts_and_all(tmp_path: Path) -> None:
    path = tmp_path / "records"
    path.write_text("".join(f'{{"n": {n}, "pad": "{"x" * 100}"}}\n' for n in range(10000)))
    assert [value["n"] for value in JsonLinesTail(path).read_all()] == list(range(10000))


def test_a_pipe_carries_objects_and_tells_its_end() -> None:
    read_fd, write_fd = os.pipe()
    reader, writer = LineReader(read_fd), LineWriter(write_fd)
    assert readable((read_fd,), 0) == set()
    writer.write({"a": 1})
    os.write(write_fd, b'noise\n{"b"')
    assert readable((read_fd,), 1) == {read_fd}
    assert reader.read() == [{"a": 1}]
    before = reader.eof
    os.write(write_fd, b": 2}\n")
    assert reader.read() == [{"b": 2}]
    os.close(write_fd)
    assert reader.read() == []
    assert (before, reader.eof) == (False, True)
    os.close(read_fd)


def test_a_writer_notices_that_nobody_reads() -> None:
    read_fd, write_fd = os.pipe()
    writer = LineWriter(write_fd)
    assert writer.has_room()
    os.close(read_fd)
    writer.write({"a": 1})
    assert writer.broken
    assert not writer.has_room()
    os.close(write_fd)


def test_a_spec_survives_json_and_names_the_ranks_of_its_node() -> None:
    launch = LaunchSpec(
        "/tree", "/py", "/runs/x", (NodeShape("10.0.0.1", 2, ("0", "1"), "eth0"), NodeShape("10.0.0.2", 3)), ("--a",)
    )
    first, second = launch.with_port(6000).node_specs(7, "id")
    assert NodeSpec.from_json(first.to_json()) == first
    assert isinstance(first.bounds, Bounds)
    assert (list(first.ranks), list(second.ranks), launch.world_size) == ([0, 1], [2, 3, 4], 5)
    assert second.env["BERT4DOC_ATTEMPT"] == second.marker == "id/007/1"
    assert first.env["GLOO_SOCKET_IFNAME"] == "eth0"
    text = " ".join(first.argv)
    assert text == (
        "/py -m paddle.distributed.launch --ips 10.0.0.1,10.0.0.2 --start_port 6000 --host 10.0.0.1 --nproc_per_node 2 --devices 0,1 "
        "--log_dir /runs/x/attempts/007/node-0/paddle /tree/launcher/shim.py trainers.worker --run-dir /runs/x "
        "--attempt-dir /runs/x/attempts/007 --node 0 --a"
    )
    assert json.loads(first.to_json())["argv"] == list(first.argv)
