"""Splitting running text into sentences by rule: English . ! ? with abbreviations, Chinese 。？！."""

from __future__ import annotations

import re
from itertools import pairwise

VERSION = 1
"""Part of the cache key of corpora: raise it when the rules change."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_TITLES = _words(
    "mr mrs ms dr prof rev gen sen rep gov capt lt col sgt st hon messrs vs eg ie e.g i.e cf viz"  # never end a sentence
)
_BEFORE_NUMBERS = _words("no nos vol vols p pp pg fig figs ch sec art")
_ABBREVIATIONS = _words(
    """jan feb mar apr jun jul aug sep sept oct nov dec inc ltd co corp bros dept est assn univ jr sr etc al approx
    ave blvd rd mt a.m p.m u.s u.k u.n ph.d b.a m.a d.c l.a n.y"""
)
_STARTERS = _words(
    "the a an this that these those it he she they we you i in on at but and so if when while there his her"
)
_PARAGRAPH = re.compile(r"\n[ \t]*\n")
_ENGLISH_END = re.compile(r"(?P<stop>[.!?]+|…)[\"')\]”’»]*(?=\s)")
_CHINESE_END = re.compile(r"[。？！]+[”’」』）\"']*")
_OPENS_SENTENCE = re.compile(r"\s+[\"'(\[“‘«]*(?P<first>\w|[^\w\s])")
_WORD = re.compile(r"\w+")
_LAST_WORD = re.compile(r"[^\s(\[\"'“]*$")


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, white space normalised, none empty. A blank line always ends a sentence."""
    found: list[str] = []
    for paragraph in _PARAGRAPH.split(text):
        for line in _cut_chinese(" ".join(paragraph.split())):
            found.extend(_cut_english(line))
    return [sentence for sentence in found if sentence]


def _cut_chinese(text: str) -> list[str]:
    ends = [match.end() for match in _CHINESE_END.finditer(text)]
    return _slices(text, ends)


def _cut_english(text: str) -> list[str]:
    ends = [match.end() for match in _ENGLISH_END.finditer(text) if _ends_sentence(text, match)]
    return _slices(text, ends)


def _slices(text: str, ends: list[int]) -> list[str]:
    bounds = [0, *ends, len(text)]
    return [text[start:end].strip() for start, end in pairwise(bounds)]


def _ends_sentence(text: str, match: re.Match[str]) -> bool:
    following = _OPENS_SENTENCE.match(text, match.end())
    if following is None:
        return True
    if following.group("first").islower():
        return False
    if match.group("stop") != ".":
        return True
    word = _LAST_WORD.search(text, max(0, match.start() - 40), match.start())
    last = word.group().lower() if word else ""
    if last in _TITLES or (len(last) == 1 and last.isalpha() and last not in "ip"):
        return False  # one letter is an initial: "J. Smith"
    next_word = _WORD.match(text, following.end() - 1)
    upcoming = next_word.group().lower() if next_word else ""
    if last in _BEFORE_NUMBERS:
        return not upcoming[:1].isdigit()
    return last not in _ABBREVIATIONS or upcoming in _STARTERS
