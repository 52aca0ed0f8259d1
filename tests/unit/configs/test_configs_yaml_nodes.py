"""The YAML subset: every trap of PyYAML, the limits, and the places of errors, on real files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from configs.yaml_nodes import MAX_ALIASES, MAX_BYTES, MAX_DEPTH, Mark, YamlError, parse, read_file


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 0.0001),
        ("5e-05", 0.00005),
        ("2E5", 200000.0),
        ("1.5e+3", 1500.0),
        (".5", 0.5),
        ("3.", 3.0),
        ("-0.25", -0.25),
        ("+7", 7),
        ("0", 0),
        ("-12", -12),
        ("9223372036854775807", 2**63 - 1),
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("'null'", "null"),
        ("'5'", "5"),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("off", "off"),
        ("True", "True"),
        ("FALSE", "FALSE"),
        ("Null", "Null"),
        ("12:30", "12:30"),
        ("1:30:45", "1:30:45"),
        ("190:20:30.15", "190:20:30.15"),
        ("010", "010"),
        ("0o10", "0o10"),
        ("0x1F", "0x1F"),
        ("0b11", "0b11"),
        ("1_000", "1_000"),
        ("2024-01-31", "2024-01-31"),
        ("=", "="),
        ("O1", "O1"),
        ("1e-4x", "1e-4x"),
        ("e5", "e5"),
        (".", "."),
        ("[1, 2e-5, no]", [1, 2e-5, "no"]),
        ("{a: 1}", {"a": 1}),
    ],
)
def test_scalar_is_read_as_what_it_looks_like(text: str, value: object) -> None:
    read = parse(f"key: {text}").value["key"]
    assert read == value
    assert type(read) is type(value)


def test_infinity_and_nan_are_numbers() -> None:
    value = parse("[.inf, -.inf, .nan]").value
    assert value[:2] == [math.inf, -math.inf]
    assert math.isnan(value[2])


@pytest.mark.parametrize("key", ["no", "010", "1e-4", "null", "true", "12:30"])
def test_keys_are_always_text(key: str) -> None:
    assert parse(f"{key}: 1").value == {key: 1}


def test_duplicate_key_names_both_lines_and_the_rest_is_read() -> None:
    document = parse("a: 1\nb:\n  lr: 1\n  x: 2\n  lr: 3\nc: 4\n")
    assert [(fault.line, fault.path) for fault in document.faults] == [(5, ("b", "lr"))]
    assert "lines 3 and 5" in document.faults[0].message
    assert document.value == {"a": 1, "b": {"lr": 1, "x": 2}, "c": 4}


def test_merge_key_is_refused_and_aliases_are_copies() -> None:
    document = parse("a: &x {p: 1}\nb: *x\nc:\n  <<: *x\n")
    assert [(fault.line, fault.path) for fault in document.faults] == [(4, ("c",))]
    document.value["a"]["p"] = 2
    assert document.value["b"] == {"p": 1}


def test_lines_of_keys_and_list_items() -> None:
    text = "# comment\na: 1e-4\n\nb:\n  c: {d: x,\n      e: 2}\n  f:\n    - one\n    - two\n"
    marks = parse(text).marks
    lines = {path: mark.line for path, mark in marks.items() if path}
    assert lines == {
        ("a",): 2, ("b",): 4, ("b", "c"): 5, ("b", "c", "d"): 5, ("b", "c", "e"): 6,
        ("b", "f"): 7, ("b", "f", 0): 8, ("b", "f", 1): 9,
    }  # fmt: skip
    assert marks[("a",)] == Mark(2, "1e-4")


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("a: !!python/object/apply:os.system [ls]", 1, 4, "tags are not allowed"),
        ("a: !!str 5", 1, 4, "tags are not allowed"),
        ("a: !env HOME", 1, 4, "tags are not allowed"),
        ("a:\n\tb: 1", 2, 1, "a tab cannot indent"),
        ("a: 1\nb: c: d", 2, 5, "second ': '"),
        ("a: 1\n  b: 2", 2, 4, "mend the indentation"),
        ("a:\n  b: 1\n c: 2", 3, 2, "wrong indentation"),
        ("a: 'x", 1, 6, "never closed"),
        ("a: [1, 2", 1, 9, "closing bracket"),
        ("a: {b: 1", 1, 9, "closing bracket"),
        ("a: 1\nword\n", 3, 1, "a line without 'key: value'"),
        ("a: @x", 1, 4, "put the value in quotes"),
        ("a: *b", 1, 4, "without an anchor"),
        ("a: 1\n---\nb: 2", 2, 1, "second document"),
        ("a: 1\nb: \x07", 2, 4, "U+0007"),
        ("a: &a [*a]", 1, 1, "nested deeper"),
    ],
)
def test_syntax_error_names_line_and_column(text: str, line: int, column: int, words: str) -> None:
    with pytest.raises(YamlError) as caught:
        parse(text)
    assert words in caught.value.message
    assert (caught.value.line, caught.value.column) == (line, column)


def test_depth_is_bounded() -> None:
    assert parse("[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)).faults == []
    for text in ("[" * 100_000, "{a: " * 100_000):
        with pytest.raises(YamlError, match="nested deeper than 20"):
            parse(text)


def test_alias_bomb_is_refused() -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    with pytest.raises(YamlError, match="expanding aliases"):
        parse("\n".join(levels))
    with pytest.raises(YamlError, match=f"more than {MAX_ALIASES} aliases"):
        parse("a: &a 1\nb: [" + ", ".join(["*a"] * (MAX_ALIASES + 1)) + "]")


@pytest.mark.parametrize("digits", ["9" * 19, "9" * 5000, "-" + "9" * 30])
def test_huge_integer_is_a_fault_with_its_line(digits: str) -> None:
    document = parse(f"a: 1\nb: {digits}")
    assert [(fault.line, fault.path) for fault in document.faults] == [(2, ("b",))]
    assert "digits" in document.faults[0].message


def test_list_as_key_is_a_fault() -> None:
    document = parse("a: 1\n? [x]\n: 2\n")
    assert [fault.line for fault in document.faults] == [2]


@pytest.mark.parametrize(
    ("data", "line", "words"),
    [
        (b"", 0, "empty"),
        (b"# only a comment\n", 0, "empty"),
        (b"- a\n- b\n", 1, "a list"),
        (b"just words\n", 1, "a single value"),
        (b"PK\x03\x04\x00\x00", 0, "binary"),
        ("a: ä\n".encode("utf-16"), 0, "UTF-16"),
        (b"a: 1\nb: \xe4\n", 2, "0xe4 is not UTF-8"),
        (b"a: 1\n" + b"#" * MAX_BYTES, 0, "larger than"),
    ],
)
def test_unusable_file_is_explained(tmp_path: Path, data: bytes, line: int, words: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(data)
    with pytest.raises(YamlError) as caught:
        read_file(path)
    assert words in caught.value.message
    assert caught.value.line == line


def test_directory_is_explained(tmp_path: Path) -> None:
    with pytest.raises(YamlError, match="is a directory"):
        read_file(tmp_path)


@pytest.mark.parametrize("data", [b"\xef\xbb\xbfa: 1\nb: 2\n", b"a: 1\r\nb: 2\r\n", b"a: 1\nb: 2"])
def test_byte_order_mark_and_line_ends_do_not_matter(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(data)
    document = read_file(path)
    value: Any = document.value
    assert value == {"a": 1, "b": 2}
    assert document.marks[("b",)].line == 2
