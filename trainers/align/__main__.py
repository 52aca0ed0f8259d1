"""`python -m trainers.align`: compute both sides, compare, write the result as JSON. ./run.sh align shows it as a table."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from configs.errors import Exit, UserError


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="align", description=__doc__)
    parser.add_argument("--reference-python", required=True, help="interpreter with torch and transformers")
    parser.add_argument("--model", default="all-minilm-l6-v2", help="model with real weights: a folder or a name")
    parser.add_argument("--quick", action="store_true", help="the random model only")
    parser.add_argument("--fixtures", type=Path, help="folder of the Paddle port's saved values")
    parser.add_argument("--threads", type=int, default=1, help="threads of each side")
    parser.add_argument("--result", type=Path, required=True, help="where the JSON goes")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """0 when every row passes, 1 when one fails, the error's code for a user's mistake."""
    from trainers.align.alignment import align

    options = parse_arguments(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="bert4doc-align-") as directory:
            outcome = align(Path(directory), options)
        options.result.write_text(json.dumps(outcome), encoding="utf-8")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    return Exit.DONE if outcome["passed"] else Exit.FAILED


if __name__ == "__main__":
    sys.exit(main())
