"""What a pre-training stage trains on: a source gives the instances of any epoch, masked, as a pure function of (seed, epoch)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypedDict

import numpy as np

from configs.errors import ConfigError, DataError
from configs.schema import PretrainStage
from trainers.data.documents import Documents, hold_out, join_corpora, visits
from trainers.data.instances import InstancePlan, Recipe, join_plans, plan_epoch
from trainers.data.masking import Masking, mask_batch
from trainers.data.packing import PackedPlan, join_packed, plan_packed
from trainers.data.store import Instances, open_corpus, open_instances
from trainers.data.vocabulary import Vocabulary


class CorpusFacts(TypedDict):
    """One corpus of a stage in prepared.json."""

    title: str
    kind: str
    """`corpus` or `instances`: which kind of cache entry it is."""
    entry: str
    """The cache entry's directory."""
    weight: float
    documents: int
    """Documents; of ready instances their number."""
    left_out: int
    """Documents left out because they stand in a test split."""


class Masked(NamedTuple):
    """Instances end to end, as the model gets them."""

    ids: np.ndarray
    """int32 [tokens]."""
    types: np.ndarray
    """uint8 [tokens]."""
    offsets: np.ndarray
    """Where instances start: int64 [instances + 1]."""
    positions: np.ndarray
    """Predicted tokens, flat, ascending: int32 [predictions]."""
    labels: np.ndarray
    """True ids there: int32 [predictions]."""
    next_labels: np.ndarray
    """0 follows, 1 random, instances.NO_NEXT without a second part: int32 [instances]."""


class Epoch(Protocol):
    """The instances of one epoch, numbered from 0."""

    lengths: np.ndarray
    """Tokens of each, special tokens included: int64."""

    def masked(self, items: np.ndarray) -> Masked:
        """Some of them, each masked in the same way whatever is beside it."""


class Source(Protocol):
    """Gives the instances of any epoch."""

    def epoch(self, epoch: int) -> Epoch: ...


class DrawnEpoch:
    """Instances planned from documents, masked when they are asked for."""

    def __init__(self, plan: InstancePlan | PackedPlan, masking: Masking, seed: int, epoch: int) -> None:
        self.plan = plan
        self.lengths = plan.lengths
        self._masking = masking
        self._seed = seed
        self._epoch = epoch

    def masked(self, items: np.ndarray) -> Masked:
        ids, types, offsets, next_labels = self.plan.gather(items)
        masked, positions, labels, _ = mask_batch(ids, offsets, items, self._seed, self._epoch, self._masking)
        return Masked(masked, types, offsets, positions, labels, next_labels)


class CorpusSource:
    """Instances drawn from documents: fresh every epoch, or `dupe_factor` draws that are the same in every epoch."""

    def __init__(
        self, documents: Documents, recipe: Recipe, packing: bool, dupe_factor: int | None, masking: Masking, seed: int
    ) -> None:
        self.documents = documents
        self._recipe = recipe
        self._packing = packing
        self._dupe_factor = dupe_factor
        self._masking = masking
        self._seed = seed
        self._static: DrawnEpoch | None = None

    def epoch(self, epoch: int) -> DrawnEpoch:
        if self._dupe_factor is None:
            return DrawnEpoch(self._draw(range(epoch, epoch + 1)), self._masking, self._seed, epoch)
        if self._static is None:
            # an instance's number tells its pass, so masks depend on (seed, pass, instance)
            self._static = DrawnEpoch(self._draw(range(self._dupe_factor)), self._masking, self._seed, 0)
        return self._static

    def _draw(self, passes: range) -> InstancePlan | PackedPlan:
        if self._packing:
            return join_packed(
                [plan_packed(self.documents, self._recipe.max_length, self._seed, number) for number in passes]
            )
        return join_plans([plan_epoch(self.documents, self._recipe, self._seed, number) for number in passes])


class ReadyEpoch:
    """Ready instances of one epoch."""

    def __init__(self, parts: Sequence[Instances], bounds: Sequence[int], items: np.ndarray) -> None:
        self._parts = parts
        self._bounds = np.asarray(bounds)
        self._items = items
        lengths = np.concatenate([np.diff(part.offsets) for part in parts])
        self.lengths: np.ndarray = lengths[items]

    def masked(self, items: np.ndarray) -> Masked:
        ids, types, positions, labels, next_labels = [], [], [], [], []
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(self.lengths[items])])
        chosen = self._items[items]
        numbers = np.searchsorted(self._bounds, chosen, side="right") - 1
        places = zip(numbers.tolist(), (chosen - self._bounds[numbers]).tolist(), offsets.tolist(), strict=False)
        for number, row, start in places:
            part = self._parts[number]
            tokens = slice(int(part.offsets[row]), int(part.offsets[row + 1]))
            predictions = slice(int(part.prediction_offsets[row]), int(part.prediction_offsets[row + 1]))
            ids.append(part.ids[tokens])
            types.append(part.types[tokens])
            positions.append(part.positions[predictions].astype(np.int32) + start)
            labels.append(part.labels[predictions])
            next_labels.append(int(part.is_random_next[row]))
        flat_ids, flat_labels = (np.concatenate(arrays).astype(np.int32) for arrays in (ids, labels))
        return Masked(
            flat_ids,
            np.concatenate(types),
            offsets,
            np.concatenate(positions).astype(np.int32),
            flat_labels,
            np.array(next_labels, dtype=np.int32),
        )


class ReadySource:
    """Ready instances, used as they are: only which of them an epoch takes depends on it."""

    def __init__(
        self,
        parts: Sequence[Instances],
        weights: Sequence[float],
        kept: np.ndarray,
        seed: int,
    ) -> None:
        """`kept`: numbers (ascending) of the instances used, counted through all parts."""
        self._parts = parts
        self._all_bounds = bounds_of(parts)
        self._bounds = np.searchsorted(kept, self._all_bounds).tolist()
        self._weights = weights
        self._kept = kept
        self._seed = seed

    def epoch(self, epoch: int) -> ReadyEpoch:
        items, _ = visits(self._bounds, self._weights, self._seed, epoch)
        return ReadyEpoch(self._parts, self._all_bounds, self._kept[items])


class Sources(NamedTuple):
    """What a stage trains on and what it holds out."""

    training: Source
    held_out: Source | None
    num_held_out: int
    """Documents (or ready instances) held out."""
    predicted_share: float
    """Share of the tokens that is predicted."""


def bounds_of(parts: Sequence[Instances]) -> list[int]:
    """Where the instances of each part begin, and the number of all."""
    return [0, *np.cumsum([len(part) for part in parts]).tolist()]


def open_sources(
    name: str, stage: PretrainStage, corpora: Sequence[CorpusFacts], vocabulary: Vocabulary, seed: int
) -> Sources:
    """The sources of a stage named `name` over its prepared corpora. Raises DataError and ConfigError for what does not fit."""
    weights = tuple(corpus["weight"] for corpus in corpora)
    entries = [Path(corpus["entry"]) for corpus in corpora]
    if corpora[0]["kind"] == "instances":
        return _ready_sources(name, stage, entries, weights, seed)
    documents = join_corpora([open_corpus(entry) for entry in entries], weights)
    train, held = _hold_out(name, documents.bounds, stage, seed)
    recipe = Recipe(
        stage.max_length, stage.short_sequence_probability, stage.nsp, alone=stage.single_sentences == "alone"
    )
    masking = make_masking(stage, vocabulary)
    if len(held):
        kept = documents.subset(train, "corpus without the held-out documents", weights)
        tested = documents.subset(held, "held-out part", (1.0,) * len(weights))
        held_out = CorpusSource(tested, recipe, stage.packing, None, masking, seed)
    else:
        kept, held_out = documents, None
    check_weights(name, kept.bounds, weights)
    training = CorpusSource(kept, recipe, stage.packing, stage.dupe_factor, masking, seed)
    return Sources(training, held_out, len(held), stage.mask_probability)


def _ready_sources(
    name: str, stage: PretrainStage, entries: Sequence[Path], weights: tuple[float, ...], seed: int
) -> Sources:
    parts = [open_instances(entry) for entry in entries]
    longest = max(part.longest for part in parts)
    if longest > stage.max_length:
        raise ConfigError(
            f"stages.{name}.max_length: {stage.max_length}, and the longest instance has {longest} tokens",
            f"set stages.{name}.max_length to at least {longest}",
        )
    bounds = bounds_of(parts)
    train, held = _hold_out(name, bounds, stage, seed)
    check_weights(name, np.searchsorted(train, bounds).tolist(), weights)
    training = ReadySource(parts, weights, train, seed)
    held_out = ReadySource(parts, (1.0,) * len(parts), held, seed) if len(held) else None
    share = sum(len(part.labels) for part in parts) / sum(len(part.ids) for part in parts)
    return Sources(training, held_out, len(held), share)


def _hold_out(name: str, bounds: Sequence[int], stage: PretrainStage, seed: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        return hold_out(bounds, stage.validation, seed)
    except DataError as error:
        raise DataError(f"stages.{name}.{error.message}", error.hint) from error


def check_weights(name: str, bounds: Sequence[int], weights: Sequence[float]) -> None:
    """ConfigError for a corpus of which an epoch would take nothing."""
    for number, (weight, size) in enumerate(zip(weights, np.diff(bounds).tolist(), strict=True)):
        if weight * size < 1:
            raise ConfigError(
                f"stages.{name}.corpora[{number}].weight: {weight:g} of {size} documents is less than one per epoch",
                f"raise it to at least {1 / size:.3g}"
                if size
                else "leave this corpus out, or hold out fewer documents",
            )


def make_masking(stage: PretrainStage, vocabulary: Vocabulary) -> Masking:
    """How the stage masks."""
    return Masking(
        special_ids=(vocabulary.cls_id, vocabulary.sep_id, vocabulary.pad_id),
        vocab_size=vocabulary.size,
        mask_id=vocabulary.mask_id,
        probability=stage.mask_probability,
        max_predictions=stage.max_predictions,
        whole_word=stage.whole_word,
        is_continuation=vocabulary.is_continuation(),
    )
