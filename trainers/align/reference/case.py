"""One case of the alignment: a folder of weights, its batches, and everything that a forward pass and ten steps give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import BertConfig, BertForPreTraining, BertForSequenceClassification

from trainers.align.reference.batches import (
    IGNORED,
    flat_tokens,
    instance_rows,
    mlm_labels,
    next_labels,
    pad,
    text_rows,
)
from trainers.align.reference.hierarchical import HierarchicalClassifier, forward_hierarchical
from trainers.align.reference.training import (
    classification_losses,
    freeze_encoder,
    hierarchical_losses,
    pretraining_losses,
    train,
)

Arrays = dict[str, np.ndarray]


def compute_case(folder: Path, case: dict[str, Any]) -> dict[str, Arrays]:
    """All arrays of a case by task and key (`KIND/ITEM`)."""
    config = BertConfig.from_json_file(str(folder / "model" / "config.json"))
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    config.num_labels = case["finetune"]["num_classes"]
    config._attn_implementation = "eager"
    weights = load_file(str(folder / "model" / "model.safetensors"))
    classifier = load_model(BertForSequenceClassification, config, weights)
    pretrainer = load_model(BertForPreTraining, config, weights)
    heads = load_file(str(folder / "heads.safetensors"))
    with torch.no_grad():
        finetuning = {**forward_classifier(classifier, case, heads), **evaluate(classifier, case)}
        pretraining = forward_pretrainer(pretrainer, case)
    finetuning |= train(classifier, case, case["finetune"], classification_losses)
    pretraining |= train(pretrainer, case, case["pretrain"], pretraining_losses)
    variants = {
        name: compute_variant(
            load_model(BertForSequenceClassification, config, weights), {**case, "finetune": spec}, weights
        )
        for name, spec in case["variants"].items()
    }
    return {"fine-tuning": finetuning, "pre-training": pretraining, **variants}


def compute_variant(model: Any, case: dict[str, Any], weights: dict[str, torch.Tensor]) -> Arrays:
    """The steps of a fine-tuning with other options; hierarchical ones begin with a forward pass of every kind."""
    spec = case["finetune"]
    if spec["frozen_encoder"]:
        freeze_encoder(model)
    if spec["hierarchical"] is None:
        return train(model, case, spec, classification_losses)
    hierarchical = HierarchicalClassifier(model, spec["hierarchical"], weights)
    forward = forward_hierarchical(model, case, weights)
    return {**forward, **train(hierarchical, case, spec, hierarchical_losses)}


def load_model(kind: Any, config: Any, weights: dict[str, torch.Tensor]) -> Any:
    """A Transformers model with the folder's weights; heads of the other kind are left out, nothing may be missing."""
    model = kind(config)
    own = model.state_dict()
    problems = model.load_state_dict({name: weights[name] for name in weights if name in own}, strict=False)
    derived = ("position_ids", "token_type_ids", "cls.predictions.decoder.weight", "cls.predictions.decoder.bias")
    missing = [name for name in problems.missing_keys if not name.endswith(derived)]
    if missing:
        raise RuntimeError(f"the folder lacks {missing}")
    if kind is BertForPreTraining:
        model.tie_weights()
        if model.cls.predictions.decoder.weight is not model.bert.embeddings.word_embeddings.weight:
            raise RuntimeError("the decoder is not tied to the word embeddings")
    return model.eval()


# Forward ----------------------------------------------------------------------------------------------------------------


def states_of(output: Any, batch: dict[str, torch.Tensor]) -> Arrays:
    """The embedding output and the state after every block, real tokens only: [T, H]."""
    real = batch["attention_mask"].bool()
    results = {"embeddings/output": output.hidden_states[0][real].numpy()}
    for block, state in enumerate(output.hidden_states[1:]):
        results[f"states/block {block}"] = state[real].numpy()
    return results


def forward_classifier(model: Any, case: dict[str, Any], heads: dict[str, torch.Tensor]) -> Arrays:
    """States and pooled output on the first fine-tuning batch (it has a text of the full length), logits of every head on the second."""
    rows = text_rows(case, case["finetune"]["order"][0])
    batch = pad(case, rows)
    output = model.bert(**batch, output_hidden_states=True)
    results = states_of(output, batch)
    results["token layout/ids and types"] = flat_tokens(rows)
    results["pooled/output"] = output.pooler_output.numpy()
    short = pad(case, text_rows(case, case["finetune"]["order"][1]))
    results["logits/pooler"] = model(**short).logits.numpy()
    cls = [state[:, 0] for state in model.bert(**short, output_hidden_states=True).hidden_states[1:]]
    for name, head in case["heads"].items():
        chosen = torch.stack([cls[block] for block in head["blocks"]])
        combined = {
            "concat": lambda x: torch.cat(list(x), dim=-1),
            "mean": lambda x: x.mean(dim=0),
            "max": lambda x: x.max(dim=0).values,
        }[head["pooling"]](chosen)
        results[f"logits/{name}"] = F.linear(combined, heads[f"{name}.weight"], heads[f"{name}.bias"]).numpy()
    return results


def forward_pretrainer(model: Any, case: dict[str, Any]) -> Arrays:
    """States, pooled output, MLM logits at the predicted positions and NSP logits, on the first pre-training batch."""
    instances = case["pretrain"]["order"][0]
    rows = instance_rows(case, instances)
    batch = pad(case, rows)
    output = model.bert(**batch, output_hidden_states=True)
    logits = model(**batch)
    predicted = mlm_labels(case, instances, batch["input_ids"].shape) != IGNORED
    return {
        **states_of(output, batch),
        "token layout/ids and types": flat_tokens(rows),
        "token layout/next-sentence labels": next_labels(instances).numpy(),
        "pooled/output": output.pooler_output.numpy(),
        "mlm logits/predicted positions": logits.prediction_logits[predicted].numpy(),
        "nsp logits/pairs": logits.seq_relationship_logits.numpy(),
    }


def evaluate(model: Any, case: dict[str, Any]) -> Arrays:
    """Scores of the untrained classifier on all texts, one at a time: no padding at all."""
    from sklearn.metrics import accuracy_score, f1_score

    labels = case["finetune"]["labels"]
    logits = torch.cat([model(**pad(case, text_rows(case, [number]))).logits for number in range(len(labels))]).double()
    guesses = logits.argmax(dim=-1).tolist()
    classes = list(range(logits.shape[1]))
    return {
        "evaluation/probabilities": logits.softmax(dim=-1).numpy(),
        "evaluation/accuracy": np.array([accuracy_score(labels, guesses)]),
        "evaluation/macro_f1": np.array([f1_score(labels, guesses, labels=classes, average="macro", zero_division=0)]),
        "evaluation/loss": np.array([F.cross_entropy(logits, torch.tensor(labels)).item()]),
    }
