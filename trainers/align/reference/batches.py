"""Batches as padded rectangles: texts, their fractions, and masked pairs, from token ids without special tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from trainers.align.reference.text import cut_pair, cut_single, with_special

Row = tuple[list[int], list[int]]
IGNORED = -100


def text_rows(case: dict[str, Any], numbers: list[int]) -> list[Row]:
    """Ids and types of texts (by row number) as the classifier sees them: cut, with special tokens."""
    finetune, rows = case["finetune"], []
    for number in numbers:
        a, b = finetune["rows"][number]
        if b is None:
            a = cut_single(a, finetune["max_length"] - 2, finetune["head"], None)
        else:
            a, b = cut_pair(a, b, finetune["max_length"] - 3)
        rows.append(with_special(case["cls_id"], case["sep_id"], a, b))
    return rows


def instance_rows(case: dict[str, Any], instances: list[dict[str, Any]]) -> list[Row]:
    """Ids (masked) and types of pre-training instances."""
    rows = []
    for each in instances:
        ids, types = with_special(case["cls_id"], case["sep_id"], each["a"], each["b"])
        for position, replacement in zip(each["positions"], each["replacements"], strict=True):
            ids[position] = replacement
        rows.append((ids, types))
    return rows


def pad(case: dict[str, Any], rows: list[Row]) -> dict[str, torch.Tensor]:
    """A rectangle with [PAD] behind every row and an attention mask."""
    longest = max(len(ids) for ids, _ in rows)
    tensors = {
        "input_ids": torch.full((len(rows), longest), case["pad_id"], dtype=torch.long),
        "token_type_ids": torch.zeros((len(rows), longest), dtype=torch.long),
        "attention_mask": torch.zeros((len(rows), longest), dtype=torch.long),
    }
    for number, (ids, types) in enumerate(rows):
        tensors["input_ids"][number, : len(ids)] = torch.tensor(ids)
        tensors["token_type_ids"][number, : len(ids)] = torch.tensor(types)
        tensors["attention_mask"][number, : len(ids)] = 1
    return tensors


def mlm_labels(case: dict[str, Any], instances: list[dict[str, Any]], shape: Any) -> torch.Tensor:
    """[B, S]: the true id at predicted positions, IGNORED elsewhere."""
    labels = torch.full(shape, IGNORED, dtype=torch.long)
    for number, each in enumerate(instances):
        ids, _ = with_special(case["cls_id"], case["sep_id"], each["a"], each["b"])
        for position in each["positions"]:
            labels[number, position] = ids[position]
    return labels


def next_labels(instances: list[dict[str, Any]]) -> torch.Tensor:
    """BERT's labels: 0 where B continues A, 1 where it is random."""
    return torch.tensor([1 if each["is_random"] else 0 for each in instances])


def fraction_rows(case: dict[str, Any], number: int) -> list[Row]:
    """Section 5.1 of the paper: a text of n tokens as k = ceil(n / L) fractions of L = max_length - 2 tokens, the last one shorter."""
    ids, room = list(case["finetune"]["rows"][number][0]), case["finetune"]["max_length"] - 2
    rows = []
    while ids:
        rows.append(with_special(case["cls_id"], case["sep_id"], ids[:room], None))
        ids = ids[room:]
    return rows


def flat_tokens(rows: list[Row]) -> np.ndarray:
    """[2, T]: ids and types of all rows, end to end."""
    return np.array([[i for ids, _ in rows for i in ids], [t for _, types in rows for t in types]], dtype=np.int64)
