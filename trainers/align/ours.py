"""This side of the alignment: the numbers of the code that trains, under the keys of the reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import paddle
from safetensors.numpy import load_file

from configs.schema import FinetuneStage, PretrainStage
from trainers.align import settings
from trainers.align.entries import open_finetuning, open_pretraining
from trainers.align.training import train
from trainers.data.tokenize import Tokenizer
from trainers.data.truncate import assemble, truncate_pair, truncate_single
from trainers.data.vocabulary import Vocabulary, load_vocabulary
from trainers.engine.amp import AmpPolicy
from trainers.engine.evaluation import predict_rows, score
from trainers.model.batch import TokenBatch
from trainers.model.encoder import BertModel, cls_states
from trainers.model.folder import build_model, load_folder, read_bert_config
from trainers.model.heads import BertForClassification
from trainers.model.names import to_hf
from trainers.model.weights import load_arrays, read_weights
from trainers.optim.groups import make_groups
from trainers.optim.schedule import make_schedule
from trainers.trained import SilentRecorder, alone

Arrays = dict[str, np.ndarray]
NO_AMP = AmpPolicy("off", "float32", "")


# Text -------------------------------------------------------------------------------------------------------------------


def text_arrays(spec: dict[str, Any]) -> Arrays:
    """Token ids of every text, lower-cased and not; cuts and pairs with special tokens and types."""
    vocabulary = load_vocabulary(Path(spec["vocab"]))
    lower, cased = Tokenizer(vocabulary, True), Tokenizer(vocabulary, False)
    results: Arrays = {}
    for number, each in enumerate(spec["texts"]):
        results[f"ids lower-cased/text {number:02d}"] = lower.encode(each)
        results[f"ids cased/text {number:02d}"] = cased.encode(each)
    long = lower.encode(spec["long_text"])
    for name, cut in spec["cuts"].items():
        kept = truncate_single(long, cut["max_length"], cut["head"], cut["tail"])
        results[f"cuts/{name}"] = _assembled(vocabulary, kept, None)
    for length in spec["short_lengths"]:
        kept = truncate_single(long[:length], 64, 20, None)
        results[f"cuts/{length} tokens, limit 64"] = _assembled(vocabulary, kept, None)
    for length_a, length_b in spec["pair_lengths"]:
        a, b = truncate_pair(long[:length_a], long[-length_b:], 64)
        results[f"pairs/{length_a} + {length_b} tokens, limit 64"] = _assembled(vocabulary, a, b)
    for number, (first, second) in enumerate(spec["pairs"]):
        results[f"pairs/texts {number:02d}"] = _assembled(vocabulary, lower.encode(first), lower.encode(second))
    return results


def _assembled(vocabulary: Vocabulary, a: np.ndarray, b: np.ndarray | None) -> np.ndarray:
    both: np.ndarray = np.stack(assemble(a, b, vocabulary.cls_id, vocabulary.sep_id)).astype(np.int64)
    return both


# Learning rates ---------------------------------------------------------------------------------------------------------


def rate_arrays(spec: dict[str, Any]) -> Arrays:
    """[steps] learning rate and weight decay of every parameter, as the loop hands them to the optimizer."""
    names = [name for name, _ in BertForClassification(settings.rate_model(), 2).named_parameters()]
    results: Arrays = {}
    for label, values in settings.RATE_SETTINGS.items():
        stage = settings.rate_stage(values)
        total = values["max_steps"]
        curve = np.array([make_schedule(stage, total)(step) for step in range(total)])
        for group in make_groups(names, spec["num_layers"], stage):
            for name in group.names:
                results[f"rates {label}/{to_hf(name)}"] = curve * group.lr_multiple
                results[f"decay/{label}: {to_hf(name)}"] = np.array([group.weight_decay])
    return results


# Models -----------------------------------------------------------------------------------------------------------------


def _load(folder: Path, stage: FinetuneStage | PretrainStage) -> Any:
    """The model of a stage with the folder's weights."""
    model = build_model(stage, read_bert_config(folder), settings.NUM_CLASSES)
    loaded = load_folder(model, folder)
    if loaded.new:
        raise AssertionError(f"{folder} lacks {loaded.new}")
    model.train()
    return model


def finetuning_arrays(directory: Path, stage: FinetuneStage, spec: dict[str, Any]) -> Arrays:
    """Forward pass, every head, evaluation, gradients and steps of the classifier of a case."""
    model, vocabulary = _load(directory / "model", stage), load_vocabulary(directory / "model" / "vocab.txt")
    task = open_finetuning(stage, Path(spec["entries"]["texts"]), vocabulary)
    encoder, labels = task.encoder, np.array(spec["finetune"]["labels"])
    rows = np.arange(len(labels), dtype=np.int64)
    tokens = task.micro_batch(0, 0, task.batch_ids(0, 0)).tokens
    results = _states(model.bert, tokens)
    short = task.micro_batch(0, 1, task.batch_ids(0, 1)).tokens
    results |= _head_logits(directory, model, stage, spec, short)
    predictions = predict_rows(
        model, encoder, rows, settings.NUM_CLASSES, NO_AMP, alone(), SilentRecorder(), "alignment", lambda: False
    )
    results["evaluation/probabilities"] = predictions.probabilities
    scores = score(labels, predictions.probabilities)
    results |= {f"evaluation/{name}": np.array([scores[name]]) for name in ("accuracy", "macro_f1", "loss")}
    return {**results, **train(model, task, stage)}


def variant_arrays(directory: Path, stage: FinetuneStage, spec: dict[str, Any]) -> Arrays:
    """The steps of a fine-tuning with other options; hierarchical ones begin with a forward pass of every kind."""
    model, vocabulary = _load(directory / "model", stage), load_vocabulary(directory / "model" / "vocab.txt")
    task = open_finetuning(stage, Path(spec["entries"]["texts"]), vocabulary)
    results: Arrays = {}
    if stage.hierarchical is not None:
        tokens = task.micro_batch(0, 0, task.batch_ids(0, 0)).tokens
        results["token layout/ids and types"] = paddle.stack([tokens.ids_T, tokens.types_T]).numpy()
        for kind in settings.FRACTION_KINDS:
            other = _load(directory / "model", stage.model_copy(update={"hierarchical": kind}))
            with paddle.no_grad():
                results[f"logits {kind}/classes"] = other(tokens).numpy()
    return {**results, **train(model, task, stage)}


@paddle.no_grad()
def _states(bert: BertModel, tokens: TokenBatch) -> Arrays:
    """Ids, embedding output, the state after every block and the pooled output."""
    results = {
        "token layout/ids and types": paddle.stack([tokens.ids_T, tokens.types_T]).numpy(),
        "embeddings/output": bert.embeddings(tokens).numpy(),
    }
    states = bert(tokens)
    results |= {f"states/block {block}": state.numpy() for block, state in enumerate(states)}
    results["pooled/output"] = bert.pooler(cls_states(states[-1], tokens.layout)).numpy()
    return results


@paddle.no_grad()
def _head_logits(directory: Path, model: Any, stage: FinetuneStage, spec: dict[str, Any], tokens: TokenBatch) -> Arrays:
    """Logits of the pooler's classifier, and of a model of its own for every other way to feed it."""
    results = {"logits/pooler": model(tokens).numpy()}
    heads = load_file(directory / "heads.safetensors")
    arrays = read_weights(directory / "model" / "model.safetensors")
    for name, head in spec["heads"].items():
        changed = stage.model_copy(update={"layers": tuple(head["blocks"]), "pooling": head["pooling"]})
        other = build_model(changed, read_bert_config(directory / "model"), settings.NUM_CLASSES)
        own = {"classifier.weight": heads[f"{name}.weight"].T, "classifier.bias": heads[f"{name}.bias"]}
        load_arrays(other, {**arrays, **own}, name)
        results[f"logits/{name}"] = other(tokens).numpy()
    return results


def pretraining_arrays(directory: Path, stage: PretrainStage, spec: dict[str, Any]) -> Arrays:
    """Forward pass, gradients and steps of MLM + NSP of a case."""
    model, vocabulary = _load(directory / "model", stage), load_vocabulary(directory / "model" / "vocab.txt")
    task = open_pretraining(stage, Path(spec["entries"]["corpus"]), vocabulary)
    batch = task.micro_batch(0, 0, task.batch_ids(0, 0))
    results = _states(model.bert, batch.tokens)
    with paddle.no_grad():
        mlm_MV, nsp_B2 = model(batch.tokens, batch.positions_M)
    if nsp_B2 is None or batch.next_B is None:
        raise AssertionError("the stage trains next-sentence prediction")
    results["mlm logits/predicted positions"] = mlm_MV.numpy()
    results["nsp logits/pairs"] = nsp_B2.numpy()
    results["token layout/next-sentence labels"] = batch.next_B.numpy()
    return {**results, **train(model, task, stage)}
