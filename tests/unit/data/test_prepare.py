"""`python -m trainers.prepare` as the launcher runs it: records on stdout, prepared.json, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.data.test_model_store import make_model
from trainers.data.documents import join_corpora
from trainers.data.instances import Recipe, plan_epoch
from trainers.data.store import open_corpus, open_texts

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A model, a data set of 60 rows and a config with both tasks."""
    make_model(tmp_path / "model")
    data = tmp_path / "data"
    data.mkdir()
    rows = [f'"{"word " * (number % 7 + 1)}. Next {number}. Last one.",{"ab"[number % 2]}' for number in range(60)]
    (data / "train.csv").write_text("text,label\n" + "\n".join(rows[:50]) + "\n")
    (data / "test.csv").write_text("text,label\n" + "\n".join(rows[50:]) + "\n")
    (tmp_path / "config.yaml").write_text(
        f"""name: small
model: {tmp_path}/model
data: {{dataset: csv, path: {data}, validation: 0.2}}
stages:
  pretrain: {{epochs: 1, max_length: 32}}
  finetune: {{epochs: 1, max_length: 16}}
"""
    )
    return tmp_path


def run(work: Path, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    command = [sys.executable, "-m", "trainers.prepare", *(arguments or ("--config", str(work / "config.yaml")))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "BERT4DOC_CACHE": str(work / "cache")}
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_a_run_directory_gets_prepared_json(work: Path) -> None:
    code, records = run(work, "--run-dir", str(work))
    assert code == 0
    assert records[-1]["what"] == "done"
    assert {record["type"] for record in records} == {"prepare"}
    prepared = json.loads((work / "prepared.json").read_text())
    assert records[-1]["summary"] == prepared
    assert prepared["model_dir"] == str(work / "model")
    assert prepared["model"]["num_layers"] == 2
    finetune = prepared["stages"]["finetune"]
    assert (finetune["num_examples"], finetune["num_validation"], finetune["num_test"]) == (40, 10, 10)
    assert finetune["label_names"] == ["a", "b"]
    texts = open_texts(Path(finetune["splits"]["train"]))
    assert len(texts) == 50
    assert finetune["mean_tokens"] == 16  # every row is longer than 14 tokens
    assert finetune["num_tokens"] == 40 * 16
    pretrain = prepared["stages"]["pretrain"]
    corpus = open_corpus(Path(pretrain["corpora"][0]["entry"]))
    plan = plan_epoch(join_corpora([corpus], [1.0]), Recipe(32, 0.1, nsp=True, alone=False), seed=42, epoch=0)
    assert pretrain["num_examples"] == len(plan)
    assert pretrain["num_tokens"] == int(np.sum(plan.lengths))
    assert pretrain["label_names"] is None
    assert corpus.num_documents == 50  # the test split is never in the corpus


def test_preparing_again_reads_nothing_but_checksums(work: Path) -> None:
    run(work)
    code, records = run(work)
    assert code == 0
    assert not [record for record in records if record.get("what") == "tokenize"]


def test_overrides_subsets_and_stages_with_their_own_data(work: Path) -> None:
    code, records = run(
        work,
        *(
            "--config",
            str(work / "config.yaml"),
            "data.subset.train=20",
            "data.subset.test=4",
            "data.validation=5",
            "seed=7",
        ),
    )
    assert code == 0
    stages = records[-1]["summary"]["stages"]
    assert [stages["finetune"][key] for key in ("num_examples", "num_validation", "num_test")] == [15, 5, 4]
    assert open_corpus(Path(stages["pretrain"]["corpora"][0]["entry"])).num_documents == 20
    # the cache holds whole texts: another length or subset needs no new entry
    before = set((work / "cache" / "tokens").iterdir())
    assert (
        run(
            work,
            "--config",
            str(work / "config.yaml"),
            "stages.finetune.max_length=64",
            "seed=7",
            "data.subset.train=20",
        )[0]
        == 0
    )
    assert set((work / "cache" / "tokens").iterdir()) == before


def write_multitask(work: Path, mixing: str) -> None:
    """The same data twice, as two data sets of which one is a part; no top-level data."""
    data = f"dataset: csv, path: {work}/data, validation: 0.2"
    (work / "config.yaml").write_text(
        f"""name: many
model: {work}/model
stages:
  multitask:
    data_sets: {{whole: {{{data}}}, part: {{{data}, subset: {{train: 20, test: 4}}}}}}
    mixing: {mixing}
    epochs: 1
    batch: 8
    max_length: 16
"""
    )


def test_a_multitask_stage_has_the_facts_of_every_data_set(work: Path) -> None:
    write_multitask(work, "proportional")
    code, records = run(work)
    assert code == 0
    stage = records[-1]["summary"]["stages"]["multitask"]
    whole, part = stage["data_sets"]["whole"], stage["data_sets"]["part"]
    assert [whole[key] for key in ("num_examples", "num_validation", "num_test")] == [40, 10, 10]
    assert [part[key] for key in ("num_examples", "num_validation", "num_test")] == [16, 4, 4]
    assert [stage[key] for key in ("num_examples", "num_validation", "num_test")] == [56, 14, 14]
    assert stage["num_tokens"] == 56 * 16
    assert (stage["task"], whole["label_names"]) == ("multitask", ["a", "b"])
    assert len(stage["data_fingerprint"]) == 64


@pytest.mark.parametrize(
    ("mixing", "override", "message"),
    [
        ("{whole: 100, part: 1}", "seed=1", "stages.multitask.mixing: the weight of part is too small"),
        ("equal", "multitask.warmup=7", "stages.multitask.warmup: 7 steps; the stage has only 7"),  # 5 + 2 batches
        ("equal", "multitask.data_sets.part.columns.label=text2", "column 'text2'"),
    ],
)
def test_what_a_multitask_stage_refuses(work: Path, mixing: str, override: str, message: str) -> None:
    write_multitask(work, mixing)
    code, records = run(work, "--config", str(work / "config.yaml"), override)
    assert code in (2, 65)
    assert message in records[-1]["message"]


def test_a_validation_file_is_used_whole(work: Path) -> None:
    (work / "data" / "validation.csv").write_text("text,label\nsome text,a\nmore,b\nand more,b\n")
    code, records = run(work)
    assert code == 0
    finetune = records[-1]["summary"]["stages"]["finetune"]
    assert (finetune["num_examples"], finetune["num_validation"]) == (50, 3)
    assert set(finetune["splits"]) == {"train", "test", "validation"}


def test_a_stopped_preparation_leaves_nothing_half_built(work: Path) -> None:
    row = f"{'many different words to cut ' * 40},"
    (work / "data" / "train.csv").write_text("text,label\n" + "".join(f"{row}{'ab'[n % 2]}\n" for n in range(9_000)))
    command = [sys.executable, "-m", "trainers.prepare", "--config", str(work / "config.yaml")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "BERT4DOC_CACHE": str(work / "cache")}
    with subprocess.Popen(command, cwd=work, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any('"tokenize"' in line for line in process.stdout)  # reads up to the first one
        assert len(list((work / "cache" / "tokens").iterdir())) == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    assert list((work / "cache" / "tokens").iterdir()) == []


def test_documents_of_one_sentence_are_warned_of(work: Path) -> None:
    (work / "data" / "train.csv").write_text("text,label\none,a\ntwo,b\nthree,a\n")
    code, records = run(work)
    assert code == 0
    warnings = [record["text"] for record in records if record["type"] == "message" and record["level"] == "warning"]
    assert warnings == [
        "stages.pretrain: 3 of 3 documents are one sentence, which always gets a random second part; consider single_sentences: alone or "
        "nsp: false"
    ]


def summary(work: Path, *overrides: str) -> dict[str, Any]:
    code, records = run(work, "--config", str(work / "config.yaml"), *overrides)
    assert code == 0, records[-1]
    stages: dict[str, Any] = records[-1]["summary"]["stages"]
    return {**stages, "messages": [record["text"] for record in records if record["type"] == "message"]}


def test_bad_rows_are_skipped_counted_and_warned_of(work: Path) -> None:
    with (work / "data" / "train.csv").open("a") as stream:
        stream.write(",a\none,two,three\n")
    code, records = run(work)
    assert code == 65
    assert records[-1]["message"] == (
        "train.csv:52: column 'text' is empty\ntrain.csv:53: 3 columns: 'one,two,three'; allowed: 2, as in the first row"
    )
    for _ in range(2):  # the second time nothing is read: the cache entry remembers
        stages = summary(work, "data.on_bad_row=skip", "data.max_bad_rows=0.05")
        assert (stages["finetune"]["num_skipped"], stages["pretrain"]["num_skipped"]) == (2, 2)
        assert stages["finetune"]["num_examples"] + stages["finetune"]["num_validation"] == 50
        assert stages["messages"] == [
            f"stages.{where}: 2 of 52 rows are bad and skipped, the first: train.csv:52: column 'text' is empty; "
            "train.csv:53: 3 columns: 'one,two,three'; allowed: 2, as in the first row"
            for where in ("pretrain: csv corpus", "finetune: train split")
        ]
    code, records = run(work, "--config", str(work / "config.yaml"), "data.on_bad_row=skip")
    assert code == 65
    assert records[-1]["message"].startswith(
        "2 of 52 rows are bad (3.85%); data.max_bad_rows allows 1.00%. The first:\n"
    )


def test_repeats_lengths_and_labels_are_described(work: Path) -> None:
    (work / "data" / "train.csv").write_text(
        "text,label\nabc,a\nabcdefgh,b\nABC.,a\nx y z,b\n" + "".join(f"number {n},b\n" for n in range(16))
    )
    (work / "data" / "test.csv").write_text("text,label\nx-y-z,a\nabc,a\nnew,b\n")
    plain = summary(work, "data.validation=0", "stages.finetune.max_length=8")
    facts = plain["finetune"]
    # "number 1" is five of the six phrases of "number 10" to "number 15": letters are tokens
    assert facts["num_repeats"] == {
        "repeated": 1, "near": 7, "in_test": 3, "near_test": 3, "test_in_train": 2, "test_near_train": 2,
    }  # fmt: skip
    assert (facts["label_counts"], facts["num_dropped"]) == ([2, 18], 0)
    # with [CLS] and [SEP]; letters are tokens: abc 5, abcdefgh 10, "abc ." 6, x y z 5, "number 7" 9, "number 10" 10
    lengths = [5, 10, 6, 5, *[9] * 10, *[10] * 6]
    assert facts["lengths"] == {"mean": sum(lengths) / 20, "max": 10, "share_over": 17 / 20}
    assert plain["pretrain"]["num_repeats"] == {"repeated": 1}
    assert plain["messages"][-1] == (
        "stages.finetune: 2 of 3 test rows also stand in the training split (as 3 rows); "
        "data.overlap=drop leaves those training rows out"
    )
    dropped = summary(work, "data.validation=0", "stages.finetune.max_length=8", "data.overlap=drop")
    assert (dropped["finetune"]["num_examples"], dropped["finetune"]["num_dropped"]) == (17, 3)
    assert dropped["finetune"]["num_test"] == 3
    assert (dropped["pretrain"]["num_documents"], dropped["pretrain"]["num_dropped"]) == (17, 3)
    assert dropped["messages"][-1].endswith("(as 3 rows); those training rows are left out")
    for stage in ("pretrain", "finetune"):
        assert dropped[stage]["data_fingerprint"] != plain[stage]["data_fingerprint"]
    assert dropped["finetune"]["splits"] == plain["finetune"]["splits"]  # rows keep their numbers


def test_the_data_fingerprint_changes_with_the_rows(work: Path) -> None:
    every = [
        summary(work, *overrides)["finetune"]
        for overrides in (
            (),
            ("data.subset.train=0.5",),
            ("data.subset.per_class=5",),
            ("data.validation=3",),
            ("data.validation=0.1", "data.folds=4", "data.fold=0"),
            ("data.validation=0.1", "data.folds=4", "data.fold=1"),
            ("seed=3",),
        )
    ]
    assert len({facts["data_fingerprint"] for facts in every}) == len(every)
    assert summary(work)["finetune"]["data_fingerprint"] == every[0]["data_fingerprint"]
    few = every[2]
    assert (few["label_counts"], few["num_examples"], few["num_validation"]) == ([5, 5], 10, 3)  # 0.2 : 0.8 of 10
    # 25 rows of each class in 4 folds
    assert [facts["num_validation"] for facts in every[4:6]] == [13, 13]
    code, records = run(work, "--config", str(work / "config.yaml"), "data.subset.per_class=26")
    assert code == 65
    assert "26 rows of each class wanted; there are fewer of: a 25, b 25" in records[-1]["message"]


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (("data/train.csv", "text,label\na,x\n,y\n"), 65, "train.csv:3: column 'text' is empty"),
        (("data/train.csv", "text,label\na,x\nb,x\n"), 65, "all rows have the label x"),
        (("model/config.json", "{}"), 65, "model_type None"),
        (("arguments", "data.path=/nowhere"), 65, "data.path: /nowhere does not exist"),
        (("arguments", "data.path=/dev/null"), 65, "data.path: /dev/null is neither a file nor a folder"),
        (("arguments", "finetune.warmup=2"), 2, "stages.finetune.warmup: 2 steps; the stage has only 2"),
        (("arguments", "model=bert-base-uncasd"), 2, "Did you mean bert-base-uncased?"),
        (
            ("arguments", "stages.finetune.max_length=128"),
            2,
            "stages.finetune.max_length: 128; the model model has 64 positions",
        ),
        (
            ("arguments", "stages.finetune.layers=[0,5]"),
            2,
            "stages.finetune.layers: 5; the model model has blocks 0 to 1",
        ),
        (
            ("arguments", "stages.finetune.layer_rates=[1e-5]"),
            2,
            "stages.finetune.layer_rates: 1 rates; the model model has 2 blocks",
        ),
        (
            ("arguments", "stages.finetune.rate_bands=2.6"),
            2,
            "stages.finetune.rate_bands: 2.6; the model model has 2 blocks, too few for three bands",
        ),
        (("arguments", "stages.finetune.freeze=3"), 2, "stages.finetune.freeze: 3; the model model has 2 blocks"),
        (("arguments", "stages.finetune.lerning_rate=1"), 2, "lerning_rate"),
        (("cache", "x"), 73, "cannot write"),
    ],
)
def test_what_a_user_reads(work: Path, change: tuple[str, str], code: int, message: str) -> None:
    where, value = change
    arguments = ["--config", str(work / "config.yaml")]
    if where == "arguments":
        arguments.append(value)
    else:
        (work / where).write_text(value)
    found, records = run(work, *arguments)
    assert found == code
    assert records[-1]["type"] == "error"
    assert records[-1]["exit_code"] == code
    assert message in records[-1]["message"]
    assert "Traceback" not in json.dumps(records)


def write_init_head(work: Path, folder: str, label: str = "b", init: str = "multitask") -> None:
    """A stage that takes over the classifier of `first`, on data whose second class is called `label`."""
    rows = "".join(f"word {number},{('a', label)[number % 2]}\n" for number in range(30))
    (work / folder).mkdir(exist_ok=True)
    (work / folder / "train.csv").write_text("text,label\n" + rows)
    data = f"{{dataset: csv, path: {work}/data}}"
    (work / "config.yaml").write_text(
        f"name: many\nmodel: {work}/model\nstages:\n"
        f"  multitask: {{data_sets: {{first: {data}, second: {data}}}, epochs: 1, max_length: 16}}\n"
        f"  tuned: {{task: finetune, epochs: 1, max_length: 16, init: {init}, init_head: first, "
        f"data: {{dataset: csv, path: {work}/{folder}}}}}\n"
    )


def test_a_classifier_with_other_labels_is_refused_before_anything_starts(work: Path) -> None:
    write_init_head(work, "same")
    assert run(work)[0] == 0
    write_init_head(work, "other", "z")  # as many classes, with another name
    code, records = run(work)
    assert code == 2
    assert records[-1]["message"] == (
        "stages.tuned.init_head: the classifier of first has 2 classes (a, b), the stage's data has 2 classes (a, z)"
    )


def test_the_labels_of_another_runs_classifier(work: Path) -> None:
    here, other = work / "many", work / "other"
    for folder in (here, other / "multitask" / "model"):
        folder.mkdir(parents=True)
    for each in (work / "model").iterdir():
        (other / "multitask" / "model" / each.name).write_bytes(each.read_bytes())
    write_init_head(work, "same")
    (other / "config.yaml").write_text((work / "config.yaml").read_text())
    (other / "multitask" / "done.json").write_text("{}")
    write_init_head(work, "same", init="other/multitask")
    (here / "config.yaml").write_text((work / "config.yaml").read_text())
    for heads, said in (
        ({"first": ["a", "b"]}, None),
        ({"first": ["b", "a"]}, "the classifier of first has 2 classes (b, a)"),
        ({"last": ["a", "b"]}, "multitask/model has last"),
        ({}, "is no multi-task model"),
    ):
        values = {"heads": {name: {"label_names": names, "pairs": False} for name, names in heads.items()}}
        (other / "multitask" / "model" / "bert4doc.json").write_text(json.dumps(values))
        code, records = run(work, "--run-dir", str(here))
        assert code == (0 if said is None else 2), records[-1]
        assert said is None or said in records[-1]["message"]
    (here / "tuned").mkdir()
    (here / "tuned" / "done.json").write_text("{}")
    assert run(work, "--run-dir", str(here))[0] == 0, "what is finished needs its start no more"


def test_changed_data_of_a_finished_stage_is_told(work: Path) -> None:
    assert run(work, "--run-dir", str(work))[0] == 0
    prepared = json.loads((work / "prepared.json").read_text())
    for name, facts in prepared["stages"].items():
        (work / name).mkdir()
        (work / name / "done.json").write_text(json.dumps({"data_fingerprint": facts["data_fingerprint"]}))

    def told() -> list[str]:
        code, records = run(work, "--run-dir", str(work))
        assert code == 0
        return [record["text"].partition(",")[0] for record in records if record.get("level") == "warning"]

    assert told() == []
    (work / "data" / "test.csv").write_text("text,label\nnothing is trained on this,a\n")
    assert told() == []
    with (work / "data" / "train.csv").open("a") as file:
        file.write("one more,a\n")
    assert told() == [
        f"stages.{name}: its data has changed since it was trained (its files" for name in ("pretrain", "finetune")
    ]
    (work / "finetune" / "done.json").unlink()
    assert len(told()) == 1


def test_the_labels_of_trec_do_not_change_its_corpus(work: Path) -> None:
    (work / "trec").mkdir()
    for name, rows in (("train_5500.label", 30), ("TREC_10.label", 6)):
        lines = [f"{('LOC:city', 'HUM:ind', 'LOC:state')[n % 3]} Word number {n} ?\n" for n in range(rows)]
        (work / "trec" / name).write_text("".join(lines))

    def fingerprint(*overrides: str) -> str:
        code, records = run(
            work, "--config", str(work / "config.yaml"), "data.dataset=trec", f"data.path={work}/trec", *overrides
        )
        assert code == 0, records[-1]
        return str(records[-1]["summary"]["stages"]["pretrain"]["data_fingerprint"])

    assert fingerprint() == fingerprint("data.labels=fine")
    assert fingerprint("data.subset.train=12") != fingerprint("data.subset.train=12", "data.labels=fine")
