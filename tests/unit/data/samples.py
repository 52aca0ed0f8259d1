"""Small raw data sets in every format that is read, written by hand: nothing here comes from the code under test."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

WORDS = (
    "alpha",
    "beta",
    "gamma",
    "delta",
    "one",
    "two",
    "three",
    "red",
    "green",
    "blue",
    "long",
    "house",
    "river",
    "tree",
)
SPLITS = {"train": 60, "test": 20}


def quoted(fields: Sequence[str]) -> str:
    """A CSV line as in Zhang's archives: every field quoted, quotes doubled, line ends as two characters."""
    return ",".join('"' + field.replace('"', '""').replace("\n", "\\n") + '"' for field in fields) + "\n"


def write_archive(path: Path, files: dict[str, bytes]) -> Path:
    """A .tgz of these members in this order, after a folder and the resource forks that a Mac adds."""
    with tarfile.open(path, "w:gz") as tar:
        folder = tarfile.TarInfo(next(iter(files)).partition("/")[0])
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(folder)
        for name, content in files.items():
            head, _, base = name.rpartition("/")
            for member, data in ((f"{head}/._{base}", b"\0\5\x16\7"), (name, content)):
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def sentence(rng: random.Random) -> str:
    """Three to eight words and a full stop."""
    return " ".join(rng.choices(WORDS, k=rng.randint(3, 8))).capitalize() + "."


def text(rng: random.Random) -> str:
    """Two to four sentences in two lines."""
    sentences = [sentence(rng) for _ in range(rng.randint(2, 4))]
    return f"{sentences[0]}\n{' '.join(sentences[1:])}"


def zhang_rows(split: str, classes: int, columns: int) -> list[list[str]]:
    """Rows of class (1, 2, ... in turn) and texts."""
    rng = random.Random(f"{split} {classes} {columns}")
    return [
        [str(number % classes + 1), *(text(rng) for _ in range(columns))]
        for number in range(SPLITS[split] * classes // 2)
    ]


def zhang_files(folder: str, classes: int, columns: int) -> dict[str, bytes]:
    """The members of one of Zhang's archives."""
    files = {
        f"{folder}/{split}.csv": "".join(map(quoted, zhang_rows(split, classes, columns))).encode() for split in SPLITS
    }
    return {**files, f"{folder}/classes.txt": b"\n".join(b"class" for _ in range(classes)), f"{folder}/readme.txt": b""}


def zhang_archive(name: str, classes: int, columns: int) -> Callable[[Path], Path]:
    """Makes NAME.tgz in a folder."""
    return lambda folder: write_archive(folder / f"{name}.tgz", zhang_files(name, classes, columns))


def trec(folder: Path) -> Path:
    """train_5500.label and TREC_10.label."""
    rng = random.Random("trec")
    labels = ["ABBR:exp", "DESC:def", "ENTY:animal", "HUM:ind", "LOC:city", "NUM:date"]
    for name, rows in (("train_5500.label", 60), ("TREC_10.label", 12)):
        lines = [f"{labels[number % 6]} {sentence(rng)} Q{number} ?\n" for number in range(rows)]
        (folder / name).write_text("".join(lines), "latin-1")
    return folder


def imdb(folder: Path) -> Path:
    """aclImdb_v1.tar.gz."""
    rng = random.Random("imdb")
    files = {}
    for place in ("train/neg", "train/pos", "train/unsup", "test/neg", "test/pos"):
        for number in range(20):
            files[f"aclImdb/{place}/{number}_7.txt"] = f"{sentence(rng)}<br /><br />{text(rng)}".encode()
    return write_archive(folder / "aclImdb_v1.tar.gz", files)


def sogou(folder: Path) -> Path:
    """A folder with train.csv and test.csv: label, title, content, in Chinese, without quotes where none are needed."""
    signs = "天地人日月山水火木金土大小上中下"
    rng = random.Random("sogou")
    for split, rows in SPLITS.items():
        lines = []
        for number in range(rows):
            title, *content = ("".join(rng.choices(signs, k=9)) for _ in range(4))
            lines.append(f"{number % 6},{title},{content[0]}。{content[1]}？{content[2]}！\n")
        (folder / f"{split}.csv").write_text("".join(lines), "utf-8")
    return folder


def python_docs(folder: Path) -> Path:
    """A standard library of three modules full of documented functions."""
    rng = random.Random("python_docs")
    for module in ("json", "asyncio", "decimal"):
        functions = [
            f'def f{number}():\n    """{sentence(rng)} {sentence(rng)} {sentence(rng)}"""\n' for number in range(30)
        ]
        (folder / f"{module}.py").write_text("\n".join(functions))
    return folder


MAKERS: dict[str, Callable[[Path], Path]] = {
    "trec": trec,
    "imdb": imdb,
    "ag_news": zhang_archive("ag_news_csv", 4, 2),
    "yahoo": zhang_archive("yahoo_answers_csv", 10, 3),
    "dbpedia": zhang_archive("dbpedia_csv", 14, 2),
    "yelp_polarity": zhang_archive("yelp_review_polarity_csv", 2, 1),
    "yelp_full": zhang_archive("yelp_review_full_csv", 5, 1),
    "sogou": sogou,
    "python_docs": python_docs,
    "sogou_pinyin": zhang_archive("sogou_news_csv", 5, 2),
}
"""Data set: makes its raw files in a folder and returns what `data.path` should be."""
