"""`predict RUN`: labels and probabilities for new texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from launcher.cli import options


def predict(
    run: options.RunOrFolderArgument,
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE|-]", help="Texts: lines, TSV, CSV or JSON lines; - reads stdin.", show_default=False
        ),
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option("--text", metavar="T", help="A text; may be repeated.", show_default=False)
    ] = None,
    text_pair: Annotated[
        list[str] | None,
        typer.Option(
            "--text-pair", metavar="T", help="The second text of each --text (models of pairs).", show_default=False
        ),
    ] = None,
    file: Annotated[
        str | None, typer.Option("--file", metavar="FILE", help="The same as FILE.", show_default=False)
    ] = None,
    layout: Annotated[
        Literal["auto", "text", "tsv", "csv", "jsonl"],
        typer.Option(
            "--format",
            help="auto: by the end of the file's name. text: one text per line, a pair as TEXT<TAB>TEXT. A blank line is an empty"
            " text in plain text and in tables of one column; in other tables and in JSON lines it is skipped.",
        ),
    ] = "auto",
    column: Annotated[
        str | None,
        typer.Option("--column", metavar="C", help="Column of the text: name or 0-based number. Default: as trained."),
    ] = None,
    pair_column: Annotated[
        str | None, typer.Option("--pair-column", metavar="C", help="Column of the second text (models of pairs).")
    ] = None,
    no_header: Annotated[bool, typer.Option("--no-header", help="TSV, CSV: the first row is data.")] = False,
    stage: options.OneStageOption = None,
    head: options.HeadOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines with the probability of every class.")] = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="TSV with a header and the probability of every class.")
    ] = False,
    batch: Annotated[
        int | None, typer.Option("--batch", metavar="N", min=1, help="Most texts computed at once.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="Write here: whole or not at all.", show_default=False),
    ] = None,
    runs_dir: options.RunsDirOption = None,
) -> None:
    """Print label and probability of texts, in their order: texts given here, a file of any size, or stdin."""
    from configs.errors import ConfigError
    from launcher.trained import run_module_on

    files = [value for value in (source, file) if value is not None]
    if len(files) + bool(text) != 1:
        raise ConfigError(
            "predict: give exactly one of --text TEXT, a file, or - for stdin",
            f'./run.sh predict {run} --text "What is the capital of France ?"',
        )
    if text_pair and not text:
        raise ConfigError("--text-pair: belongs to --text", "in a file the second text has a column of its own")
    what = [f"--text={each}" for each in text or ()] + [f"--text-pair={each}" for each in text_pair or ()]
    what += [f"--file={_checked_file(name, run)}" for name in files]
    what += [f"--format={layout}"]
    for name, value in (("column", column), ("pair-column", pair_column), ("batch", batch), ("head", head)):
        what += [] if value is None else [f"--{name}={value}"]
    what += [] if output is None else [f"--output={output.absolute()}"]
    flags = {"--json": as_json, "--probabilities": probabilities, "--no-header": no_header}
    what += [name for name, given in flags.items() if given]
    raise typer.Exit(run_module_on("trainers.predict", run, stage, runs_dir, tuple(what)))


def _checked_file(name: str, run: str) -> str:
    """- for stdin, else an absolute path. ConfigError for a file that is not there."""
    from configs.errors import ConfigError

    if name == "-":
        return name
    path = Path(name)
    if path.is_dir():
        raise ConfigError(f"{path}: a folder, not a file of texts", "name a file, or - for standard input")
    if not path.exists():
        raise ConfigError(f"{path}: no such file", f'./run.sh predict {run} --text "..." for one text')
    return str(path.absolute())
