"""Which key or word was meant: names that other trainers use for the same thing, and near misses."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

OTHER_NAMES: Mapping[str, str] = {
    "adam_beta_1": "adam_beta1",
    "adam_beta_2": "adam_beta2",
    "adam_epsilon": "adam_eps",
    "amp_dtype": "dtype",
    "amp_level": "level",
    "arch": "model",
    "batch_size": "batch",
    "bf16": "amp",
    "corpus": "splits",
    "data_dir": "path",
    "data_path": "path",
    "correct_bias": "bias_correction",
    "dataset_name": "dataset",
    "datasets": "data_sets",
    "discr": "layer_decay",
    "do_whole_word_mask": "whole_word",
    "dup_factor": "dupe_factor",
    "early_stopping_patience": "patience",
    "early_stopping_threshold": "min_delta",
    "ema_decay": "ema",
    "epoch": "epochs",
    "eval_steps": "evaluate_every",
    "eval_strategy": "evaluate_every",
    "evaluation_strategy": "evaluate_every",
    "fp16": "amp",
    "fp16_opt_level": "level",
    "global_batch_size": "batch",
    "freeze_layers": "freeze",
    "grad_clip": "clip",
    "hidden_dropout_prob": "dropout",
    "init_checkpoint": "model",
    "init_from": "init",
    "layer_learning_rate": "layer_decay",
    "layerwise_decay": "layer_decay",
    "learning_rate": "lr",
    "llrd": "layer_decay",
    "logging_steps": "log_every",
    "lr_decay_style": "schedule",
    "lstm_hidden_size": "lstm_size",
    "lr_scheduler": "schedule",
    "lr_scheduler_type": "schedule",
    "masked_lm_prob": "mask_probability",
    "max_grad_norm": "clip",
    "max_len": "max_length",
    "max_position": "max_length",
    "max_predictions_per_seq": "max_predictions",
    "max_seq_len": "max_length",
    "max_seq_length": "max_length",
    "max_sequence_length": "max_length",
    "metric_for_best_model": "best_metric",
    "micro_batch_size": "micro_batch",
    "mlm_probability": "mask_probability",
    "model_name": "model",
    "model_name_or_path": "model",
    "num_epochs": "epochs",
    "num_train_epochs": "epochs",
    "num_training_steps": "max_steps",
    "num_warmup_steps": "warmup",
    "omp_num_threads": "threads_per_rank",
    "per_device_train_batch_size": "micro_batch",
    "per_gpu_train_batch_size": "micro_batch",
    "pooling_type": "pooling",
    "power": "poly_power",
    "pretrained_model": "model",
    "random_seed": "seed",
    "run_name": "name",
    "save_steps": "checkpoint_every",
    "save_total_limit": "keep_checkpoints",
    "scheduler": "schedule",
    "seq_len": "max_length",
    "seq_length": "max_length",
    "short_seq_prob": "short_sequence_probability",
    "steps": "max_steps",
    "task_name": "dataset",
    "total_steps": "max_steps",
    "train_batch_size": "batch",
    "trunc_medium": "truncation",
    "use_amp": "amp",
    "use_nsp": "nsp",
    "val_split": "validation",
    "validation_split": "validation",
    "warmup_proportion": "warmup",
    "warmup_ratio": "warmup",
    "warmup_steps": "warmup",
    "whole_word_mask": "whole_word",
    "wwm": "whole_word",
}
"""What Transformers, PaddleNLP, the PyTorch code of the paper and its Paddle port call a key -> what it is
called here."""


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The word that was probably meant, None if none is near. Case and '-' against '_' do not count."""
    folded = {_fold(candidate): candidate for candidate in words}
    close = difflib.get_close_matches(_fold(word), folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else None


def _fold(word: str) -> str:
    return word.lower().replace("-", "_")
