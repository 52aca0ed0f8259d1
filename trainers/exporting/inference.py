"""Export for Paddle's inference library: a program and its parameters, checked against the trained model before it is handed over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle

from configs.errors import ConfigError
from trainers.data.truncate import assemble
from trainers.engine.amp import AmpPolicy
from trainers.engine.evaluation import predict_batch
from trainers.engine.files import write_synced
from trainers.exporting.padded import PaddedClassifier
from trainers.exporting.source import Trained
from trainers.init_head import HEAD_FILE

TOLERANCE = 1e-4
"""Largest difference of logits that is put down to another order of additions; it is some 1e-6."""
_COPIED = ("config.json", "vocab.txt", "tokenizer_config.json", HEAD_FILE)


def fill_inference(trained: Trained, directory: Path) -> float:
    """Write the folder's files; returns the largest difference of logits on the check. ConfigError when they do not agree."""
    from paddle.static import InputSpec

    layer = PaddedClassifier(trained.model, trained.vocabulary.pad_id)
    layer.eval()
    specs = [InputSpec([None, None], "int64", name) for name in ("input_ids", "token_type_ids")]
    paddle.jit.save(paddle.jit.to_static(layer, input_spec=specs, full_graph=True), str(directory / "model"))
    for path in directory.iterdir():
        path.chmod(0o600)
    for name in _COPIED:
        write_synced(directory / name, (trained.folder / name).read_bytes())
    program = next(path.name for path in sorted(directory.glob("model.*")) if path.suffix in (".json", ".pdmodel"))
    write_synced(directory / "example.py", _example(trained, program).encode())
    write_synced(directory / "README.md", _readme(trained, program).encode())
    return _check(trained, directory, program)


def _check(trained: Trained, directory: Path, program: str) -> float:
    """The exported program against the trained model, on random tokens: one, several, padded, a pair, the longest."""
    sequences = _samples(trained)
    expected = predict_batch(trained.model, [[each] for each in sequences], AmpPolicy("off", "float32", ""))
    found = run_inference(directory, program, *pad(sequences, trained.vocabulary.pad_id))
    largest = float(np.abs(found - expected).max())
    scale = max(1.0, float(np.abs(expected).max()))
    if not largest <= TOLERANCE * scale:
        raise ConfigError(
            f"export: the exported program's logits differ by {largest:.2e} from the model's; nothing was written",
            "export with --format hf or paddlenlp, and report this",
        )
    return largest


def _samples(trained: Trained) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    longest = trained.stage.max_length
    cls_id, sep_id = trained.vocabulary.cls_id, trained.vocabulary.sep_id

    def some(count: int) -> np.ndarray:
        ids = rng.integers(0, trained.vocabulary.size, count, dtype=np.int32)
        return np.where(ids == trained.vocabulary.pad_id, trained.vocabulary.unk_id, ids)

    room = longest - 3
    pair = (some(room // 2), some(room // 3))
    singles = [some(count) for count in (0, 1, room // 2, longest - 2)]
    return [*(assemble(ids, None, cls_id, sep_id) for ids in singles), assemble(*pair, cls_id, sep_id)]


def pad(sequences: list[tuple[np.ndarray, np.ndarray]], pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """(ids, token types), both int64 [B, S], padded at the end."""
    shape = (len(sequences), max(len(ids) for ids, _ in sequences))
    ids_BS, types_BS = np.full(shape, pad_id, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for row, (ids, types) in enumerate(sequences):
        ids_BS[row, : len(ids)], types_BS[row, : len(ids)] = ids, types
    return ids_BS, types_BS


def run_inference(folder: Path, program: str, ids_BS: np.ndarray, types_BS: np.ndarray) -> np.ndarray:
    """Logits [B, C] of an exported folder, by Paddle's inference library on the CPU."""
    from paddle.inference import Config, create_predictor

    config = Config(str(folder / program), str(folder / "model.pdiparams"))
    config.disable_glog_info()
    logits: np.ndarray = create_predictor(config).run([paddle.to_tensor(ids_BS), paddle.to_tensor(types_BS)])[0].numpy()
    return logits


def _example(trained: Trained, program: str) -> str:
    return f'''"""Classify texts with this folder: python example.py "first text" "second text" ..."""
import json, pathlib, sys, warnings
import numpy, tokenizers
warnings.filterwarnings("ignore", "No ccache found")  # which only those need who compile
from paddle.inference import Config, create_predictor
here = pathlib.Path(__file__).resolve().parent
labels = json.loads((here / "config.json").read_text(encoding="utf-8"))["id2label"]
tokenizer = tokenizers.BertWordPieceTokenizer(str(here / "vocab.txt"), lowercase={trained.lower_case})
tokenizer.enable_truncation({trained.stage.max_length})
tokenizer.enable_padding(pad_id={trained.vocabulary.pad_id})
config = Config(str(here / "{program}"), str(here / "model.pdiparams"))
config.disable_glog_info()  # says nothing of how it optimises the program
predictor = create_predictor(config)
rows = tokenizer.encode_batch(sys.argv[1:])  # a pair of texts: [("first", "second")]
for name, value in (("input_ids", [row.ids for row in rows]), ("token_type_ids", [row.type_ids for row in rows])):
    predictor.get_input_handle(name).copy_from_cpu(numpy.array(value, dtype="int64"))
predictor.run()
logits = predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu()
chances = numpy.exp(logits - logits.max(1, keepdims=True))
chances /= chances.sum(1, keepdims=True)
for text, row in zip(sys.argv[1:], chances):
    print(labels[str(row.argmax())], f"{{row.max():.4f}}", text, sep="\\t")
'''


def _readme(trained: Trained, program: str) -> str:
    from trainers.exporting.hf import truncation_note

    return f"""# A BERT classifier for Paddle's inference library

`{program}` (the program) and `model.pdiparams` (the parameters), made with Paddle {paddle.__version__}.

| | name | type | shape | |
|---|---|---|---|---|
| input | input_ids | int64 | [batch, tokens] | [CLS] text [SEP] (text [SEP]), padded with {trained.vocabulary.pad_id} at the end |
| input | token_type_ids | int64 | [batch, tokens] | 0; 1 for the second text of a pair |
| output | the only one | float32 | [batch, {len(trained.label_names)}] | logits; classes as in config.json, id2label |

Any batch size, and up to {trained.config.max_positions} tokens. `python example.py "a text"` shows how it is used.

{truncation_note(trained)}"""
