"""Files that are programs: every one is refused by name, nothing of it runs, and none fills the memory."""

from __future__ import annotations

import contextlib
import pickle
import resource
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from configs.errors import DataError
from tests.support import pickles as p
from trainers.importing.paddle_file import read_paddle_file
from trainers.importing.torch_file import read_torch_file

ROOT = Path(__file__).resolve().parents[3]
ZEROS = bytes(16)


def good_tensor() -> bytes:
    return p.tensor(p.storage("FloatStorage", "0", 4), 0, (2, 2), (2, 1))


def call(name: str, arguments: bytes) -> bytes:
    return f"c{name.replace(' ', chr(10))}\n".encode() + arguments + b"R"


def read(path: Path) -> dict[str, np.ndarray]:
    return read_paddle_file(path) if path.suffix == ".pdparams" else read_torch_file(path)


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(path) in caught.value.message
    return caught.value.message


def write_all(folder: Path, body: bytes) -> list[Path]:
    """The same program in each kind of file that is read."""
    older = folder / "older.bin"
    start = [p.pickled(b"\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little")), p.pickled(p.number(1001))]
    older.write_bytes(b"".join([*start, p.pickled(b"}" + p.text("little_endian") + b"\x88s"), p.pickled(body)]))
    paddle = folder / "model_state.pdparams"
    paddle.write_bytes(p.pickled(body))
    return [p.write_zip(folder / "zip.bin", body, {"0": ZEROS}), older, paddle]


CALLS: tuple[str, ...] = (
    "os system",
    "posix system",
    "subprocess Popen",
    "builtins eval",
    "__builtin__ eval",
    "builtins exec",
    "builtins getattr",
)
CALLS += (
    "builtins __import__",
    "importlib import_module",
    "torch load",
    "torch.storage _load_from_bytes",
    "numpy load",
)
CALLS += (
    "torch._utils _rebuild_tensor_v2.__globals__",
    "collections OrderedDict.__class__",
    "_codecs decode",
    "runpy run_path",
)


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_refused_by_name_and_not_made(tmp_path: Path, name: str) -> None:
    hacked = tmp_path / "hacked"
    for path in write_all(tmp_path, p.dictionary({"a": call(name, p.marker(hacked))})):
        message = refusal(path)
        assert f"refused: it asks for {name.replace(' ', '.')}. " in message
        assert "nothing of the file was run" in message
    assert not hacked.exists()


def test_the_same_program_would_run_in_pickle_itself(tmp_path: Path) -> None:
    """The hostile file is a real one: what this test does must never be done with a file from elsewhere."""
    hacked = tmp_path / "hacked"
    body = call("os system", p.marker(hacked))
    pickle.loads(p.pickled(body))
    assert hacked.exists()


def test_names_from_the_stack_are_looked_up_too(tmp_path: Path) -> None:
    body = p.text("os") + p.text("system") + b"\x93" + p.marker(tmp_path / "hacked") + b"R"
    for path in write_all(tmp_path, body):
        assert "refused: it asks for os.system" in refusal(path)
    for path in write_all(tmp_path, p.number(1) + p.number(2) + b"\x93"):
        assert "without a name" in refusal(path)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"(ios\nsystem\n", "instruction INST"),
        (b"(" + p.text("x") + b"o", "instruction OBJ"),
        (b"ccollections\nOrderedDict\n)\x81", "instruction NEWOBJ"),
        (b"ccollections\nOrderedDict\n)}\x92", "instruction NEWOBJ_EX"),
        (b"\x82\x01", "instruction EXT1"),
        (b"Pid\n", "instruction PERSID"),
        (b"\x96" + struct.pack("<Q", 1) + b"x", "instruction BYTEARRAY8"),
        (b"\x8f(" + p.text("x") + b"\x90", "instruction EMPTY_SET"),
        (p.text("x") + b")R", "it calls an object of type str"),
        (b"ccollections\nOrderedDict\n" + p.text("x") + b"R", "it calls collections.OrderedDict"),
        (p.text("x") + b"}b", "sets the state of an object of type str"),
        (b"ccollections\nOrderedDict\n}b", "sets the state of an object of type Symbol"),
        (b"]" + p.text("k") + p.text("v") + b"s", "sets items of something that is no dictionary"),
        (b"}" + p.text("v") + b"a", "appends to something that is no list"),
    ],
)
def test_instructions_that_weights_do_not_use(tmp_path: Path, body: bytes, said: str) -> None:
    for path in write_all(tmp_path, body):
        assert said in refusal(path)


def test_permitted_functions_with_hostile_arguments(tmp_path: Path) -> None:
    stored = p.storage("FloatStorage", "0", 4)
    bad = {
        "a tensor without storage": p.REBUILD
        + p.tuple_of(p.text("x"), p.number(0), p.sizes((2,)), p.sizes((1,)))
        + b"R",
        "beyond its storage of 4": p.tensor(stored, 0, (5,), (1,)),
        "reaches beyond its storage": p.tensor(stored, 3, (2,), (1,)),
        "elements reaches beyond": p.tensor(stored, 0, (2, 2), (4, 1)),
        "of 1000000000000 elements": p.tensor(stored, 0, (1000000, 1000000), (0, 0)),
        "without storage, sizes": p.tensor(stored, -1, (2,), (1,)),
        "sizes and strides": p.tensor(stored, 1, (2,), (-1,)),
        "storage, sizes and strides": p.tensor(stored, 0, (1,) * 40, (1,) * 40),
        "a parameter that is no tensor": call(
            "torch._utils _rebuild_parameter", p.tuple_of(p.text("x"), b"\x88", b"N")
        ),
        "a storage without type": p.tuple_of(
            p.text("storage"), p.text("FloatStorage"), p.text("0"), p.text("cpu"), p.number(4)
        )
        + b"Q",
        "two types or sizes": p.tuple_of(good_tensor(), p.tensor(p.storage("HalfStorage", "0", 8), 0, (1,), (1,))),
        "that is no storage": p.tuple_of(p.text("module"), p.text("x"), p.text("0"), p.text("cpu"), p.number(4)) + b"Q",
        "it calls torch.FloatStorage": b"ctorch\nFloatStorage\n)R",
        "a dictionary key of type tuple": b"}" + p.sizes((1, 2)) + p.number(1) + b"s",
        "dictionary of something else": call("collections OrderedDict", p.tuple_of(p.text("ab"))),
    }
    for said, item in bad.items():
        path = p.write_zip(tmp_path / "bad.bin", p.dictionary({"a": item}), {"0": ZEROS})
        assert said in refusal(path), said


def test_paddles_functions_with_hostile_arguments(tmp_path: Path) -> None:
    path = tmp_path / "x.pdparams"
    kind = call("numpy dtype", p.tuple_of(p.text("f4"), b"\x89", b"\x88"))
    empty = call("numpy.core.multiarray _reconstruct", p.tuple_of(b"cnumpy\nndarray\n", p.sizes((0,)), p.text("b")))
    content = b"B" + struct.pack("<I", 16) + ZEROS
    bad = {
        "an array of type 'O'": call("numpy dtype", p.tuple_of(p.text("O"), b"\x89", b"\x88")),
        "cannot reshape": empty + p.tuple_of(p.number(1), p.sizes((1 << 40,)), kind, b"\x89", content) + b"b",
        "without shape and type": empty + p.tuple_of(p.number(1), p.sizes((4,)), p.text("f4"), b"\x89", content) + b"b",
        "elements are no bytes": empty + p.tuple_of(p.number(1), p.sizes((4,)), kind, b"\x89", b"]") + b"b",
        "another form than latin1": call("_codecs encode", p.tuple_of(p.text("x"), p.text("rot13"))),
        "outside the file": p.tuple_of(p.text("storage")) + b"Q",
    }
    for said, item in bad.items():
        path.write_bytes(p.pickled(p.dictionary({"a": item})))
        assert said in refusal(path), said


def limited(*paths: Path, limit_mb: int = 600) -> list[str]:
    """Reads files in one process with little memory and time: the refusal of each, or "read"."""
    script = (
        "import sys, pathlib\nfrom configs.errors import DataError\n"
        "from tests.unit.trainers.test_trainers_import_hostile import read\n"
        "for path in sys.argv[1:]:\n"
        "    try: read(pathlib.Path(path)); print('read')\n"
        "    except DataError as error: print(error.message.replace(chr(10), ' '))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, paths)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit_mb << 20, limit_mb << 20)),
        env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def nested_pairs(depth: int) -> bytes:
    """A tuple of 2^depth leaves in a few bytes: hashing or printing it would take for ever."""
    body = p.sizes((1, 1)) + b"q\x00"
    for level in range(1, depth):
        body += p.tuple_of(b"h" + bytes([level - 1]), b"h" + bytes([level - 1])) + b"q" + bytes([level])
    return body


BOMBS: dict[str, Callable[[], bytes]] = {
    "a place in the memo far away": lambda: p.text("x") + b"r" + struct.pack("<I", 0xFFFFFFF0),
    "a text longer than the file": lambda: b"\x8d" + struct.pack("<Q", 1 << 45) + b"x",
    "bytes longer than the file": lambda: b"\x8e" + struct.pack("<Q", 1 << 62) + b"x",
    "a huge number": lambda: b"\x8b" + struct.pack("<I", 1 << 30) + b"x",
    "a frame longer than the file": lambda: b"\x95" + struct.pack("<Q", 1 << 60) + p.text("x"),
    "a key that takes for ever to hash": lambda: b"}" + nested_pairs(60) + p.number(1) + b"s",
    "more instructions than weights have": lambda: b"N" * 310_000,
    "no end": lambda: p.text("x")[:-1],
    "nothing on the stack": lambda: b"t",
    "a mark that was never set": lambda: b"}" + b"u",
    "a memo that is empty": lambda: b"h\x07",
}


def test_bombs_are_refused_in_little_memory_and_time(tmp_path: Path) -> None:
    paths = []
    for number, body in enumerate(bomb() for bomb in BOMBS.values()):
        (tmp_path / str(number)).mkdir()
        paths += write_all(tmp_path / str(number), body)
    answers = limited(*paths)
    for path, answer in zip(paths, answers, strict=True):
        assert answer.startswith(f"{path}: "), list(BOMBS)[int(path.parent.name)]


def test_tensors_may_share_their_elements_but_not_without_end(tmp_path: Path) -> None:
    count = 1 << 18
    one = p.tensor(p.storage("FloatStorage", "0", count), 0, (count,), (1,))
    paths = []
    for copies in (3, 500):
        body = p.dictionary({f"t{index}": one for index in range(copies)})
        paths.append(p.write_zip(tmp_path / f"{copies}.bin", body, {"0": bytes(4 * count)}))
    again = b"c_codecs\nencode\n" + p.tuple_of(b"h\x01", p.text("latin1")) + b"R"
    paths.append(tmp_path / "text.pdparams")
    paths[-1].write_bytes(p.pickled(p.text("x" * 1_000_000) + b"q\x01" + b"]" + b"(" + again * 1000 + b"e"))
    fine, tensors, texts = limited(*paths)
    assert fine == "read"
    assert "refers to itself so often" in tensors
    assert "refers to itself so often" in texts


def test_archives_that_torch_does_not_write(tmp_path: Path) -> None:
    body = p.dictionary({"a": good_tensor()})
    packed = tmp_path / "packed.bin"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", p.pickled(body))
        archive.writestr("archive/data/0", bytes(1 << 24))
    assert "a compressed entry" in refusal(packed)
    assert "storage 0 has 12 bytes for 4 elements" in refusal(
        p.write_zip(tmp_path / "short.bin", body, {"0": bytes(12)})
    )
    assert "archive/data/0" in refusal(p.write_zip(tmp_path / "none.bin", body, {}))
    assert "not little-endian" in refusal(p.write_zip(tmp_path / "big.bin", body, {"0": ZEROS}, byteorder=b"big"))
    outside = p.dictionary({"a": p.tensor(p.storage("FloatStorage", "../../../etc/passwd", 4), 0, (4,), (1,))})
    assert "archive/data/../../../etc/passwd" in refusal(p.write_zip(tmp_path / "path.bin", outside, {"0": ZEROS}))
    no_pickle = tmp_path / "other.bin"
    with zipfile.ZipFile(no_pickle, "w") as archive:
        archive.writestr("word/document.xml", "x")
    assert "without exactly one data.pkl" in refusal(no_pickle)


def test_cut_and_flipped_files_never_crash(tmp_path: Path) -> None:
    """Any damage ends in DataError or, where only numbers changed, in arrays."""
    arrays = {"weight": np.arange(12, dtype="<f4").reshape(3, 4), "bias": np.ones(3, dtype="<f2")}
    rng = np.random.default_rng(0)
    for number, write in enumerate((p.write_torch, p.write_older_torch)):
        content = write(tmp_path / "whole.bin", arrays).read_bytes()
        path = tmp_path / f"damaged{number}.bin"
        for round_ in range(300):
            damaged = bytearray(content)
            if round_ % 2:
                damaged = damaged[: rng.integers(0, len(content))]
            else:
                for place in rng.integers(0, len(content), 3):
                    damaged[place] = rng.integers(0, 256)
            path.write_bytes(damaged)
            with contextlib.suppress(DataError):
                assert isinstance(read_torch_file(path), dict)
