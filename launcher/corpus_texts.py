"""What a pre-training stage reads and how, in words for the plan."""

from __future__ import annotations

from collections.abc import Sequence

from configs.data import WITHOUT_UNSUP
from configs.schema import READY_INSTANCES, CorpusConfig, PretrainStage
from launcher.facts import CorpusFacts, StageFacts


def corpora(sections: Sequence[CorpusConfig], known: Sequence[CorpusFacts]) -> tuple[str, ...]:
    """One line per corpus: data set, splits, weight, and its documents once it is prepared."""
    facts = known if len(known) == len(sections) else [None] * len(sections)
    return tuple(_corpus(section, fact) for section, fact in zip(sections, facts, strict=True))


def _corpus(section: CorpusConfig, fact: CorpusFacts | None) -> str:
    ready = section.dataset == READY_INSTANCES
    splits = [split for split in section.splits if split != "unsup" or section.dataset not in WITHOUT_UNSUP]
    parts = [section.dataset if ready else f"{section.dataset} ({' + '.join(splits)})"]
    if section.weight != 1:
        parts.append(f"weight {section.weight:g}")
    if fact is not None:
        parts.append(f"{fact.documents:,} {'instances' if ready else 'documents'}")
        if fact.left_out:
            parts.append(f"{fact.left_out:,} left out that stand in a test split")
    return ", ".join(parts)


def instances(stage: PretrainStage, sections: Sequence[CorpusConfig]) -> str:
    """How instances are made; nothing to say of ready ones."""
    if any(section.dataset == READY_INSTANCES for section in sections):
        return "ready made, used as they are"
    parts = ["MLM and NSP" if stage.nsp else "MLM only"]
    if stage.nsp and stage.single_sentences == "alone":
        parts.append("single sentences alone")
    if stage.packing:
        parts.append("packed")
    if stage.whole_word:
        parts.append("whole words masked")
    if stage.dupe_factor is None:
        parts.append("drawn afresh every epoch")
    else:
        parts.append(f"drawn once, dupe factor {stage.dupe_factor}")
    return ", ".join(parts)


def held_out(stage: PretrainStage, known: StageFacts) -> str:
    """When which held-out documents are evaluated; empty where there are none."""
    if stage.validation == 0:
        return ""
    when = "every epoch" if stage.evaluate_every == "epoch" else f"every {stage.evaluate_every:,} steps"
    share = f"{stage.validation:,}" if isinstance(stage.validation, int) else f"{100 * stage.validation:g} % of the"
    amount = f"{known.num_held_out:,} documents ({known.num_validation:,} instances)" if known.num_held_out else ""
    return f"{when} on {amount or f'{share} documents'} held out"
