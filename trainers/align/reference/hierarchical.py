"""The paper's hierarchical reading of long texts (Sun et al. 2019, section 5.1), one text after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from trainers.align.reference.batches import flat_tokens, fraction_rows, pad

Arrays = dict[str, np.ndarray]
KINDS = ("mean", "max", "attention")


class Attention(nn.Module):
    """sum of a_i h_i with a = softmax(u_i . context), u_i = tanh(W h_i + b) (Yang et al. 2016, equations 5 to 7)."""

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        super().__init__()
        matrix = weights["fractions.attention.dense.weight"]
        self.dense = nn.Linear(matrix.shape[1], matrix.shape[0])
        self.context = nn.Parameter(weights["fractions.attention.context"].clone())
        with torch.no_grad():
            self.dense.weight.copy_(matrix)
            self.dense.bias.copy_(weights["fractions.attention.dense.bias"])

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """[fractions, H] -> [H]."""
        scores = torch.stack([torch.dot(torch.tanh(self.dense(each)), self.context[:, 0]) for each in h])
        shares = scores.exp() / scores.exp().sum()
        return sum(share * each for share, each in zip(shares, h, strict=True))


class HierarchicalClassifier(nn.Module):
    """The pooled outputs of a text's fractions combined, then the classifier."""

    def __init__(self, model: Any, kind: str, weights: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.kind = kind
        self.bert = model.bert
        self.classifier = model.classifier
        if kind == "attention":
            self.fractions = nn.ModuleDict({"attention": Attention(weights)})

    def forward(self, case: dict[str, Any], numbers: list[int]) -> torch.Tensor:
        """Logits of texts by row number: [texts, classes]."""
        return torch.stack([self.classifier(self.combined(case, number)) for number in numbers])

    def combined(self, case: dict[str, Any], number: int) -> torch.Tensor:
        """[H]."""
        h = self.bert(**pad(case, fraction_rows(case, number))).pooler_output
        if self.kind == "mean":
            return h.sum(dim=0) / len(h)
        if self.kind == "max":
            return h.max(dim=0).values
        combined: torch.Tensor = self.fractions["attention"](h)
        return combined


@torch.no_grad()
def forward_hierarchical(model: Any, case: dict[str, Any], weights: dict[str, torch.Tensor]) -> Arrays:
    """Ids and types of the first batch, and its logits with each way to combine fractions."""
    numbers = case["finetune"]["order"][0]
    rows = [row for number in numbers for row in fraction_rows(case, number)]
    logits = {
        f"logits {kind}/classes": HierarchicalClassifier(model, kind, weights)(case, numbers).numpy() for kind in KINDS
    }
    return {"token layout/ids and types": flat_tokens(rows), **logits}
