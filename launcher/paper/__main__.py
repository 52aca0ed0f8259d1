"""`python -m launcher.paper` writes configs/paper/ anew from recipes.py and tables.json."""

from __future__ import annotations

from launcher.paper.recipes import recipes
from launcher.paper.tables import CONFIGS, load
from launcher.paper.writing import render


def main() -> None:
    """Writes every file, and removes those without a recipe."""
    texts = {f"{name}.yaml": render(name, recipe, load()) for name, recipe in recipes().items()}
    for path in CONFIGS.glob("*.yaml"):
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        (CONFIGS / name).write_text(text, encoding="utf-8")
    print(f"{len(texts)} files in {CONFIGS}")


if __name__ == "__main__":
    main()
