"""What `init:` of a stage may say: the model, an earlier stage, a stage of another run, each also at an intermediate step."""

from __future__ import annotations

import re
from dataclasses import dataclass

MODEL = "model"
FORMS = "model, STAGE, STAGE@STEP, RUN/STAGE or RUN/STAGE@STEP"
_PATTERN = re.compile(
    r"(?:(?P<run>[A-Za-z0-9][A-Za-z0-9._-]{0,63})/)?(?P<stage>[A-Za-z0-9][A-Za-z0-9_-]{0,63})(?:@(?P<step>[0-9]{1,9}))?"
)


@dataclass(frozen=True)
class Init:
    """A place that weights come from. The model has no stage."""

    stage: str | None = None
    run: str | None = None
    """Another run under the same runs directory; None: this one."""
    step: int | None = None
    """An intermediate model of the stage; None: its result. 0: the weights that the stage itself started from."""

    @property
    def is_model(self) -> bool:
        """The top-level model, untouched."""
        return self.stage is None

    @property
    def folder(self) -> str:
        """The model folder below the run directory."""
        return f"{self.stage}/model" if self.step is None else f"{self.stage}/models/step-{self.step:08d}"

    def __str__(self) -> str:
        if self.stage is None:
            return MODEL
        return f"{f'{self.run}/' if self.run else ''}{self.stage}{'' if self.step is None else f'@{self.step}'}"


def parse_init(text: str) -> Init | None:
    """Reads `init:`; None for what has none of the forms."""
    if text == MODEL:
        return Init()
    match = _PATTERN.fullmatch(text)
    if match is None:
        return None
    step = match["step"]
    return Init(match["stage"], match["run"], None if step is None else int(step))
