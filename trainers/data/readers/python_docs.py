"""A text classification data set that every machine has: the docstrings of Python's standard library, by area of the library.

The sources are parsed, never imported. Each docstring of a module, class or function is a document; its label is the area of
the top-level module it stands in. Modules that some systems leave out (tkinter, idlelib, test suites) or that newer versions
dropped (distutils, lib2to3) are not used, so that versions differ little. Signatures and doctest examples are removed; texts
are deduplicated by their words, and those that stand in two areas are dropped. The split depends on the hash of the text alone.

Names of modules and classes stay in the texts, as they would in any text about them, and give some labels away.
"""

from __future__ import annotations

import ast
import hashlib
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from configs.errors import DataError
from trainers.data.readers.base import Dataset, ReadLog, Row

MIN_WORDS = 6
TEST_PERCENT = 15
_AREAS = {
    "concurrency": """asyncio multiprocessing threading _threading_local concurrent queue selectors sched contextvars subprocess
        signal _weakrefset asyncore asynchat""",
    "files": """os pathlib shutil tarfile zipfile tempfile posixpath ntpath genericpath glob fnmatch fileinput filecmp gzip bz2 lzma
        _compression compression stat pty tty io _pyio dbm shelve sqlite3 pipes nturl2path linecache platform sysconfig _osx_support
        _aix_support _bootsubprocess ctypes curses getpass mmap wave sunau aifc chunk sndhdr imghdr""",
    "internet": """http urllib socket ssl socketserver ftplib telnetlib nntplib xmlrpc wsgiref ipaddress cgi webbrowser uuid netrc
        hmac hashlib secrets crypt""",
    "language": """typing inspect ast functools contextlib types enum abc _py_abc dataclasses importlib symtable dis opcode pickle
        pickletools copy copyreg weakref warnings tokenize token keyword codeop code collections _collections_abc pkgutil imp
        zipimport runpy modulefinder operator graphlib reprlib site __future__ annotationlib""",
    "mail": "email mailbox mailcap mimetypes smtplib smtpd imaplib poplib quopri uu base64",
    "numbers": """decimal _pydecimal statistics random numbers fractions datetime _pydatetime calendar zoneinfo _strptime colorsys
        heapq bisect time""",
    "text": """xml html json csv configparser plistlib difflib textwrap re sre_parse sre_compile string codecs encodings gettext
        locale pprint tomllib shlex stringprep _markupbase xdrlib""",
    "tools": """unittest doctest pdb bdb pydoc logging traceback argparse optparse getopt cmd trace tracemalloc timeit profile cProfile
        pstats venv ensurepip zipapp compileall py_compile rlcompleter pyclbr tabnanny cgitb _pyrepl""",
}
LABELS = tuple(sorted(_AREAS))
_AREA_OF_MODULE = {module: LABELS.index(area) for area, modules in _AREAS.items() for module in modules.split()}
_SKIPPED_FOLDERS = frozenset(
    {"test", "tests", "idle_test", "_bundled", "__pycache__", "site-packages", "dist-packages"}
)
_SIGNATURE = re.compile(r"^[\w.]+\([^\n]*\)[ \t]*(?:->[^\n]*|:)?[ \t]*(?:\n|$)")
_WORDS = re.compile(r"\w+")
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def open_python_docs(path: str | None) -> Dataset:
    """The docstrings of the running Python's standard library, or of the library in the folder `path`."""
    root = Path(path).expanduser() if path is not None else Path(sysconfig.get_paths()["stdlib"])
    files = _source_files(root)
    if not files:
        raise DataError(
            f"{root}: no sources of Python's standard library",
            "set data.path to a folder lib/python3.X of any Python 3",
        )

    parsed: list[Row] = []  # both splits come from one pass over the sources

    def read(split: str, log: ReadLog) -> Iterator[Row]:
        if not parsed:
            parsed.extend(_deduplicated(root, files, log))
        return (row for row in parsed if (split == "test") == _is_test(row.text))

    # the parser decides what a docstring is, so the Python version belongs to the key
    options = {"python": ".".join(map(str, sys.version_info[:2])), "min_words": MIN_WORDS, "areas": _AREAS}
    return Dataset("python_docs", 1, {"train": files, "test": files}, read, LABELS, root, options)


def area_of(relative: Path) -> int | None:
    """The label of a source file by its path below the library's folder; None when it is not used."""
    if _SKIPPED_FOLDERS & set(relative.parts):
        return None
    return _AREA_OF_MODULE.get(relative.parts[0].removesuffix(".py"))


def clean_docstring(text: str) -> str:
    """A docstring's prose: without a leading signature and without doctest examples and their output."""
    text = _SIGNATURE.sub("", text.strip(), count=1)
    kept: list[str] = []
    in_example = False
    for line in text.split("\n"):
        stripped = line.strip()
        if stripped.startswith(">>>"):
            in_example = True
        elif not stripped:
            in_example = False
        if not in_example:
            kept.append(line)
    paragraphs = re.split(r"\n[ \t]*\n", "\n".join(kept))
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs if paragraph.strip())


def _source_files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*.py") if area_of(path.relative_to(root)) is not None)


def _deduplicated(root: Path, files: list[Path], log: ReadLog) -> list[Row]:
    """The documents in the order of the sources; of equal texts the first, none of those in several areas."""
    first: dict[str, Row] = {}
    ambiguous: set[str] = set()
    for path in files:
        log.advance(path.stat().st_size)
        for row in _documents(root, path):
            words = _WORDS.findall(row.text.lower())
            if len(words) < MIN_WORDS:
                continue
            key = " ".join(words)
            if first.setdefault(key, row).label != row.label:
                ambiguous.add(key)
    return [row for key, row in first.items() if key not in ambiguous]


def _documents(root: Path, path: Path) -> Iterator[Row]:
    relative = path.relative_to(root)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in old sources
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return  # a template or a file for another version: no documents in it
    label = area_of(relative)
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED):
            text = clean_docstring(ast.get_docstring(node) or "")
            if text and "\0" not in text and _encodable(text):
                yield Row(text, None, label, relative.as_posix(), getattr(node, "lineno", 1))


def _encodable(text: str) -> bool:
    return text.isascii() or not any(0xD800 <= ord(char) <= 0xDFFF for char in text)


def _is_test(text: str) -> bool:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:4], "big") % 100 < TEST_PERCENT
