"""What the Paddle port of the paper saved from its own runs: token ids of 54 reviews and 20 learning rates (paper.md section 6)."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import DataError
from configs.schema import FinetuneStage
from trainers.align.rows import Result, Row, compare_row
from trainers.data.tokenize import Tokenizer
from trainers.data.truncate import assemble, truncate_single
from trainers.data.vocabulary import load_vocabulary
from trainers.optim.schedule import make_schedule

Arrays = dict[str, np.ndarray]
SECTION = "the Paddle port's own values"
TOKENS = "seed_tokenisation.jsonl"
RATES = "seed_learning_rate.json"
VOCABULARY = "../vocab/bert-base-uncased-vocab.txt"
LINE_BREAK = "<br />"
TOKEN_ROW = Row("port ids", "token ids of 54 reviews, 7 cut", 0.0, 0.0)
RATE_ROW = Row("port rates", "its first 20 learning rates", 1e-18, 1e-12)


def compare_fixtures(directory: Path | None) -> list[Result]:
    """Both rows; skipped when the directory or a file of it is not there. DataError for a file that is no fixture."""
    if directory is None:
        return [_skipped(row, "not here; name their folder with --fixtures") for row in (TOKEN_ROW, RATE_ROW)]
    return [
        _compare(TOKEN_ROW, (directory / TOKENS, directory / VOCABULARY), _token_arrays),
        _compare(RATE_ROW, (directory / RATES,), _rate_arrays),
    ]


def _compare(row: Row, files: tuple[Path, ...], read: Any) -> Result:
    absent = next((path for path in files if not path.is_file()), None)
    if absent is not None:
        return _skipped(row, f"not here: {absent}")
    try:
        ours, theirs = read(*files)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{files[0]}: not readable as a fixture: {error!r}", "see --fixtures in --help") from error
    return compare_row(SECTION, row, ours, theirs, {})


def _skipped(row: Row, why: str) -> Result:
    return Result(SECTION, row, "skipped", 0, 0, math.nan, math.nan, f"skipped: {why}")


def _token_arrays(tokens: Path, vocabulary_file: Path) -> tuple[Arrays, Arrays]:
    """Ids from this project's tokenizer and cuts, and the saved ones."""
    vocabulary = load_vocabulary(vocabulary_file)
    tokenizers = {lower: Tokenizer(vocabulary, lower) for lower in (False, True)}
    ours, theirs = {}, {}
    for number, line in enumerate(tokens.read_text(encoding="utf-8").splitlines()):
        saved = json.loads(line)
        text = saved["text"].replace(LINE_BREAK, "") if saved["remove_br"] else saved["text"]
        ids = tokenizers[saved["do_lower_case"]].encode(text)
        kept = truncate_single(ids, saved["max_seq_length"], saved["head_tokens"], None)
        key = f"{TOKEN_ROW.prefix}/{number:02d} {saved['source']}"
        ours[key] = assemble(kept, None, vocabulary.cls_id, vocabulary.sep_id)[0].astype(np.int64)
        theirs[key] = np.array(saved["input_ids"], dtype=np.int64)
    return ours, theirs


def _rate_arrays(rates: Path) -> tuple[Arrays, Arrays]:
    """The schedule of the port's run, and what it logged."""
    saved = json.loads(rates.read_text(encoding="utf-8"))
    stage = FinetuneStage(task="finetune", epochs=1, lr=saved["base_lr"], warmup=saved["warmup_proportion"])
    schedule = make_schedule(stage, saved["total_steps"])
    key = f"{RATE_ROW.prefix}/steps 1 to {len(saved['paddle'])}"
    ours = {key: np.array([schedule(step) for step in range(len(saved["paddle"]))])}
    return ours, {key: np.array(saved["paddle"])}
