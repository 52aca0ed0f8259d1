"""Which classifier of a multi-task model a fine-tuning stage goes on with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from configs.errors import ConfigError
from configs.schema import DataConfig, FinetuneStage, MultitaskStage
from trainers.init_head import check_same_labels
from trainers.model.folder import Head, read_head_file

SAME_SOURCE = ("path", "files", "columns")


def choose_head(folder: Path, stage: FinetuneStage, data: DataConfig, label_names: Sequence[str]) -> str | None:
    """The data set whose classifier fits a stage on `data` with these labels; None for a new classifier.

    `init_head` decides where it is given. Else the classifier must see the same features and belong to the same data set with the same
    labels; of several, the only one that was read from the same place. Raises ConfigError for an `init_head` that does not fit.
    """
    head_file = read_head_file(folder)
    if head_file is None or not head_file.heads:
        if stage.init_head is not None:
            raise ConfigError(f"init_head: {stage.init_head}; {folder} is no multi-task model", "leave init_head out")
        return None
    if stage.init_head is not None:
        return _named_head(folder, stage.init_head, head_file.heads, label_names)
    source = head_file.stage
    if not isinstance(source, MultitaskStage) or source.classifier_input != stage.classifier_input:
        return None
    fitting = [
        name
        for name, head in head_file.heads.items()
        if head.label_names == tuple(label_names)
        and (source.data_sets[name].dataset, source.data_sets[name].labels) == (data.dataset, data.labels)
    ]
    if len(fitting) > 1:
        fitting = [
            name
            for name in fitting
            if all(getattr(source.data_sets[name], key) == getattr(data, key) for key in SAME_SOURCE)
        ]
    return fitting[0] if len(fitting) == 1 else None


def _named_head(folder: Path, name: str, heads: Mapping[str, Head], label_names: Sequence[str]) -> str:
    if name not in heads:
        raise ConfigError(f"init_head: {name}; {folder} has {', '.join(heads)}", "name one of them")
    check_same_labels("init_head", name, heads[name].label_names, label_names)
    return name
