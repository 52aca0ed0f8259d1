"""Token ids by Transformers' tokenizers, and the cuts of section 5.1 of the paper (Sun et al. 2019) as literal loops."""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers import BertTokenizerFast

Arrays = dict[str, np.ndarray]


def compute_text(spec: dict[str, Any]) -> Arrays:
    """Ids of every text, lower-cased and not; single texts and pairs cut in every way, with special tokens and types."""
    lower, cased = load_tokenizer(spec["vocab"], True), load_tokenizer(spec["vocab"], False)
    results: Arrays = {}
    for number, each in enumerate(spec["texts"]):
        results[f"ids lower-cased/text {number:02d}"] = np.array(plain_ids(lower, each), dtype=np.int64)
        results[f"ids cased/text {number:02d}"] = np.array(plain_ids(cased, each), dtype=np.int64)
    long = plain_ids(lower, spec["long_text"])
    for name, cut in spec["cuts"].items():
        kept = cut_single(long, cut["max_length"] - 2, cut["head"], cut["tail"])
        results[f"cuts/{name}"] = assemble(lower, kept, None)
    for length in spec["short_lengths"]:  # around the limit, where an error of one shows
        kept = cut_single(long[:length], 62, 20, None)
        results[f"cuts/{length} tokens, limit 64"] = assemble(lower, kept, None)
    for length_a, length_b in spec["pair_lengths"]:
        a, b = cut_pair(long[:length_a], long[-length_b:], 61)
        results[f"pairs/{length_a} + {length_b} tokens, limit 64"] = assemble(lower, a, b)
    for number, (first, second) in enumerate(spec["pairs"]):
        encoded = lower(first, second)
        both = np.stack([encoded["input_ids"], encoded["token_type_ids"]])
        results[f"pairs/texts {number:02d}"] = both.astype(np.int64)
    return results


def load_tokenizer(vocab: str, lower_case: bool) -> Any:
    """BERT's tokenizer of a vocab.txt."""
    return BertTokenizerFast(vocab=read_vocab(vocab), do_lower_case=lower_case)


def read_vocab(path: str) -> dict[str, int]:
    """Token to id: one token per line."""
    with open(path, encoding="utf-8", newline="\n") as file:
        return {line.rstrip("\r\n"): index for index, line in enumerate(file)}


def plain_ids(tokenizer: Any, text: str) -> list[int]:
    """Ids without special tokens."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def cut_single(ids: list[int], room: int, head: int | None, tail: int | None) -> list[int]:
    """Head only, tail only, or the first k and the last room - k tokens of a text that is longer than `room`."""
    if len(ids) <= room:
        return list(ids)
    num_head = head if head is not None else room - (tail or 0)
    num_tail = room - num_head
    return [*ids[:num_head], *(ids[-num_tail:] if num_tail else [])]


def cut_pair(a: list[int], b: list[int], room: int) -> tuple[list[int], list[int]]:
    """Take the last token of the longer text (the second, when they are equal) until both fit."""
    a, b = list(a), list(b)
    while len(a) + len(b) > room:
        (a if len(a) > len(b) else b).pop()
    return a, b


def assemble(tokenizer: Any, a: list[int], b: list[int] | None) -> np.ndarray:
    """[2, tokens]: ids and types of [CLS] a [SEP] or [CLS] a [SEP] b [SEP]."""
    ids, types = with_special(tokenizer.cls_token_id, tokenizer.sep_token_id, a, b)
    return np.array([ids, types], dtype=np.int64)


def with_special(cls: int, sep: int, a: list[int], b: list[int] | None) -> tuple[list[int], list[int]]:
    """Ids and token types with [CLS] and [SEP] around the texts."""
    ids = [cls, *a, sep]
    types = [0] * len(ids)
    if b is not None:
        ids += [*b, sep]
        types += [1] * (len(b) + 1)
    return ids, types
