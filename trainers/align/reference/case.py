"""One case of the alignment: a folder of weights, its batches, and everything that a forward pass and ten steps give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from transformers import BertConfig, BertForPreTraining, BertForSequenceClassification

from trainers.align.reference.rates import make_groups, make_schedule
from trainers.align.reference.text import cut_pair, cut_single, with_special

Arrays = dict[str, np.ndarray]
Row = tuple[list[int], list[int]]
IGNORED = -100


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
    return {"fine-tuning": finetuning, "pre-training": pretraining}


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


# Batches ----------------------------------------------------------------------------------------------------------------


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


def flat_tokens(rows: list[Row]) -> np.ndarray:
    """[2, T]: ids and types of all rows, end to end."""
    return np.array([[i for ids, _ in rows for i in ids], [t for _, types in rows for t in types]], dtype=np.int64)


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


# Training ---------------------------------------------------------------------------------------------------------------


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


def train(model: nn.Module, case: dict[str, Any], settings: dict[str, Any], losses: Any) -> Arrays:
    """The steps of a stage: losses and norms of each, gradients of the first, weights after the steps asked for."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    parameters = [parameter for _, parameter in named]
    optimizer = torch.optim.AdamW(
        make_groups(named, case["num_layers"], settings),
        betas=(settings["adam_beta1"], settings["adam_beta2"]),
        eps=settings["adam_eps"],
    )
    schedule = make_schedule(optimizer, settings)
    results: Arrays = {}
    norms: list[float] = []
    curves: dict[str, list[float]] = {}
    for step, batch in enumerate(settings["order"], start=1):
        terms = losses(model, case, batch)
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        if step == 1:
            results |= {f"gradients/{name}": parameter.grad.numpy().copy() for name, parameter in named}
        norms.append(float(nn.utils.clip_grad_norm_(parameters, settings["clip"])))
        optimizer.step()
        schedule.step()
        for name, term in terms.items():
            curves.setdefault(name, []).append(term.item())
        if step in settings["compared_steps"]:
            results |= {f"weights {step}/{name}": parameter.detach().numpy().copy() for name, parameter in named}
    results |= {f"loss/{name}": np.array(curve) for name, curve in curves.items()}
    results["gradient norm/all steps"] = np.array(norms)
    return results
