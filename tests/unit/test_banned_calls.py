"""Calls that SECURITY.md rules out are nowhere in the source: unpickling, shells, code from data, listening everywhere."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("cluster", "configs", "launcher", "trainers")
MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "pty", "commands"}
CALLS = {
    *("eval", "exec", "compile", "__import__"),
    *("os.system", "os.popen", "os.execl", "os.spawnl", "tempfile.mktemp"),
    *("subprocess.getoutput", "subprocess.getstatusoutput", "asyncio.create_subprocess_shell"),
    *("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "yaml.unsafe_load_all"),
    *("paddle.load", "paddle.save", "torch.load", "torch.save", "torch.jit.load", "np.fromregex"),
    *("ssl._create_unverified_context", "shutil.unpack_archive"),
}
METHODS = {"extractall"}
KEYWORDS = {("shell", True), ("allow_pickle", True), ("verify", False)}
TEXTS = ("0.0.0.0", "killall", "pkill")


def faults(source: str) -> Iterator[str]:
    """What is banned in a file's source, as `line: what`."""
    tree = ast.parse(source)
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"{line}: import {name}" for name in names if name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in CALLS or (isinstance(node.func, ast.Attribute) and node.func.attr in METHODS):
                yield f"{line}: {called}()"
            for keyword in node.keywords:
                if isinstance(keyword.value, ast.Constant) and (keyword.arg, keyword.value.value) in KEYWORDS:
                    yield f"{line}: {keyword.arg}={keyword.value.value!r}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield from (f"{line}: {text!r}" for text in TEXTS if text in node.value)


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_banned_call(folder: str) -> None:
    paths = sorted((ROOT / folder).rglob("*.py"))
    assert paths
    found = {path.relative_to(ROOT).as_posix(): list(faults(path.read_text(encoding="utf-8"))) for path in paths}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize("path", ["run.sh", ".ci/run"])
def test_no_banned_word_in_scripts(path: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    assert not [word for word in (*TEXTS, "eval ", "curl ", "wget ") if word in text]


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "import os; os.system(x)",
        "eval(x)",
        "subprocess.run(x, shell=True)",
        "np.load(x, allow_pickle=True)",
        "paddle.load(x)",
        "yaml.load(x, y)",
        "tar.extractall(x)",
        "tempfile.mktemp()",
        "server.bind(('0.0.0.0', 1))",
        "run(['pkill', name])",
        "requests.get(x, verify=False)",
    ],
)
def test_each_of_them_would_be_seen(line: str) -> None:
    assert len(list(faults(line))) == 1


def test_words_in_documentation_and_other_calls_are_no_fault() -> None:
    assert list(faults('"""Listens never on 0.0.0.0."""\nre.compile(x)\nnp.load(x)\nsubprocess.run([x])\n')) == []
