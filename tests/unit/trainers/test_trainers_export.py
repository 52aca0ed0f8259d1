"""A trained model out: PaddleNLP and Paddle's inference library give the same logits; what cannot be held is refused."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from configs.errors import ConfigError, DataError
from configs.schema import FinetuneStage, PretrainStage
from tests.support.tiny import CLASSES, VOCABULARY, write_bert

paddle = pytest.importorskip("paddle", reason="needs Paddle")

from trainers.export_model import export  # noqa: E402
from trainers.exporting import source as exporting  # noqa: E402
from trainers.exporting.inference import pad, run_inference  # noqa: E402
from trainers.exporting.padded import PaddedClassifier  # noqa: E402
from trainers.model.batch import make_token_batch  # noqa: E402
from trainers.model.folder import ModelSource, build_model, load_folder, read_bert_config, save_folder  # noqa: E402
from trainers.model.names import to_hf  # noqa: E402

COMMON = {"task": "finetune", "epochs": 1, "max_length": 32}
FINETUNE = FinetuneStage.model_validate(COMMON)
STAGES: dict[str, FinetuneStage] = {
    "pooler": FINETUNE,
    "concat": FinetuneStage.model_validate({**COMMON, "layers": (0, 1)}),
    "mean": FinetuneStage.model_validate({**COMMON, "layers": (0, 1), "pooling": "mean"}),
    "max": FinetuneStage.model_validate({**COMMON, "layers": "all", "pooling": "max"}),
    "one": FinetuneStage.model_validate({**COMMON, "layers": (0,)}),
}
PRETRAIN = PretrainStage.model_validate({"task": "pretrain", "epochs": 1, "max_length": 32})
TOLERANCE = 1e-5


def trained(folder: Path, stage: FinetuneStage | PretrainStage) -> tuple[Path, Any]:
    """A stage's model folder with weights that all matter, and its model."""
    start = write_bert(folder / "bert", seed=3)
    config = read_bert_config(start)
    paddle.seed(5)
    model = build_model(stage, config, len(CLASSES))
    load_folder(model, start)
    if isinstance(stage, FinetuneStage) and stage.classifier == "linear":
        weight = model.classifier.weight
        weight.set_value(np.random.default_rng(1).normal(0, 0.5, weight.shape).astype(np.float32))
        model.classifier.bias.set_value(np.array([0.3, -0.2, 0.1], np.float32))
    model.eval()
    arrays = {name: parameter.numpy() for name, parameter in model.named_parameters()}
    labels = CLASSES if isinstance(stage, FinetuneStage) else ()
    save_folder(folder / "model", arrays, config, stage, ModelSource(start, True), labels)
    return folder / "model", model


def run_export(model: Path, chosen: str, target: Path) -> list[str]:
    return export(argparse.Namespace(model=model, run_dir=None, stage=None, head=None, format=chosen, to=target))


def sequences(*lengths: tuple[int, int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Random token sequences of (first, second) lengths; the second has type 1."""
    rng = np.random.default_rng(2)
    return [
        (
            rng.integers(1, len(VOCABULARY), first + second).astype(np.int32),
            np.repeat(np.array([0, 1], np.uint8), [first, second]),
        )
        for first, second in lengths
    ]


SAMPLES = sequences((1, 0), (2, 0), (17, 0), (5, 9), (31, 1), (20, 12))


def our_logits(model: Any) -> np.ndarray:
    logits: np.ndarray = model(make_token_batch([ids for ids, _ in SAMPLES], [types for _, types in SAMPLES])).numpy()
    return logits


def paddlenlp() -> Any:
    return pytest.importorskip("paddlenlp.transformers", reason="needs PaddleNLP")


def test_paddlenlp_loads_a_classifier_without_any_option(tmp_path: Path) -> None:
    folder, model = trained(tmp_path, FINETUNE)
    said = run_export(folder, "paddlenlp", tmp_path / "out")
    assert said == [f"{tmp_path / 'out'}: PaddleNLP loads it with BertForSequenceClassification.from_pretrained"]
    theirs = paddlenlp().BertForSequenceClassification.from_pretrained(str(tmp_path / "out"))
    theirs.eval()
    ids, types = pad(SAMPLES, 0)
    found = theirs(paddle.to_tensor(ids), paddle.to_tensor(types)).numpy()
    np.testing.assert_allclose(found, our_logits(model), atol=TOLERANCE, rtol=0)
    assert np.ptp(found, axis=0).min() > 1e-2, "the logits of different texts differ by far more than the tolerance"
    assert theirs.config.id2label == dict(enumerate(CLASSES))
    tokenizer = paddlenlp().BertTokenizer.from_pretrained(str(tmp_path / "out"))
    assert tokenizer.encode("FILLER1 hum1")["input_ids"] == [2, 6, 26, 3]
    assert not [path for path in (tmp_path / "out").iterdir() if path.suffix in (".pdparams", ".bin", ".pkl")]


def test_paddlenlp_loads_pretraining_heads(tmp_path: Path) -> None:
    folder, model = trained(tmp_path, PRETRAIN)
    run_export(folder, "paddlenlp", tmp_path / "out")
    theirs = paddlenlp().BertForPretraining.from_pretrained(str(tmp_path / "out"))
    theirs.eval()
    ids, types = SAMPLES[3]
    batch = make_token_batch([ids], [types])
    words, next_sentence = model(batch, paddle.arange(len(ids)))
    scores, relation = theirs(
        paddle.to_tensor(ids[None].astype(np.int64)), paddle.to_tensor(types[None].astype(np.int64))
    )
    np.testing.assert_allclose(scores.numpy()[0], words.numpy(), atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(relation.numpy(), next_sentence.numpy(), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("chosen", ["hf", "paddlenlp"])
def test_a_classifier_on_blocks_is_exported_as_encoder_and_says_so(tmp_path: Path, chosen: str) -> None:
    folder, model = trained(tmp_path, STAGES["concat"])
    said = run_export(folder, chosen, tmp_path / "out")
    assert said[1].startswith("only the encoder: ")
    readme = (tmp_path / "out" / "README.md").read_text()
    assert "has no classifier that reads the [CLS] states of chosen blocks (concat of 0, 1, counted from 0)" in readme
    assert json.loads((tmp_path / "out" / "bert4doc.json").read_text())["stage"]["layers"] == [0, 1]
    theirs = paddlenlp().BertModel.from_pretrained(str(tmp_path / "out"), convert_from_torch=chosen == "hf")
    theirs.eval()
    ids, types = SAMPLES[3]
    states, _ = theirs(paddle.to_tensor(ids[None].astype(np.int64)), paddle.to_tensor(types[None].astype(np.int64)))
    np.testing.assert_allclose(
        states.numpy()[0], model.bert(make_token_batch([ids], [types]))[-1].numpy(), atol=TOLERANCE, rtol=0
    )


@pytest.mark.parametrize("stage", [FINETUNE, PRETRAIN], ids=["pooler", "pretraining"])
def test_the_hf_folder_has_transformers_names_and_layout(tmp_path: Path, stage: FinetuneStage | PretrainStage) -> None:
    folder, model = trained(tmp_path, stage)
    run_export(folder, "hf", tmp_path / "out")
    stored = load_file(str(tmp_path / "out" / "model.safetensors"))
    assert set(stored) == {to_hf(name) for name, _ in model.named_parameters()}
    weight = model.bert.encoder.layers[0].linear1.weight.numpy()
    np.testing.assert_array_equal(stored["bert.encoder.layer.0.intermediate.dense.weight"], weight.T)
    architecture = "BertForSequenceClassification" if stage is FINETUNE else "BertForPreTraining"
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architectures"] == [architecture]


@pytest.mark.parametrize("name", list(STAGES))
def test_the_padded_form_is_the_model(tmp_path: Path, name: str) -> None:
    _, model = trained(tmp_path, STAGES[name])
    ids, types = pad(SAMPLES, 0)
    padded = PaddedClassifier(model, 0)(paddle.to_tensor(ids), paddle.to_tensor(types)).numpy()
    np.testing.assert_allclose(padded, our_logits(model), atol=TOLERANCE, rtol=0)
    wider = [np.pad(each, ((0, 0), (0, 13))) for each in (ids, types)]
    again = PaddedClassifier(model, 0)(*map(paddle.to_tensor, wider)).numpy()
    np.testing.assert_allclose(again, padded, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", ["pooler", "max"])
def test_the_inference_program_is_the_model(tmp_path: Path, name: str) -> None:
    folder, model = trained(tmp_path, STAGES[name])
    said = run_export(folder, "inference", tmp_path / "out")
    assert "its logits differ from the model's by at most " in said[0]
    expected = our_logits(model)
    program = next(path.name for path in (tmp_path / "out").glob("model.*") if path.suffix in (".json", ".pdmodel"))
    found = run_inference(tmp_path / "out", program, *pad(SAMPLES, 0))
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)
    for row in (0, 2, 5):  # other batch sizes and lengths than those that the program was made with
        one = run_inference(tmp_path / "out", program, *pad(SAMPLES[row : row + 1], 0))
        np.testing.assert_allclose(one[0], expected[row], atol=TOLERANCE, rtol=0)


def test_the_example_beside_the_inference_program_runs(tmp_path: Path) -> None:
    folder, model = trained(tmp_path, FINETUNE)
    run_export(folder, "inference", tmp_path / "out")
    texts = ["filler1 HUM1", "num3 num4 loc1 filler9 ."]
    environment = {**os.environ, "MKL_DEBUG_CPU_TYPE": "5"}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "out" / "example.py"), *texts],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    ids = [[2, *(VOCABULARY.index(word) for word in text.lower().split()), 3] for text in texts]
    batch = make_token_batch([np.array(row) for row in ids], [np.zeros(len(row), np.uint8) for row in ids])
    logits = model(batch).numpy()
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert [(label, text) for label, _, text in lines] == [
        (CLASSES[index], text) for index, text in zip(chances.argmax(axis=1), texts, strict=True)
    ], "and nothing else"
    np.testing.assert_allclose([float(line[1]) for line in lines], chances.max(axis=1), atol=1e-4)
    assert done.stderr == ""


def test_a_program_that_gives_other_logits_is_not_handed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = trained(tmp_path, FINETUNE)
    start = PaddedClassifier.__init__
    monkeypatch.setattr(PaddedClassifier, "__init__", lambda self, model, pad_id: start(self, model, pad_id + 7))
    with pytest.raises(ConfigError, match="the exported program's logits differ by"):
        run_export(folder, "inference", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def test_a_pretraining_stage_is_no_inference_program(tmp_path: Path) -> None:
    folder, _ = trained(tmp_path, PRETRAIN)
    with pytest.raises(ConfigError, match="cannot hold this model: a pre-training stage") as caught:
        run_export(folder, "inference", tmp_path / "out")
    assert caught.value.hint == "choose --format hf or paddlenlp"


@pytest.mark.parametrize("chosen", exporting.FORMATS)
def test_a_head_that_no_export_knows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: str) -> None:
    from trainers.model.heads import BertForClassification

    class BertWithAnotherHead(BertForClassification):
        pass

    folder, model = trained(tmp_path, FINETUNE)
    other = BertWithAnotherHead(model.bert.config, len(CLASSES))
    monkeypatch.setattr(exporting, "build_model", lambda *_: other)
    with pytest.raises(ConfigError, match=r"the head of this model \(BertWithAnotherHead\)") as caught:
        run_export(folder, chosen, tmp_path / "out")
    assert caught.value.hint == f"use it as it is: ./run.sh predict {folder}"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"hierarchical": "mean"}, "hierarchical: mean"),
        ({"hierarchical": "attention"}, "hierarchical: attention"),
        ({"classifier": "bilstm", "lstm_size": 4}, "classifier: bilstm"),
    ],
)
def test_heads_that_see_more_than_one_vector_are_refused(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    folder, _ = trained(tmp_path, FINETUNE.model_copy(update=changes))
    for chosen in exporting.FORMATS:
        with pytest.raises(ConfigError, match=rf"the head of this model \({named}\) is part of neither"):
            run_export(folder, chosen, tmp_path / "out")


def test_more_tensors_than_a_plain_classifier_has_are_another_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, model = trained(tmp_path, FINETUNE)
    model.second = paddle.nn.Linear(2, 2)
    monkeypatch.setattr(exporting, "build_model", lambda *_: model)
    monkeypatch.setattr(exporting, "load_folder", lambda *_: argparse.Namespace(new=()))
    with pytest.raises(ConfigError, match="is part of neither Transformers nor PaddleNLP"):
        run_export(folder, "hf", tmp_path / "out")


def test_targets_and_sources_that_are_refused(tmp_path: Path) -> None:
    folder, _ = trained(tmp_path, FINETUNE)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("x")
    with pytest.raises(ConfigError, match="is not empty and was not written by import or export"):
        run_export(folder, "hf", tmp_path / "taken")
    run_export(folder, "hf", tmp_path / "out")
    run_export(folder, "paddlenlp", tmp_path / "out")  # ours: replaced
    assert json.loads((tmp_path / "out" / "bert4doc-origin.json").read_text())["format"] == "paddlenlp"
    with pytest.raises(DataError, match="not a model that a run has trained"):
        run_export(tmp_path / "bert", "hf", tmp_path / "new")
    with pytest.raises(ConfigError, match="--to FOLDER is needed"):
        export(argparse.Namespace(model=folder, run_dir=None, stage=None, head=None, format="hf", to=None))
