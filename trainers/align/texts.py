"""Texts that tell tokenisers apart, and words for texts of any length."""

from __future__ import annotations

import numpy as np

HARD_TEXTS = (
    "What is the capital of France ?",
    "How FAR is it from Denver to Aspen?",
    "It's a test: e-mail me at first.last@example.org, 24/7 (or don't)!",
    "Élan vital, naïve façade, Ångström, São Paulo, İstanbul, ﬁne ligatures, Straße",
    "combining: e\u0301 a\u030a n\u0303; free-standing: \u00b4 \u0301 `",
    "北京的天气很好。Mixed 漢字 and English、かな交じり文",
    "кириллица и ελληνικά και עברית و العربية हिन्दी ไทย",
    "tabs\tnew\nlines\r\nand\u00a0no-break\u2003em\u200bzero-width\ufeffmarks\u0000null\u0007bell\u00adsoft",
    "literal [CLS] and [SEP] and [MASK] and [UNK] and [PAD] tokens, [cls] in small letters",
    "emoji 😀👍🏽 and signs ™ © ½ ² № ‰ € ¥ ∑ → ≠",
    "hyphen-ated words, under_scores, CamelCaseWords, ALLCAPS, 3.14159, 1,000,000, $9.99, #tag @name",
    "quotes “curly” ‘single’ «guillemets» „low“ and dashes – — ―",
    "x" * 100 + " " + "y" * 101 + " " + "pneumonoultramicroscopicsilicovolcanoconiosis",
    "<br /><br />HTML &amp; entities stay <b>as they are</b>",
    "",
    "   leading and trailing spaces   ",
    "...!!!???;;;",
)
PAIRS = (
    ("What is it?", "It is a question."),
    ("A much longer first text, with İ and é, and so on", "short"),
    ("x", "北京 [SEP] y"),
)


def random_words(words: list[str], count: int, rng: np.random.Generator) -> str:
    """A text of `count` words."""
    return " ".join(words[index] for index in rng.integers(0, len(words), count))


def whole_words(tokens: list[str]) -> list[str]:
    """Vocabulary entries that are one token each when they stand alone: small letters only."""
    return [token for token in tokens if token.isascii() and token.isalpha() and token.islower() and len(token) > 1]
