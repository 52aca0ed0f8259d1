"""configs/paper/: what the recipes say, headers that quote the paper's figures, cells that name stages which exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from configs.loader import load_config
from configs.schema import Config
from launcher.paper import tables
from launcher.paper.recipes import recipes
from launcher.paper.writing import render

PAPER = tables.load()
FILES = sorted(tables.CONFIGS.glob("*.yaml"))
# The paper's tables 4 and 8 and two rows of others, once more by hand (arXiv 1905.05583v3)
BY_HAND = {
    (2, "head+tail"): [5.42, 2.43],
    (3, "Layer-11"): [5.42],
    (4, "lr 2.5e-5"): [5.52, 5.46, 5.44, 5.58],
    (4, "lr 2.0e-5"): [5.42, 5.40, 5.52, 5.65],
    (5, "Yahoo! A."): [5.52, 2.08, 29.31, 1.80, 22.38, 5.16, 0.67],
    (6, "ITPT-FiT"): [4.37, 1.92, 29.42, 3.20, 22.38, 4.80, 0.68, 1.93],
    (6, "IDPT-FiT"): [4.88, 1.87, 29.25, 2.20, 21.86, 4.88, 0.65],
    (7, "CDPT-MFiT-FiT"): [4.96, 2.06, 5.13, 0.67],
    (8, "FiT"): [4.86, 2.04, 29.25, 4.86, 0.62],
    (8, "ITPT-FiT"): [4.21, 1.81, 28.62, 4.66, 0.61],
}


@pytest.fixture
def config(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.delenv("BERT4DOC_OVERRIDES", raising=False)
    return load_config(request.param).config


@pytest.mark.parametrize("place", BY_HAND, ids=lambda place: f"{place[0]}-{place[1]}")
def test_figures_are_the_papers(place: tuple[int, str]) -> None:
    found = [cell.error for cell in PAPER.cells if (cell.table, cell.row) == place]
    assert found == BY_HAND[place]


def test_how_many_figures_each_table_has() -> None:
    assert {table: len(PAPER.table(table)) for table in PAPER.titles} == {2: 12, 3: 19, 4: 8, 5: 84, 6: 38, 7: 8, 8: 10}


def test_a_file_for_every_config_and_none_besides() -> None:
    assert {path.stem for path in FILES} == set(recipes()) == set(PAPER.configs)


@pytest.mark.parametrize("name", recipes())
def test_the_file_is_what_the_recipe_writes(name: str) -> None:
    text = (tables.CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")
    assert text == render(name, recipes()[name], PAPER), "python -m launcher.paper writes the files anew"
    assert all(len(line) <= 120 for line in text.splitlines())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_header_quotes_every_figure(path: Path) -> None:
    comments = [line.removeprefix("#").strip() for line in path.read_text().splitlines() if line.startswith("#")]
    text = re.sub(r"decay \d\.\d\d", "", " ".join(comments))
    quoted = re.findall(r"(?<![\w.])\d+\.\d\d(?![\w.])", text)
    assert sorted(quoted) == sorted(cell.error_text for cell in PAPER.of_config(path.stem))


@pytest.mark.parametrize("config", FILES, ids=lambda path: path.stem, indirect=True)
def test_it_loads_and_has_the_stages_that_the_tables_name(config: Config) -> None:
    cells = PAPER.of_config(config.name)
    assert {cell.stage for cell in cells} <= set(config.stages)
    assert all(config.stages[cell.stage].task == "finetune" for cell in cells)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_seeds_keep_every_stage_with_its_group(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BERT4DOC_OVERRIDES", raising=False)
    config = load_config(path, seeds=(1, 2)).config
    for cell in PAPER.of_config(path.stem):
        assert len(config.members(cell.stage)) == 2, cell.stage
