"""Sentence splitting by rule."""

from __future__ import annotations

import pytest

from trainers.data.sentences import split_sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One film. Two films! Three? Yes.", ["One film.", "Two films!", "Three?", "Yes."]),
        (
            "Mr. Smith met Dr. J. K. Brown at 3.30 p.m. He paid $4.50.",
            ["Mr. Smith met Dr. J. K. Brown at 3.30 p.m.", "He paid $4.50."],
        ),
        ("Cats, e.g. Tom, i.e. Thomas, etc. run.", ["Cats, e.g. Tom, i.e. Thomas, etc. run."]),
        ('He said "No." Then he left.', ['He said "No."', "Then he left."]),
        ("He said no. The dog left. See no. 5 there.", ["He said no.", "The dog left.", "See no. 5 there."]),
        ("Wait... what? (Really.) Fine", ["Wait... what?", "(Really.)", "Fine"]),
        ("U.S. officials came. The U.S. The end.", ["U.S. officials came.", "The U.S.", "The end."]),
        ("a  line\nbroken here\n\nnext paragraph", ["a line broken here", "next paragraph"]),
        ("他说：“你好。”我走了！真的吗？是的", ["他说：“你好。”", "我走了！", "真的吗？", "是的"]),
        ("", []),
        (" \n\n ", []),
    ],
)
def test_sentences(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences


def test_no_word_is_lost_or_doubled() -> None:
    text = 'A. b C! d?e F... "G" (h. I) j. K.L. M 1.5 2. 3 \u2026 N 。O！P ？ Q.' * 20
    assert "".join("".join(split_sentences(text)).split()) == "".join(text.split())
