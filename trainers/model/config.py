"""The shape of a BERT model, read from the config.json of a Hugging Face or PaddleNLP folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from configs.errors import ConfigError

_NAMES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "intermediate_size": "intermediate_size",
    "max_position_embeddings": "max_positions",
    "type_vocab_size": "num_token_types",
}


@dataclass(frozen=True)
class BertConfig:
    """Sizes and constants of one BERT encoder (any size: 2 to 24 layers and more)."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    max_positions: int
    num_token_types: int
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    pad_token_id: int = 0

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_heads

    @classmethod
    def from_json(cls, values: Mapping[str, object], where: str) -> BertConfig:
        """Read the keys of config.json; `where` names the file in errors.

        Raises ConfigError when a key is missing, or names something this encoder does not compute.
        """
        missing = [key for key in _NAMES if not isinstance(values.get(key), int)]
        if missing:
            raise ConfigError(f"{where}: no valid {', '.join(missing)}", "use the folder of a BERT model")
        for key, allowed in (("hidden_act", "gelu"), ("position_embedding_type", "absolute")):
            if values.get(key, allowed) != allowed:
                raise ConfigError(f"{where}: {key} is {values[key]!r}; only {allowed!r} is supported")
        config = cls(
            **{ours: int(str(values[theirs])) for theirs, ours in _NAMES.items()},
            hidden_dropout=_number(values, "hidden_dropout_prob", 0.1),
            attention_dropout=_number(values, "attention_probs_dropout_prob", 0.1),
            layer_norm_eps=_number(values, "layer_norm_eps", 1e-12),
            initializer_range=_number(values, "initializer_range", 0.02),
            pad_token_id=int(_number(values, "pad_token_id", 0)),
        )
        if config.hidden_size % config.num_heads:
            raise ConfigError(
                f"{where}: hidden_size {config.hidden_size} is no multiple of num_attention_heads {config.num_heads}"
            )
        return config

    def with_dropout(self, probability: float | None) -> BertConfig:
        """The same model with hidden and attention dropout set, or unchanged for None."""
        if probability is None:
            return self
        return replace(self, hidden_dropout=probability, attention_dropout=probability)

    def to_json(self) -> dict[str, object]:
        """The keys that Transformers and PaddleNLP read."""
        values: dict[str, object] = {theirs: getattr(self, ours) for theirs, ours in _NAMES.items()}
        return {
            "model_type": "bert",
            "hidden_act": "gelu",
            "position_embedding_type": "absolute",
            **values,
            "hidden_dropout_prob": self.hidden_dropout,
            "attention_probs_dropout_prob": self.attention_dropout,
            "layer_norm_eps": self.layer_norm_eps,
            "initializer_range": self.initializer_range,
            "pad_token_id": self.pad_token_id,
        }


def _number(values: Mapping[str, object], key: str, default: float) -> float:
    value = values.get(key, default)
    return float(value) if isinstance(value, (int, float)) else default
