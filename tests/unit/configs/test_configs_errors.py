"""Error reports: all errors of a file in one, each with its line, the value, what is allowed and what was meant."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import yaml_nodes
from configs.errors import ConfigError, Exit
from configs.loader import load_config
from configs.names import OTHER_NAMES, nearest
from configs.unknown_keys import explain_unknown

SHIPPED_FOLDER = Path(yaml_nodes.__file__).parent
HEAD = "name: a\nmodel: b\ndata: {dataset: trec}\n"
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BERT4DOC_OVERRIDES", raising=False)

    def to_file(text: str) -> Path:
        path = Path("x.yaml")
        path.write_text(text, encoding="utf-8")
        return path

    return to_file


def report(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    assert caught.value.code == Exit.USAGE
    return caught.value.message.splitlines()


GOLDEN_YAML = """\
name: my run
model: bert-base-uncased
sed: 3
data:
  dataset: tre
  validation: 1.5
stages:
  pretrain:
    epochs: 3
    max_steps: 100
    learning_rate: 1e-4
  finetune:
    epochs: 4
    lr: '2e-5'
    lr: 3
    max_length: 128
    truncation: {head: 600}
train:
  log_samples: yes
"""
GOLDEN_REPORT = """\
x.yaml:1: name: 'my run' is not allowed; allowed: a name of 1 to 64 letters, digits, '.', '_' and '-' that begins \
with a letter or digit
x.yaml:3: sed: unknown key; did you mean 'seed'?
x.yaml:5: data.dataset: 'tre'; allowed: one of trec, imdb, ag_news, yahoo, dbpedia, yelp_polarity, \
yelp_full, sogou, sogou_pinyin, python_docs, tsv, csv, jsonl, text, bert_instances; did you mean 'trec'?
x.yaml:6: data.validation: 1.5; allowed: a number of at least 0 and below 1, or a whole number of at least 1
x.yaml:10: stages.pretrain.max_steps: give epochs (3) or max_steps (100), not both
x.yaml:11: stages.pretrain.learning_rate: unknown key; did you mean 'lr'?
x.yaml:14: stages.finetune.lr: '2e-5' is text; allowed: a number above 0; write 2e-5 without quotes
x.yaml:15: stages.finetune.lr: this key stands twice, on lines 14 and 15; keep one
x.yaml:17: stages.finetune.truncation.head: 600 must be below max_length - 2 = 126; leave truncation out to keep the \
first 126
x.yaml:19: train.log_samples: 'yes' is text; allowed: true or false; write true
next: mend the file or the arguments, then look at the result: ./run.sh plan x.yaml
"""


def test_golden_report_of_ten_errors_at_once(write: Write) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(GOLDEN_YAML))
    assert f"{caught.value}\n" == GOLDEN_REPORT


@pytest.mark.parametrize(
    ("stage", "line"),
    [
        ("{epochs: 1, lr: 0}", "lr: 0; allowed: a number above 0"),
        ("{epochs: 1, lr: .inf}", "lr: .inf is not a finite number; allowed: a number above 0"),
        ("{epochs: 1, lr: .nan}", "lr: .nan is not a finite number; allowed: a number above 0"),
        ("{epochs: 1, lr: true}", "lr: true; allowed: a number above 0"),
        ("{epochs: 1, lr:}", "lr: empty (null); allowed: a number above 0"),
        ("{epochs: 010}", "epochs: '010' is text; allowed: a whole number of at least 1, or null; write 10"),
        ("{epochs: 1_0}", "epochs: '1_0' is text; allowed: a whole number of at least 1, or null; write 10"),
        ("{epochs: 1e1}", "epochs: 1e1; allowed: a whole number of at least 1, or null; write 10"),
        ("{epochs: 12:30}", "epochs: '12:30' is text; allowed: a whole number of at least 1, or null"),
        ("{epochs: 1, warmup: 1.0}",
         "warmup: 1.0; allowed: a whole number of at least 0, or a number of at least 0 and below 1; write 1"),
        ("{epochs: 1, warmup: -1}",
         "warmup: -1; allowed: a whole number of at least 0, or a number of at least 0 and below 1"),
        ("{epochs: 1, layers: [1, -2]}",
         "layers: [1, -2]; allowed: one of pooler, all, or a list of whole numbers of at least 0"),
        ("{epochs: 1, layers: []}",
         "layers: []; allowed: one of pooler, all, or a list of whole numbers of at least 0"),
        ("{epochs: 1, layers: poler}",
         "layers: 'poler'; allowed: one of pooler, all, or a list of whole numbers of at least 0; "
         "did you mean 'pooler'?"),
        ("{epochs: 1, max_length: 5000}",
         "max_length: 5000; allowed: a whole number of at least 8 and up to 4096"),
        ("{epochs: 1, evaluate_every: epochs}",
         "evaluate_every: 'epochs'; allowed: a whole number of at least 1, or epoch; did you mean 'epoch'?"),
        ("{epochs: 1, schedule: Cosine}",
         "schedule: 'Cosine'; allowed: one of linear, cosine, constant, poly, bert_adam; did you mean 'cosine'?"),
        ("{epochs: 1, early_stopping: {}}", "early_stopping.patience: missing; needed: a whole number of at least 1"),
        ("{epochs: 1, early_stopping: 3}",
         "early_stopping: 3; allowed: a section of 'key: value' lines, or null"),
        ("{epochs: 1, freeze: encodr}",
         "freeze: 'encodr'; allowed: one of none, embeddings, encoder, or a whole number of at least 1; did you mean"
         " 'encoder'?"),
        ("{epochs: 1, layer_rates: 3}", "layer_rates: 3; allowed: a list of numbers above 0, or null"),
        ("{epochs: 1, truncation: 3}", "truncation: 3; allowed: a section of 'key: value' lines"),
        ("{epochs: 1, task: finetun}", "task: 'finetun'; allowed: pretrain, finetune or multitask; did you mean 'finetune'?"),
        ("{epochs: 1, nsp: true}", "nsp: unknown key; 'nsp' is only for stages with task: pretrain"),
        ("{epochs: 1, batch_size: 3}", "batch_size: unknown key; did you mean 'batch'?"),
        ("{epochs: 1, name: x}", "name: unknown key here; did you mean 'name'?"),
        ("{epochs: 1, save_steps: 3}", "save_steps: unknown key here; did you mean 'train.checkpoint_every'?"),
        ("{num_train_epochs: 1}", "num_train_epochs: unknown key; did you mean 'epochs'?"),
        ("{}", "epochs: missing; give epochs or max_steps"),
    ],
)  # fmt: skip
def test_one_error_of_a_stage(write: Write, stage: str, line: str) -> None:
    assert report(write(f"{HEAD}stages:\n  finetune: {stage}\n")) == [f"x.yaml:5: stages.finetune.{line}"]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("name: 2024\nmodel: b\ndata: {dataset: trec}\nstages: {finetune: {epochs: 1}}\n",
         ["x.yaml:1: name: 2024 is not text; allowed: a name of 1 to 64 letters, digits, '.', '_' and '-' that begins"
          ' with a letter or digit; write "2024" in quotes']),
        ("seed: 1\n",
         ["x.yaml:1: model: missing; needed: text",
          "x.yaml:1: name: missing; needed: a name of 1 to 64 letters, digits, '.', '_' and '-' that begins with a"
          " letter or digit",
          "x.yaml:1: stages: missing; needed: a section of 'key: value' lines"]),
        (HEAD + "stages: {}\n",
         ["x.yaml:4: stages: at least one stage is needed, such as finetune: {epochs: 4}"]),
        (HEAD + "stages: [a]\n", ["x.yaml:4: stages: ['a']; allowed: a section of 'key: value' lines"]),
        (HEAD + "stages:\n  finetune:\n", ["x.yaml:5: stages.finetune: empty (null); allowed: a section of 'key: value' lines"]),
        (HEAD + "stages:\n  warm: {epochs: 1}\n",
         ["x.yaml:5: stages.warm.task: missing; a stage that is not named pretrain, finetune or multitask needs task: pretrain,"
          " finetune or multitask"]),
        (HEAD + "stages:\n  fine.tune: {task: finetune, epochs: 1}\n",
         ["x.yaml:5: stages.fine.tune: not allowed as a name; needed: a name of 1 to 64 letters, digits, '_' and '-'"
          " that begins with a letter or digit"]),
        (HEAD + "stages:\n  model: {task: finetune, epochs: 1}\n",
         ["x.yaml:5: stages.model: 'model' cannot name a stage; the run directory uses it"]),
        (HEAD + "stages:\n  pretrain:\n    epochs: 1\n    splits:\n    - train\n    - test\n",
         ["x.yaml:9: stages.pretrain.splits[1]: 'test'; allowed: one of train, unsup"]),
        (HEAD + "stages: {finetune: {epochs: 1}}\nfinetune: {lr: 1}\n",
         ["x.yaml:5: finetune: unknown key; it belongs under stages: stages.finetune"]),
        (HEAD + "stages: {finetune: {epochs: 1}}\ndata.path: x\n",
         ["x.yaml:5: data.path: unknown key; a dotted key is for the command line, in YAML it is written as nested"
          " sections"]),
        (HEAD + "stages: {finetune: {epochs: 1}}\nmax_steps: 4\n",
         ["x.yaml:5: max_steps: unknown key here; did you mean 'stages.finetune.max_steps'?"]),
        (HEAD + "stages: {finetune: {epochs: 1}}\nzzzzzz: 4\n",
         ["x.yaml:5: zzzzzz: unknown key; allowed here: name, model, seed, data, stages, amp, train, launch"]),
        (HEAD + "stages: {finetune: {epochs: 1}}\nlaunch: {env: {A: 1, 2B: x}}\n",
         ["x.yaml:5: launch.env.2B: not allowed as a name; needed: a name of letters, digits and '_' that begins with"
          " no digit",
          'x.yaml:5: launch.env.A: 1 is not text; allowed: text; write "1" in quotes']),
        (HEAD + "stages: {finetune: {epochs: 1}}\nseed: 99999999999999999999999\n",
         ["x.yaml:5: seed: a number of 23 digits is too large"]),
        (HEAD + "stages: {finetune: {epochs: 1}}\n\"\\e[31mred\": 1\n",
         ["x.yaml:5: ?[31mred: unknown key; allowed here: name, model, seed, data, stages, amp, train, launch"]),
        (HEAD.replace("b", '"b\\u0007"') + "stages: {finetune: {epochs: 1}}\n",
         ["x.yaml:2: model: 'b\\x07' is not allowed; allowed: text without control characters"]),
        (HEAD.replace("b", '"\\uD800"') + "stages: {finetune: {epochs: 1}}\n",
         ["x.yaml:2: model: '\\ud800' is not allowed; allowed: text without control characters"]),
    ],
)  # fmt: skip
def test_errors_of_a_file(write: Write, text: str, lines: list[str]) -> None:
    assert report(write(text)) == lines


@pytest.mark.parametrize(
    ("data", "stages", "line"),
    [
        ("{dataset: csv}", "finetune: {epochs: 1}", "3: data.path: missing; dataset 'csv' needs the file or folder to read"),
        ("{dataset: imdb, labels: fine}", "finetune: {epochs: 1}",
         "3: data.labels: 'fine' exists only for dataset 'trec', not for 'imdb'"),
        ("{dataset: imdb, header: false}", "finetune: {epochs: 1}",
         "3: data.header: only for generic formats (tsv, csv, jsonl, text), not for dataset 'imdb'"),
        ("{dataset: csv, path: x, encoding: utf-9}", "finetune: {epochs: 1}",
         "3: data.encoding: 'utf-9' is no known text encoding, such as utf-8 or latin-1"),
        ("{dataset: csv, path: x, encoding: base64}", "finetune: {epochs: 1}",
         "3: data.encoding: 'base64' is no known text encoding, such as utf-8 or latin-1"),
        ("{dataset: csv, path: x, header: false, columns: {label: 0}}", "finetune: {epochs: 1}",
         "3: data.columns.text: 'text' is a name; with header: false a column is a number, 0 for the first"),
        ("{dataset: csv, path: x, columns: {label: text}}", "finetune: {epochs: 1}",
         "3: data.columns.label: 'text' is the column of the text as well"),
        ("{dataset: csv, path: x, columns: {label: null}}", "finetune: {epochs: 1}",
         "3: data.columns.label: null means no labels, and stage 'finetune' fine-tunes; name the column of the label"),
        ("{dataset: text, path: x}", "finetune: {epochs: 1}",
         "3: data.dataset: dataset 'text' has no labels, and stage 'finetune' fine-tunes; give it a labelled data set"),
        ("{dataset: trec, validation: 0}", "finetune: {epochs: 1, early_stopping: {patience: 1}}",
         "5: stages.finetune.early_stopping: needs validation rows, and data.validation is 0"),
        ("{dataset: trec}", "pretrain: {epochs: 1, splits: [unsup]}",
         "5: stages.pretrain.splits: dataset 'trec' has no split 'unsup'; allowed: [train]"),
        ("{dataset: trec}", "pretrain: {epochs: 1, splits: []}",
         "5: stages.pretrain.splits: name at least one split, each once: train, unsup"),
        ("{dataset: trec}", "finetune: {epochs: 1, layers: [3, 3]}", "5: stages.finetune.layers: [3, 3] names a block twice"),
        ("{dataset: trec}", "finetune: {epochs: 1, pooling: max}",
         "5: stages.finetune.pooling: 'max' combines several layers; with layers: pooler there is only one"),
        ("{dataset: trec}", "finetune: {epochs: 1, hierarchical: mean, truncation: {head: 0}}",
         "5: stages.finetune.hierarchical: a hierarchical text is not truncated; leave one of them out"),
        ("{dataset: csv, path: x, columns: {text_pair: b}}", "finetune: {epochs: 1, hierarchical: mean}",
         "5: stages.finetune.hierarchical: fractions are for single texts; leave it out for pairs, or set text_pair: null"),
        ("{dataset: trec}", "finetune: {epochs: 1, max_fractions: 2}",
         "5: stages.finetune.max_fractions: only with hierarchical: mean, max or attention"),
        ("{dataset: trec}", "finetune: {epochs: 1, classifier: bilstm, hierarchical: max}",
         "5: stages.finetune.hierarchical: the bilstm reads the last block's token states; leave this out, or use"
         " classifier: linear"),
        ("{dataset: trec}", "finetune: {epochs: 1, classifier: bilstm, layers: all}",
         "5: stages.finetune.layers: the bilstm reads the last block's token states; leave this out, or use"
         " classifier: linear"),
        ("{dataset: trec}", "finetune: {epochs: 1, lstm_size: 8}",
         "5: stages.finetune.lstm_size: only with classifier: bilstm"),
        ("{dataset: trec}", "finetune: {epochs: 1, layer_decay: 0.9, rate_bands: 2.6}",
         "5: stages.finetune.rate_bands: give layer_decay or rate_bands, not both; layer_decay: 1.0 is none"),
        ("{dataset: trec}", "finetune: {epochs: 1, layer_rates: [1e-5], rate_bands: 2.6}",
         "5: stages.finetune.rate_bands: give layer_rates or rate_bands, not both"),
        ("{dataset: trec}", "finetune: {epochs: 1, decay_embeddings: true}",
         "5: stages.finetune.decay_embeddings: only with layer_decay below 1"),
        ("{dataset: trec}", "finetune: {epochs: 1, clip: 0, clip_per_parameter: true}",
         "5: stages.finetune.clip_per_parameter: nothing is clipped with clip: 0; give the norm"),
        ("{dataset: trec}", "finetune: {epochs: 1, poly_power: 2.0}",
         "5: stages.finetune.poly_power: only for schedule 'poly', not for 'linear'"),
        ("{dataset: trec}", "finetune: {max_steps: 9, warmup: 9}",
         "5: stages.finetune.warmup: 9 steps must be below max_steps 9"),
        ("{dataset: trec}", "finetune: {epochs: 1, truncation: {head: 1, tail: 2}}",
         "5: stages.finetune.truncation.head: give head or tail, not both; the other part is max_length - 2 minus it"),
        ("{dataset: trec}", "finetune: {epochs: 1, max_length: 100, truncation: {tail: 98}}",
         "5: stages.finetune.truncation.tail: 98 must be below max_length - 2 = 98; leave truncation out to keep the"
         " first 98"),
        ("{dataset: trec}", "finetune: {epochs: 1, init: pretrain}",
         "5: stages.finetune.init: 'pretrain' is no earlier stage; allowed: model"),
        ("{dataset: trec}", "finetune: {epochs: 1, init: finetune}",
         "5: stages.finetune.init: 'finetune' is no earlier stage; allowed: model"),
    ],
)  # fmt: skip
def test_values_that_do_not_go_together(write: Write, data: str, stages: str, line: str) -> None:
    path = write(f"name: a\nmodel: b\ndata: {data}\nstages:\n  {stages}\n")
    assert report(path) == [f"x.yaml:{line}"]


def test_a_misspelt_task_does_not_hide_other_errors_of_its_stage(write: Write) -> None:
    lines = report(write(f"{HEAD}stages:\n  x: {{task: pretraining, epochs: 1, nsp: maybe, lr: -1, nope: 1}}\n"))
    assert lines == [
        "x.yaml:5: stages.x.lr: -1; allowed: a number above 0",
        "x.yaml:5: stages.x.nsp: 'maybe' is text; allowed: true or false",
        "x.yaml:5: stages.x.task: 'pretraining'; allowed: pretrain, finetune or multitask; did you mean 'pretrain'?",
    ]


def test_an_error_does_not_cause_errors_elsewhere(write: Write) -> None:
    text = "name: a\nmodel: b\ndata: {dataset: txt, path: x}\nstages:\n"
    stages = "  pretrain: 5\n  finetune: {epochs: x, init: pretrain, max_length: 8, truncation: {head: z}}\n"
    places = [line.split(": ")[1] for line in report(write(text + stages))]
    assert places == ["data.dataset", "stages.pretrain", "stages.finetune.epochs", "stages.finetune.truncation.head"]


@pytest.mark.parametrize("theirs", sorted(OTHER_NAMES))
def test_every_other_name_leads_to_a_key_that_exists(theirs: str) -> None:
    root: dict[str, Any] = {"stages": {"pretrain": {}, "finetune": {}, "multitask": {}}}
    places: list[tuple[str, ...]] = [
        (),
        ("data",),
        ("train",),
        ("amp",),
        ("stages", "pretrain"),
        ("stages", "finetune"),
        ("stages", "multitask"),
    ]
    messages = [explain_unknown((*place, theirs), root) for place in places]
    ours = OTHER_NAMES[theirs]
    assert any(f"'{ours}'" in message or f".{ours}'" in message for message in messages)


def test_nearest_ignores_case_and_dashes() -> None:
    assert nearest("IMDB", ["trec", "imdb"]) == "imdb"
    assert nearest("layer-decay", ["layer_decay"]) == "layer_decay"
    assert nearest("zzz", ["trec", "imdb"]) is None


def test_missing_file_names_near_files(write: Write, tmp_path: Path) -> None:
    write("")
    Path("other.yaml").write_text("")
    with pytest.raises(ConfigError) as caught:
        load_config(Path("othr.yaml"))
    assert caught.value.message == "othr.yaml: no such file; did you mean other.yaml?"
    with pytest.raises(ConfigError) as caught:
        load_config(Path("trec"))
    assert "did you mean" in caught.value.message
    assert "configs/trec.yaml" in caught.value.message
    assert "configs/imdb.yaml" in caught.value.hint


def test_syntax_error_has_line_and_column(write: Write) -> None:
    assert report(write("name: a\nmodel: b: c\n")) == [
        "x.yaml:2:9: not valid YAML: a second ': ' on this line; put the value in quotes, or mend the indentation"
    ]


def test_unreadable_file() -> None:
    assert report(Path("/proc/self/mem")) == ["/proc/self/mem: cannot be read: Input/output error"]


def test_impossible_path_is_no_such_file() -> None:
    for path in (Path("x" * 300), Path("x" * 300) / "y", Path("a\0b"), Path("/dev/null/x")):
        assert "no such file" in report(path)[0]


def test_odd_file_name_stays_on_one_line(write: Write, tmp_path: Path) -> None:
    path = Path("a\nb \x1b[31m.yaml")
    path.write_text("a: 1")
    assert all(line.startswith("a?b ?[31m.yaml:1: ") for line in report(path))


STRANGE: list[Any] = [None, True, 0, -1, 1.5, 1e400, "", "x", [], [1, "a"], {}, {"a": {"b": 1}}, "\x1b", 10**18]


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_damage_is_reported_not_crashed_on(data: st.DataObject) -> None:
    """A value anywhere replaced by something strange, and a key misspelt: a ConfigError or a valid configuration."""
    tree: Any = yaml_nodes.read_file(SHIPPED_FOLDER / "imdb.yaml").value
    for _ in range(data.draw(st.integers(1, 3))):
        here, depth = tree, data.draw(st.integers(0, 4))
        key = data.draw(st.sampled_from(sorted(here)))
        while depth and isinstance(here[key], dict) and here[key]:
            here, depth = here[key], depth - 1
            key = data.draw(st.sampled_from(sorted(here)))
        value = here.pop(key)
        name = data.draw(st.sampled_from([key, key, key[:-1], f"{key}s", "name", "1", "a.b"]))
        here[name] = copy.deepcopy(data.draw(st.sampled_from([value, *STRANGE])))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.yaml"
        path.write_text(json.dumps(tree).replace("Infinity", "1e400"), encoding="utf-8")
        message = ""
        try:
            load_config(path)
        except ConfigError as error:
            message = error.message
        assert all(line.startswith(f"{path}:1: ") for line in message.splitlines())
