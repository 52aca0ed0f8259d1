"""Parameter groups: rates of every part by hand, what decays, what is frozen, and the plan's count of a real model."""

from __future__ import annotations

from typing import Any

import pytest

paddle = pytest.importorskip("paddle", reason="needs Paddle")

from configs.schema import FinetuneStage, PretrainStage  # noqa: E402
from launcher.facts import ModelFacts  # noqa: E402
from launcher.model_facts import count_parameters  # noqa: E402
from launcher.parameters import parameter_groups  # noqa: E402
from trainers.model.config import BertConfig  # noqa: E402
from trainers.model.folder import build_model  # noqa: E402
from trainers.model.heads import BertForClassification, BertForPretraining  # noqa: E402
from trainers.optim.groups import decays, make_groups  # noqa: E402

BASE_RATES = (  # paper.md: 2e-5 at 0.95, block 0 to 11 of BERT-base
    *(1.1376e-5, 1.1975e-5, 1.2605e-5, 1.3268e-5, 1.3967e-5, 1.4702e-5),
    *(1.5476e-5, 1.6290e-5, 1.7147e-5, 1.8050e-5, 1.9000e-5, 2.0000e-5),
)


def stage(**values: Any) -> FinetuneStage:
    return FinetuneStage(task="finetune", epochs=1, max_length=32, **values)


def test_the_papers_layer_wise_rates() -> None:
    config = BertConfig(20, 8, 12, 2, 16, 16, 2)
    names = [name for name, _ in BertForClassification(config, 2).named_parameters()]
    rates = {
        name: 2e-5 * group.lr_multiple
        for group in make_groups(names, 12, stage(layer_decay=0.95))
        for name in group.names
    }
    for block, expected in enumerate(BASE_RATES):
        of_block = {rate for name, rate in rates.items() if name.startswith(f"bert.encoder.layers.{block}.")}
        assert len(of_block) == 1
        assert f"{of_block.pop():.4e}" == f"{expected:.4e}"
    others = {rate for name, rate in rates.items() if ".layers." not in name}
    assert others == {2e-5}, "embeddings, pooler and classifier keep the rate"


def test_every_parameter_is_in_one_group_and_biases_and_norms_do_not_decay() -> None:
    for model in (
        BertForClassification(BertConfig(20, 8, 3, 2, 16, 16, 2), 2),
        BertForPretraining(BertConfig(20, 8, 3, 2, 16, 16, 2)),
    ):
        parameters = dict(model.named_parameters())
        groups = make_groups(parameters, 3, stage(layer_decay=0.9))
        assert sorted(name for group in groups for name in group.names) == sorted(parameters)
        assert len({(group.lr_multiple, group.weight_decay) for group in groups}) == len(groups)
        norms = {
            f"{path}.{kind}"
            for path, layer in model.named_sublayers()
            if isinstance(layer, paddle.nn.LayerNorm)
            for kind in ("weight", "bias")
        }
        for group in groups:
            for name in group.names:
                is_matrix = parameters[name].ndim == 2
                assert (group.weight_decay == 0.01) == is_matrix == decays(name), name
                assert not (is_matrix and name in norms)
    assert len(make_groups(parameters, 3, stage())) == 2


def rates_of(num_blocks: int, **values: Any) -> dict[str, set[float]]:
    """Peak rate(s) of every part of a classifier with so many blocks."""
    config = BertConfig(20, 8, num_blocks, 2, 16, 16, 2)
    settings = stage(lr=2e-5, **values)
    found: dict[str, set[float]] = {}
    for group in make_groups(
        [name for name, _ in BertForClassification(config, 2).named_parameters()], num_blocks, settings
    ):
        for name in group.names:
            parts = name.split(".")
            part = f"block {parts[3]}" if "layers" in parts else parts[1] if parts[0] == "bert" else parts[0]
            found.setdefault(part, set()).add(float(f"{2e-5 * group.lr_multiple:.6g}"))
    return found


def parts_with(blocks: list[float], embeddings: float, plain: float) -> dict[str, set[float]]:
    values = {"embeddings": embeddings, "pooler": plain, "classifier": plain}
    values |= {f"block {number}": rate for number, rate in enumerate(blocks)}
    return {part: {float(f"{rate:.6g}")} for part, rate in values.items()}


LOW, MIDDLE, HIGH = 2e-5 / 2.6, 2e-5, 2e-5 * 2.6


@pytest.mark.parametrize(
    ("num_blocks", "values", "expected"),
    [
        (12, {"rate_bands": 2.6}, parts_with([LOW] * 4 + [MIDDLE] * 4 + [HIGH] * 4, 2e-5, 2e-5)),
        (24, {"rate_bands": 2.6}, parts_with([LOW] * 8 + [MIDDLE] * 8 + [HIGH] * 8, 2e-5, 2e-5)),
        (6, {"rate_bands": 2.6, "plain_rate": 5e-5}, parts_with([LOW] * 2 + [MIDDLE] * 2 + [HIGH] * 2, 5e-5, 5e-5)),
        (4, {"rate_bands": 2.6}, parts_with([LOW, LOW, MIDDLE, HIGH], 2e-5, 2e-5)),
        (5, {"rate_bands": 2.6}, parts_with([LOW, LOW, MIDDLE, MIDDLE, HIGH], 2e-5, 2e-5)),
        (3, {"layer_rates": (1e-6, 3e-5, 7e-5)}, parts_with([1e-6, 3e-5, 7e-5], 2e-5, 2e-5)),
        (2, {"layer_decay": 0.5, "plain_rate": 5e-5}, parts_with([1e-5, 2e-5], 5e-5, 5e-5)),
        (2, {"layer_decay": 0.5, "decay_embeddings": True}, parts_with([1e-5, 2e-5], 5e-6, 2e-5)),
        (2, {"layer_decay": 0.5, "decay_embeddings": True, "plain_rate": 5e-5}, parts_with([1e-5, 2e-5], 5e-6, 5e-5)),
        (2, {"freeze": "embeddings"}, {k: v for k, v in parts_with([2e-5] * 2, 0, 2e-5).items() if k != "embeddings"}),
        (2, {"freeze": 1}, {k: {2e-5} for k in ("block 1", "pooler", "classifier")}),
        (2, {"freeze": "encoder", "plain_rate": 5e-5}, {k: {5e-5} for k in ("pooler", "classifier")}),
    ],
)
def test_rates_of_every_part(num_blocks: int, values: dict[str, Any], expected: dict[str, set[float]]) -> None:
    assert rates_of(num_blocks, **values) == expected


def test_an_lstms_biases_do_not_decay() -> None:
    model = build_model(stage(classifier="bilstm", lstm_size=3), BertConfig(20, 8, 1, 2, 16, 64, 2), 2)
    parameters = dict(model.named_parameters())
    assert {name for name in parameters if "lstm.bias" in name} == {
        f"classifier.lstm.bias_{kind}_l0{way}" for kind in ("ih", "hh") for way in ("", "_reverse")
    }
    assert all(decays(name) == (parameters[name].ndim == 2) for name in parameters)


PARTS = {"embeddings": "bert.embeddings.", "pooler": "bert.pooler.", "MLM head": "cls.predictions."}
PARTS |= {"NSP head": "cls.seq_relationship.", "bilstm": "classifier.lstm.", "blocks 0-2": "bert.encoder."}
ATTENTION = ("classifier.attention.", "fractions.attention.")
STAGES: tuple[dict[str, Any], ...] = (
    {"task": "pretrain", "max_steps": 1},
    *({"task": "finetune", "epochs": 1, "max_length": 16, **values} for values in (
        {}, {"layers": "all"}, {"layers": [0, 2], "pooling": "mean"}, {"hierarchical": "mean"},
        {"hierarchical": "attention", "layers": [2, 1]}, {"classifier": "bilstm", "lstm_size": 5},
    )),
)  # fmt: skip


@pytest.mark.parametrize("values", STAGES)
def test_the_plan_counts_the_parameters_of_the_real_model(values: dict[str, Any]) -> None:
    kind = PretrainStage if values["task"] == "pretrain" else FinetuneStage
    settings: Any = kind.model_validate({**values, "max_length": 16})
    model = build_model(settings, BertConfig(50, 8, 3, 2, 24, 16, 2), 4)
    parameters = dict(model.named_parameters())
    facts = ModelFacts("m", 3, 8, 24, 2, 50, count_parameters(3, 8, 24, 50, 16), "test", 16)
    groups = parameter_groups(facts, settings, 4)
    assert sum(group.parameters for group in groups) == sum(parameter.size for parameter in parameters.values())
    assert sum(group.tensors for group in groups) == len(parameters)
    for group in groups:
        prefix = (
            ATTENTION if group.part == "attention" else PARTS.get(group.part, ("classifier.", "classifier.output."))
        )
        names = [name for name in parameters if name.startswith(prefix)]
        if group.part == "classifier":
            names = [name for name in names if name.startswith("classifier.output.")] or names
        if group.part == "MLM head":
            names = [name for name in names if "decoder_weight" not in name]
        assert sum(parameters[name].size for name in names) == group.parameters, group.part
        assert (len(names), sum(map(decays, names))) == (group.tensors, group.decayed_tensors), group.part
