"""The data sets of Zhang, Zhao and LeCun 2015: quoted CSV without header, the class as a number from 1, then the text's columns.

They come as NAME_csv.tgz with NAME_csv/train.csv and test.csv; the archive is read in place. Texts were taken from JSON and kept its
escapes: `\\n` as two characters is a line end, `\\"` a quote. The paper's Sogou News has the same form, with Chinese text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.errors import DataError
from trainers.data.download import Fetch
from trainers.data.readers.base import Dataset, ReadLog, Row, existing, find_one, list_folder, whole_text
from trainers.data.readers.lines import read_records
from trainers.data.readers.sources import ARCHIVE_SUFFIXES, ArchiveMember, Source
from trainers.data.readers.tab_form import TAB_NAMES, read_tab_form

_FILES = {"train": "train.csv", "test": "test.csv"}
_ESCAPE = re.compile(r'\\([n"\\])')
_UNESCAPED = {"n": "\n", '"': '"', "\\": "\\\\"}  # two backslashes stay, and the second escapes nothing
_MOST_LABELS_SHOWN = 6
Clean = Callable[[str], str]


@dataclass(frozen=True)
class ZhangForm:
    """What tells these data sets apart."""

    folder: str
    """Name of the archive without .tgz, and of the folder in it."""
    columns: tuple[str, ...]
    """Names of the columns behind the class, for messages."""
    labels: tuple[str, ...]
    """Names of the classes 1, 2, ...; empty: the labels are what the training file has."""
    joint: str = " "
    """What the text's columns are joined with."""
    has_pair: bool = False
    """The last column is a second text. Either may be empty, but not both."""
    clean: Clean = lambda text: _ESCAPE.sub(lambda match: _UNESCAPED[match[1]], text).strip()


def _without_backslashes(text: str) -> str:
    # In this archive a lone backslash stands for a line end ("wider\network access"): unlike in its sister archives, the letter n
    # behind it belongs to the next word.
    return text.replace("\\", " ").strip()


_TITLE_CONTENT = ("title", "content")
FORMS: Mapping[str, ZhangForm] = {
    "ag_news": ZhangForm(
        "ag_news_csv",
        ("title", "description"),
        ("World", "Sports", "Business", "Sci/Tech"),
        " - ",
        clean=_without_backslashes,
    ),
    "yahoo": ZhangForm(
        "yahoo_answers_csv",
        ("title", "question", "best answer"),
        (
            "Society & Culture",
            "Science & Mathematics",
            "Health",
            "Education & Reference",
            "Computers & Internet",
            "Sports",
            "Business & Finance",
            "Entertainment & Music",
            "Family & Relationships",
            "Politics & Government",
        ),
        has_pair=True,
    ),
    "dbpedia": ZhangForm(
        "dbpedia_csv",
        ("title", "abstract"),
        (
            "Company",
            "EducationalInstitution",
            "Artist",
            "Athlete",
            "OfficeHolder",
            "MeanOfTransportation",
            "Building",
            "NaturalPlace",
            "Village",
            "Animal",
            "Plant",
            "Album",
            "Film",
            "WrittenWork",
        ),
    ),
    "yelp_polarity": ZhangForm("yelp_review_polarity_csv", ("text",), ("negative", "positive")),
    "yelp_full": ZhangForm("yelp_review_full_csv", ("text",), ("1 star", "2 stars", "3 stars", "4 stars", "5 stars")),
    "sogou_pinyin": ZhangForm(
        "sogou_news_csv", _TITLE_CONTENT, ("sports", "finance", "entertainment", "automobile", "technology")
    ),
    # A blank line ends a sentence: Chinese titles have no stop. It makes no token.
    "sogou": ZhangForm("sogou_csv", _TITLE_CONTENT, (), "\n\n"),
}
SOGOU_CLASSES = ("sports", "house", "business", "entertainment", "women", "technology")
"""The paper's six; a file may name them, or number them from 0 or from 1."""


def open_zhang(name: str, path: str | None, fetch: Fetch) -> Dataset:
    """One of FORMS from its archive, a folder with train.csv and test.csv (sogou: or .tsv), or downloaded."""
    form = FORMS[name]
    if path is None:
        sources = _fetched(name, form, fetch)
    else:
        sources = _local(name, form, existing(path, _expected(name, form)))

    def read(split: str, log: ReadLog) -> Iterator[Row]:
        return _read(name, form, sources[split], log)

    files = {
        split: [source.archive if isinstance(source, ArchiveMember) else source] for split, source in sources.items()
    }
    return Dataset(name, 1, files, read, form.labels or None)


def _fetched(name: str, form: ZhangForm, fetch: Fetch) -> dict[str, Source]:
    if name == "ag_news":  # offered as single files
        return {split: fetch(name, file) for split, file in _FILES.items()}
    archive = fetch(name, f"{form.folder}.tgz")
    return {split: ArchiveMember(archive, file) for split, file in _FILES.items()}


def _local(name: str, form: ZhangForm, place: Path) -> dict[str, Source]:
    if place.is_file() and place.name.endswith(ARCHIVE_SUFFIXES):
        return {split: ArchiveMember(place, file) for split, file in _FILES.items()}
    folder = place if place.is_dir() else place.parent
    names: dict[str, Sequence[str]] = {split: (file,) for split, file in _FILES.items()}
    if name == "sogou":
        names = {split: (*names[split], *TAB_NAMES[split]) for split in names}
    for each in (folder, folder / form.folder):
        found = {split: find_one(each, choices) for split, choices in names.items()}
        files: dict[str, Source] = {split: file for split, file in found.items() if file is not None}
        if len(files) == len(names):
            return files
    archives = [folder / f"{form.folder}{suffix}" for suffix in ARCHIVE_SUFFIXES]
    for archive in archives:
        if archive.is_file():
            return {split: ArchiveMember(archive, file) for split, file in _FILES.items()}
    missing = [" or ".join(choices) for choices in names.values() if find_one(folder, choices) is None]
    raise DataError(
        f"data.path: {folder} lacks {', '.join(missing)}; it holds {list_folder(folder)}",
        f"set data.path to {_expected(name, form)}",
    )


def _expected(name: str, form: ZhangForm) -> str:
    tab = " (or train.tsv and test.tsv)" if name == "sogou" else ""
    return f"{form.folder}.tgz, or a folder with train.csv and test.csv{tab}"


def _read(name: str, form: ZhangForm, source: Source, log: ReadLog) -> Iterator[Row]:
    if isinstance(source, Path) and source.suffix != ".csv":
        yield from _read_tabs(source, log)
        return
    label_of = _sogou_label() if not form.labels else _numbered(form.labels)
    allowed = _allowed(form.labels)
    width = len(form.columns) + 1
    for line, fields in read_records(source, "utf-8", log):
        if len(fields) != width:
            wanted = f"{width}: {', '.join(('class', *form.columns))}"
            log.bad_row(source.name, line, f"{len(fields)} columns", ",".join(fields), wanted)
            continue
        label = label_of(fields[0])
        if label is None:
            log.bad_row(source.name, line, "label out of range", fields[0], allowed)
            continue
        row = _row(form, [form.clean(field) for field in fields[1:]], label, source.name, line)
        if log.good_text(whole_text(row), source.name, line, _english_list(form.columns)):
            yield row


def _row(form: ZhangForm, parts: list[str], label: int | str, file: str, line: int) -> Row:
    pair = parts.pop() if form.has_pair else None
    return Row(form.joint.join(part for part in parts if part), pair, label, file, line)


def _read_tabs(path: Path, log: ReadLog) -> Iterator[Row]:
    label_of = _sogou_label()
    seen: list[str] = []  # read_tab_form counts classes, and these are named as the file has them

    def number_of(written: str) -> int | None:
        label = label_of(written)
        if label is None:
            return None
        if label not in seen:
            seen.append(label)
        return seen.index(label)

    for row in read_tab_form(path, "utf-8", number_of, _allowed(()), log):
        yield row._replace(label=seen[int(row.label or 0)])


def _numbered(labels: tuple[str, ...]) -> Callable[[str], int | None]:
    numbers = {str(number): number - 1 for number in range(1, len(labels) + 1)}
    return numbers.get


def _sogou_label() -> Callable[[str], str | None]:
    """Labels as they are written, as long as they are one of six: names, or numbers from 0 or from 1, whichever comes first."""
    seen: set[str] = set()

    def label(written: str) -> str | None:
        text = written.strip()
        if text not in (*SOGOU_CLASSES, *"0123456") or (text in ("0", "6") and {"0", "6"} - {text} <= seen):
            return None
        seen.add(text)
        return text

    return label


def _allowed(labels: tuple[str, ...]) -> str:
    if not labels:
        return f"0 to 5, 1 to 6, or {', '.join(SOGOU_CLASSES)}"
    if len(labels) > _MOST_LABELS_SHOWN:
        return f"1 to {len(labels)}"
    return ", ".join(f"{number} {label}" for number, label in enumerate(labels, start=1))


def _english_list(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
