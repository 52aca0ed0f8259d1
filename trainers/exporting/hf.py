"""Export for Transformers: the stage's own folder is in that form already; a copy with a README."""

from __future__ import annotations

from pathlib import Path

from trainers.engine.files import write_synced
from trainers.exporting.source import Trained
from trainers.init_head import HEAD_FILE

_FILES = ("config.json", "vocab.txt", "tokenizer_config.json", "model.safetensors", HEAD_FILE)
CLASSES = {
    "pooler": "AutoModelForSequenceClassification",
    "pretraining": "AutoModelForPreTraining",
    "blocks": "AutoModel",
}


def fill_hf(trained: Trained, directory: Path) -> None:
    """Write the folder's files."""
    for name in _FILES:
        write_synced(directory / name, (trained.folder / name).read_bytes())
    write_synced(directory / "README.md", readme(trained).encode())


def readme(trained: Trained) -> str:
    """How to load the folder, and what Transformers cannot hold."""
    name = CLASSES[trained.head]
    return f"""# A BERT for Transformers

    from transformers import AutoTokenizer, {name}
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    model = {name}.from_pretrained(FOLDER)

{what_is_left_out(trained, "Transformers")}"""


def what_is_left_out(trained: Trained, library: str) -> str:
    """For heads that a library lacks: what the folder holds all the same, and why."""
    if trained.head == "pretraining":
        return "It has the heads of further pre-training: masked words and next sentence.\n"
    cut = truncation_note(trained)
    if trained.head == "pooler":
        return cut
    return (
        f"{library} has no classifier that reads the [CLS] states of chosen blocks ({trained.model.pooling} of "
        f"{', '.join(map(str, trained.model.blocks))}, counted from 0), so it loads the encoder alone, without a trained pooler.\n"
        f"The classifier is in model.safetensors as classifier.weight and classifier.bias; {HEAD_FILE} says how it was trained.\n"
        f"`--format inference` exports all of it.\n\n{cut}"
    )


def truncation_note(trained: Trained) -> str:
    """Which tokens of a text the model was trained on."""
    truncation, longest = trained.stage.truncation, trained.stage.max_length  # type: ignore[union-attr]
    kept = "the first tokens"
    if truncation.head is not None:
        kept = f"the first {truncation.head} tokens and as many of the last ones as fit"
    elif truncation.tail is not None:
        kept = f"the last {truncation.tail} tokens and as many of the first ones as fit"
    return f"It was trained on at most {longest} tokens; of longer texts {kept}. {HEAD_FILE} holds these settings.\n"
