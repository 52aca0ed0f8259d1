"""What every section of the schema is made of: the strict base class, problems between values, and common types."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator
from typing_extensions import Self

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
STAGE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"

Text = Annotated[str, Field(min_length=1, pattern=r"^[^\x00-\x1f\x7f]*$")]
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
StageName = Annotated[str, Field(pattern=STAGE_PATTERN)]
PositiveInt = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]

COLLECT_PROBLEMS = "collect_problems"
"""Key of the validation context with which `problems()` is left to the caller."""


class Problem(NamedTuple):
    """Values that do not go together: the dotted keys that take part (the first is to blame) and what is
    wrong."""

    keys: tuple[str, ...]
    message: str


class Strict(BaseModel):
    """Base of every section: frozen, unknown keys refused, no silent conversion between types, no NaN or
    infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def problems(self) -> Iterator[Problem]:
        """What is wrong between values of this section that are each valid alone; keys are relative to the
        section."""
        return iter(())

    @model_validator(mode="after")
    def _values_go_together(self, info: ValidationInfo) -> Self:
        if not (info.context and info.context.get(COLLECT_PROBLEMS)):
            found = [f"{problem.keys[0]}: {problem.message}" for problem in self.problems()]
            if found:
                raise ValueError("; ".join(found))
        return self
