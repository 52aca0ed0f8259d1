"""predict: every form of input, in order, with file and line of what is wrong; streams of any size in bounded memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.errors import ConfigError, DataError
from configs.schema import Config, FinetuneStage
from tests.support.tiny import CLASSES, CONFIG, VOCABULARY, hf_shapes, random_tensors, write_bert

paddle = pytest.importorskip("paddle", reason="needs Paddle")

from safetensors.numpy import save_file  # noqa: E402

from trainers.exporting.source import last_finished  # noqa: E402
from trainers.model.batch import make_token_batch  # noqa: E402
from trainers.model.folder import ModelSource, build_model, load_folder, read_bert_config, save_folder  # noqa: E402
from trainers.predicting.inputs import Item, Layout, in_groups, read_arguments, read_file  # noqa: E402
from trainers.trained import finished_classifier, load_classifier  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]
STAGE = FinetuneStage.model_validate({"task": "finetune", "epochs": 1, "max_length": 12, "truncation": {"head": 4}})
TIMEOUT_S = 180


def make_model(folder: Path, pairs: bool) -> Path:
    start = write_bert(folder / f"bert-{pairs}", seed=3)
    config = read_bert_config(start)
    model = build_model(STAGE, config, len(CLASSES))
    load_folder(model, start)
    model.classifier.weight.set_value(np.random.default_rng(1).normal(0, 0.5, [32, 3]).astype(np.float32))
    arrays = {name: parameter.numpy() for name, parameter in model.named_parameters()}
    save_folder(folder / f"model-{pairs}", arrays, config, STAGE, ModelSource(start, True), CLASSES, pairs=pairs)
    return folder / f"model-{pairs}"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """A model of single texts and one of pairs."""
    folder = tmp_path_factory.mktemp("models")
    return {pairs: make_model(folder, pairs) for pairs in (False, True)}


def command(model: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "trainers.predict", "--model", str(model), *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "MKL_DEBUG_CPU_TYPE": "5", "PYTHONWARNINGS": "ignore"}


def run(model: Path, *arguments: str, data: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(model, *arguments),
        input=data,
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


def probabilities(model: Path, first: str, second: str | None = None) -> np.ndarray:
    """By hand: tokens of the vocabulary, the first 4 and the last 6 of a long single text, softmax of the logits of one text alone."""
    words = [VOCABULARY.index(word) for word in first.split()]
    if second is None:
        ids = [2, *(words if len(words) <= 10 else words[:4] + words[-6:]), 3]
        types = [0] * len(ids)
    else:
        other = [VOCABULARY.index(word) for word in second.split()]
        ids, types = [2, *words, 3, *other, 3], [0] * (len(words) + 2) + [1] * (len(other) + 1)
    logits = load_classifier(model).model(make_token_batch([np.array(ids)], [np.array(types, np.uint8)])).numpy()[0]
    chances: np.ndarray = np.exp(logits) / np.exp(logits).sum()
    return chances


SINGLE = ["hum1 filler2", " ".join(f"filler{number}" for number in range(20)), "loc3 . num1"]
PAIRS = [("hum1 filler2", "loc3"), ("filler7", "num1 num2 .")]


def check(lines: Sequence[str], model: Path, texts: Sequence[tuple[str, str | None]]) -> None:
    rows = [json.loads(line) for line in lines]
    assert [(row["text"], row.get("text_pair")) for row in rows] == list(texts)
    for row, (first, second) in zip(rows, texts, strict=True):
        expected = probabilities(model, first, second)
        assert list(row["probabilities"]) == list(CLASSES)
        np.testing.assert_allclose(list(row["probabilities"].values()), expected, atol=1e-5)
        assert row["label"] == CLASSES[int(expected.argmax())]
        assert row["probability"] == max(row["probabilities"].values())


def test_texts_of_the_command_line(models: dict[bool, Path]) -> None:
    done = run(models[False], "--json", *(f"--text={text}" for text in SINGLE))
    assert done.returncode == 0, done.stderr
    check(done.stdout.splitlines(), models[False], [(text, None) for text in SINGLE])
    pairs = [option for first, second in PAIRS for option in (f"--text={first}", f"--text-pair={second}")]
    done = run(models[True], "--json", *pairs)
    assert done.returncode == 0, done.stderr
    check(done.stdout.splitlines(), models[True], PAIRS)


def test_a_table_of_pairs_with_a_small_batch(models: dict[bool, Path], tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text("id,question,answer\n" + "".join(f'{n},"{a}","{b}"\n' for n, (a, b) in enumerate(PAIRS * 3)))
    output = tmp_path / "out.jsonl"
    chosen = (
        "--file",
        str(table),
        "--column",
        "question",
        "--pair-column",
        "2",
        "--batch",
        "2",
        "--json",
        "--output",
        str(output),
    )
    done = run(models[True], *chosen)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    check(output.read_text().splitlines(), models[True], PAIRS * 3)


def test_a_table_of_probabilities(models: dict[bool, Path]) -> None:
    done = run(models[False], "--file", "-", "--probabilities", data="hum1\tx\r\n\nloc1\n")
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert lines[0] == ["label", "probability", "p(HUM)", "p(LOC)", "p(NUM)", "text"]
    assert [line[-1] for line in lines[1:]] == ["hum1 x", "", "loc1"], (
        "a TAB in a text would be a column; no line is lost"
    )
    for line in lines[1:]:
        chances = np.array(line[2:5], dtype=float)
        assert line[0] == CLASSES[int(chances.argmax())]
        assert float(line[1]) == pytest.approx(chances.max(), abs=1e-4)
    np.testing.assert_allclose(np.array(lines[3][2:5], dtype=float), probabilities(models[False], "loc1"), atol=1e-5)


def test_a_bad_row_is_named_after_the_rows_before_it(models: dict[bool, Path], tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "hum1"}\n{"text": "loc1"}\n{"txt": "num1"}\n{"text": "num2"}\n')
    done = run(models[False], "--file", str(path))
    assert done.returncode == 65
    assert [line.split("\t")[2] for line in done.stdout.splitlines()] == ["hum1", "loc1"]
    assert "error: texts.jsonl:3: no text under 'text'" in done.stderr
    output = tmp_path / "out.tsv"
    output.write_text("earlier")
    assert run(models[False], "--file", str(path), "--output", str(output)).returncode == 65
    assert output.read_text() == "earlier"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["out.tsv", "texts.jsonl"]


def test_the_output_is_the_users_own_file(models: dict[bool, Path], tmp_path: Path) -> None:
    output = tmp_path / "out.tsv"
    earlier = os.umask(0o027)
    try:
        assert run(models[False], "--text=hum1", "--output", str(output)).returncode == 0
    finally:
        os.umask(earlier)
    assert output.stat().st_mode & 0o777 == 0o640
    done = run(models[False], "--text=hum1", "--output", str(tmp_path / "no" / "out.tsv"))
    assert done.returncode == 73
    assert f"there is no folder {tmp_path / 'no'}\nnext: make the folder, or name another" in done.stderr
    assert run(models[False], "--text=hum1", "--output", str(tmp_path)).returncode == 73


def test_a_wrong_column_prints_no_header(models: dict[bool, Path]) -> None:
    done = run(models[False], "--file=-", "--format=tsv", "--column=body", "--probabilities", data="id\ttext\n1\tx\n")
    assert (done.returncode, done.stdout) == (65, "")
    assert "there is: id, text" in done.stderr
    done = run(models[False], "--file=-", "--format=tsv", "--probabilities", data="id\ttext\n")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 1), "of no rows there is a header"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_quietly_and_leaves_nothing(
    models: dict[bool, Path], tmp_path: Path, number: signal.Signals
) -> None:
    chosen = ("--file=-", "--output", str(tmp_path / "out.tsv"))
    argv = [sys.executable, "-m", "trainers.program", *command(models[False], *chosen)[2:]]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, env=environment()
    ) as process:
        assert process.stdin is not None
        process.stdin.write(b"hum1\n")
        process.stdin.flush()
        end = time.monotonic() + TIMEOUT_S
        while not list(tmp_path.iterdir()):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(60) == 128 + number
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert not list(tmp_path.iterdir())


def signals_wait(pid: int) -> bool:
    """Whether a process blocks SIGTERM (15), as it does while it imports."""
    status = Path(f"/proc/{pid}/status").read_text()
    blocked = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigBlk"))
    return bool(blocked & 1 << 14)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_its_start(models: dict[bool, Path], number: signal.Signals) -> None:
    argv = [sys.executable, "-m", "trainers.program", *command(models[False], "--file=-")[2:]]
    for delay_s in (0.0, 0.8):
        with subprocess.Popen(
            argv, stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, env=environment()
        ) as process:
            while not signals_wait(process.pid):
                assert process.poll() is None
            time.sleep(delay_s)
            process.send_signal(number)
            assert process.wait(60) == 128 + number
            assert process.stderr is not None
            assert process.stderr.read() == b""


def test_a_model_of_pairs_wants_pairs_and_one_of_texts_none(models: dict[bool, Path]) -> None:
    done = run(models[True], "--file", "-", data="hum1\tloc1\nalone\n")
    assert done.returncode == 65
    assert (
        "stdin:2: one text; this model was trained on pairs: 'alone'; allowed: first text<TAB>second text"
        in done.stderr
    )
    assert len(done.stdout.splitlines()) == 1
    done = run(models[False], "--text", "a", "--text-pair", "b")
    assert done.returncode == 2
    assert "--text-pair: this model was trained on single texts" in done.stderr


class TestReading:
    @staticmethod
    def layout(kind: Any, column: str | int = "text", pair: str | int | None = None, header: bool = True) -> Layout:
        return Layout(kind, column, pair, header)

    @pytest.mark.parametrize(
        ("name", "content", "layout", "expected"),
        [
            ("a.txt", b"\xef\xbb\xbfone\r\n\ntwo\tx", ("text",), [("one", None), ("", None), ("two\tx", None)]),
            ("a.txt", b"one\ttwo\tx\n", ("text", "text", "p"), [("one", "two\tx")]),
            ("a.tsv", b'id\ttext\n1\t"a\n', ("tsv",), [('"a', None)]),
            ("a.csv", b'id,text\n1,"a, ""b""\nc"\n\n2,d\n', ("csv",), [('a, "b"\nc', None), ("d", None)]),
            ("a.csv", b"text\na\n\nb\n\n", ("csv",), [("a", None), ("", None), ("b", None), ("", None)]),
            ("a.tsv", b"\ntext\n\r\n \nb", ("tsv",), [("", None), (" ", None), ("b", None)]),
            ("a.tsv", b"\na\n", ("tsv", 0, None, False), [("", None), ("a", None)]),
            ("a.tsv", b"\na\tb\n\nc\td\n", ("tsv", 0, None, False), [("a", None), ("c", None)]),
            ("a.csv", b"x,y\nz,w\n", ("csv", 1, 0, False), [("y", "x"), ("w", "z")]),
            ("a.jsonl", b'{"b": "x", "n": 1}\n\n{"b": "y"}', ("jsonl", "b"), [("x", None), ("y", None)]),
        ],
    )
    def test_forms(
        self, tmp_path: Path, name: str, content: bytes, layout: tuple[Any, ...], expected: list[tuple[str, str | None]]
    ) -> None:
        (tmp_path / name).write_bytes(content)
        assert [tuple(item) for item in read_file(str(tmp_path / name), self.layout(*layout))] == expected

    @pytest.mark.parametrize(
        ("name", "content", "layout", "said"),
        [
            ("a.txt", b"ok\n\xff\n", ("text",), "a.txt:2: byte 0xff at position 0 is not utf-8"),
            (
                "a.tsv",
                b"id\tbody\n1\tx\n",
                ("tsv",),
                "a.tsv:1: no column 'text'; there is: id, body, or a number from 0 to 1",
            ),
            ("a.csv", b"a,b\n", ("csv", 2, None, False), "a.csv:1: no column 2; there is: numbers from 0 to 1"),
            ("a.csv", b"id,text\n1,x\n2\n", ("csv",), "a.csv:3: 1 columns: '2'; allowed: 2, as in the first row"),
            ("a.csv", b"id,text\n1,x\n2,\n", ("csv",), "a.csv:3: text is empty"),
            ("a.csv", b'id,text\n1,"x"y\n', ("csv",), "a.csv:2: broken quoting"),
            ("a.jsonl", b'{"text": "x"}\n{oops\n', ("jsonl",), "a.jsonl:2: not JSON"),
            ("a.jsonl", b'["x"]\n', ("jsonl",), "a.jsonl:1: not a JSON object"),
            ("a.jsonl", b'{"text": 5, "b": "x"}\n', ("jsonl",), "a.jsonl:1: no text under 'text'; keys with a text: b"),
        ],
    )
    def test_what_is_wrong(self, tmp_path: Path, name: str, content: bytes, layout: tuple[Any, ...], said: str) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError) as caught:
            list(read_file(str(tmp_path / name), self.layout(*layout)))
        assert said in caught.value.message
        assert "on_bad_row" not in caught.value.hint

    def test_arguments(self) -> None:
        assert list(read_arguments(["a\tb"], [], True)) == [Item("a", "b")]
        assert list(read_arguments(["a\tb"], [], False)) == [Item("a\tb", None)]
        with pytest.raises(ConfigError, match="1 given for 2 --text"):
            list(read_arguments(["a", "b"], ["c"], True))
        with pytest.raises(DataError, match="--text: text is empty"):
            list(read_arguments([""], [], False))
        with pytest.raises(DataError, match="--text: one text; this model was trained on pairs"):
            list(read_arguments(["a"], [], True))


def test_groups_keep_the_order_and_are_not_larger_than_asked() -> None:
    items = [Item(str(number), None) for number in range(1000)]
    groups = list(in_groups(iter(items), 64))
    assert [item for group in groups for item in group] == items
    assert max(map(len, groups)) <= 64
    assert list(in_groups(iter(()), 4)) == []


def test_an_idle_input_is_answered_and_its_error_comes_last() -> None:
    def slow() -> Iterator[Item]:
        yield Item("first", None)
        time.sleep(0.6)
        yield Item("second", None)
        raise DataError("third")

    groups = in_groups(slow(), 100)
    start = time.monotonic()
    assert next(groups) == [Item("first", None)]
    assert time.monotonic() - start < 0.5
    assert next(groups) == [Item("second", None)]
    with pytest.raises(DataError, match="third"):
        next(groups)


def test_reading_ahead_is_bounded() -> None:
    given: list[None] = []

    def endless() -> Iterator[Item]:
        while True:
            given.append(None)
            yield Item("x", None)

    groups = in_groups(endless(), 10)
    next(groups)
    time.sleep(0.3)
    assert len(given) <= 10 + 64 + 2


def test_output_begins_before_the_input_ends(models: dict[bool, Path]) -> None:
    with subprocess.Popen(
        command(models[False], "--file", "-"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=environment(),
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for text in ("hum1", "loc1 loc2"):
            process.stdin.write(f"{text}\n".encode())
            process.stdin.flush()
            assert process.stdout.readline().decode().rstrip("\n").split("\t")[2] == text
        process.stdin.close()
        assert process.stdout.read() == b""
        assert process.wait(60) == 0


def peak_kb(process: subprocess.Popen[bytes]) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


@pytest.mark.slow
def test_a_large_pipe_takes_no_more_memory_than_a_small_one(models: dict[bool, Path]) -> None:
    """48 MB of text through a pipe, in lines of 24 kB of which the model sees 10 tokens."""
    line = ("filler1 " * 3000).encode() + b"\n"
    num_lines, early = 2000, 300
    with subprocess.Popen(
        command(models[False], "--file", "-"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=environment(),
    ) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None

        def feed() -> None:
            with stdin:
                for _ in range(num_lines):
                    stdin.write(line)

        threading.Thread(target=feed, daemon=True).start()
        peaks = {}
        for row in range(num_lines):
            assert stdout.readline().endswith(b"\t" + line)
            if row in (early, num_lines - 1):
                peaks[row] = peak_kb(process)
        assert process.wait(60) == 0
    assert peaks[num_lines - 1] - peaks[early] < 25_000, peaks


def test_a_classifier_of_another_library(tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "foreign")
    save_file(random_tensors(hf_shapes(num_classes=3), 4), str(folder / "model.safetensors"))
    values = {**CONFIG, "architectures": ["BertForSequenceClassification"], "id2label": {"2": "c", "0": "a", "1": "b"}}
    (folder / "config.json").write_text(json.dumps(values))
    classifier = load_classifier(folder)
    assert (classifier.label_names, classifier.pairs, classifier.stage.max_length) == (("a", "b", "c"), False, 64)
    (folder / "config.json").write_text(json.dumps({**values, "architectures": ["BertModel"]}))
    with pytest.raises(DataError, match=r"no trained classifier: it has neither bert4doc\.json nor"):
        load_classifier(folder)


def test_the_stage_that_is_used_is_said_where_there_are_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"task": "finetune", "epochs": 1}
    stages = {"pre": {"task": "pretrain", "max_steps": 1}, "a": settings, "b": settings}
    config = Config.model_validate(
        {"name": "tk", "model": "all-minilm-l6-v2", "data": {"dataset": "trec"}, "stages": stages}
    )
    for name in ("pre", "a"):
        (tmp_path / "tk" / name).mkdir(parents=True)
        (tmp_path / "tk" / name / "done.json").touch()
    assert finished_classifier(tmp_path / "tk", config, None) == "a"
    assert last_finished(tmp_path / "tk", config, None) == "a"
    assert capsys.readouterr().err == "", "there is no choice"
    with pytest.raises(ConfigError, match="finished: a") as caught:
        finished_classifier(tmp_path / "tk", config, "b")
    assert "--stage a" in caught.value.hint
    (tmp_path / "tk" / "b").mkdir()
    (tmp_path / "tk" / "b" / "done.json").touch()
    for choose in (finished_classifier, last_finished):
        assert choose(tmp_path / "tk", config, None) == "b"
        assert capsys.readouterr().err == "stage b of run tk (others: a; choose with --stage)\n"
        assert choose(tmp_path / "tk", config, "a") == "a"
        assert capsys.readouterr().err == ""
