"""The steps of a stage in torch: losses, gradients, clipping, optimizer, schedule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from trainers.align.reference.batches import IGNORED, instance_rows, mlm_labels, next_labels, pad, text_rows
from trainers.align.reference.bert_adam import BertAdam
from trainers.align.reference.rates import make_groups, make_schedule

Arrays = dict[str, np.ndarray]


def classification_losses(model: Any, case: dict[str, Any], numbers: list[int]) -> dict[str, torch.Tensor]:
    """Mean cross-entropy over the texts of a global batch."""
    labels = torch.tensor([case["finetune"]["labels"][number] for number in numbers])
    return {"classification": model(**pad(case, text_rows(case, numbers)), labels=labels).loss}


def pretraining_losses(model: Any, case: dict[str, Any], instances: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Mean over the predicted positions of the global batch, and mean over its pairs."""
    batch = pad(case, instance_rows(case, instances))
    output = model(**batch)
    labels = mlm_labels(case, instances, batch["input_ids"].shape)
    mlm = F.cross_entropy(output.prediction_logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
    return {"mlm": mlm, "nsp": F.cross_entropy(output.seq_relationship_logits, next_labels(instances))}


def hierarchical_losses(model: Any, case: dict[str, Any], numbers: list[int]) -> dict[str, torch.Tensor]:
    """Mean cross-entropy over the texts of a global batch, each read in fractions."""
    labels = torch.tensor([case["finetune"]["labels"][number] for number in numbers])
    return {"classification": F.cross_entropy(model(case, numbers), labels)}


def freeze_encoder(model: nn.Module) -> None:
    """Embeddings and encoder blocks are not trained; pooler and classifier are."""
    for name, parameter in model.named_parameters():
        if name.startswith(("bert.embeddings.", "bert.encoder.")):
            parameter.requires_grad_(False)


def make_step(named: list[tuple[str, nn.Parameter]], num_layers: int, settings: dict[str, Any]) -> Callable[[], float]:
    """One optimizer step; returns the norm of all gradients together, before clipping."""
    groups = make_groups(named, num_layers, settings)
    parameters = [parameter for _, parameter in named]
    betas = (settings["adam_beta1"], settings["adam_beta2"])

    if settings["original_optimizer"]:
        original = BertAdam(groups, settings)

        def original_step() -> float:
            norm = float(torch.stack([parameter.grad.norm() for parameter in parameters]).norm())
            original.step()
            return norm

        return original_step

    optimizer = torch.optim.AdamW(groups, betas=betas, eps=settings["adam_eps"])
    schedule = make_schedule(optimizer, settings)

    def step() -> float:
        norm = float(nn.utils.clip_grad_norm_(parameters, settings["clip"]))
        optimizer.step()
        schedule.step()
        return norm

    return step


def train(model: nn.Module, case: dict[str, Any], settings: dict[str, Any], losses: Any) -> Arrays:
    """The steps of a stage: losses and norms of each, gradients of the first, weights after the steps asked for, frozen weights."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    take_step = make_step(named, case["num_layers"], settings)
    results: Arrays = {}
    norms: list[float] = []
    curves: dict[str, list[float]] = {}
    for step, batch in enumerate(settings["order"], start=1):
        terms = losses(model, case, batch)
        model.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        if step == 1:
            results |= {f"gradients/{name}": parameter.grad.numpy().copy() for name, parameter in named}
        norms.append(take_step())
        for name, term in terms.items():
            curves.setdefault(name, []).append(term.item())
        if step in settings["compared_steps"]:
            results |= {f"weights {step}/{name}": parameter.detach().numpy().copy() for name, parameter in named}
    results |= {f"loss/{name}": np.array(curve) for name, curve in curves.items()}
    results["gradient norm/all steps"] = np.array(norms)
    frozen = {name: parameter for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return results | {f"frozen/{name}": parameter.numpy() for name, parameter in frozen.items()}
