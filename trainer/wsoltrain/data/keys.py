"""Groups of keys of a recipe; each is declared beside the code that reads it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, field_validator, model_validator

from wsolpipe.keys.models import spell_none

#: Of the numbers that float32 holds at full precision.
LARGEST, SMALLEST = 3.4028234e38, 1.1754944e-38


def _split(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


#: Texts that may be written with commas and without brackets, as help shows them.
Texts = Annotated[tuple[str, ...], BeforeValidator(_split)]


class Keys(BaseModel, extra="forbid", frozen=True, protected_namespaces=()):
    """Base of every group of recipe keys: unknown keys are refused, values do not change.

    Numbers, also those within lists and mappings, are finite, fit into float32 or int64, and are 0 or large enough not
    to become 0 there.

    The docstring of each describes its fields, with unit and source; help and reference pages are made of these.
    """

    @model_validator(mode="before")
    @classmethod
    def _spell_none(cls, given: Any) -> Any:
        return spell_none(cls, given)

    @field_validator("*")
    @classmethod
    def _fits_tensors(cls, value: Any) -> Any:
        for number in _numbers(value):
            if isinstance(number, int) and not -(2**63) <= number < 2**63:
                msg = f"{number:.3g} does not fit into 64 bits"
                raise ValueError(msg)
            if isinstance(number, float) and number and not SMALLEST <= abs(number) <= LARGEST:
                msg = f"{number:g} is not a finite number of float32"
                raise ValueError(msg)
        return value

    def check(self) -> None:
        """Refuse values that fit their types but not each other; called once for each recipe.

        Raises
        ------
        ConfigError
            Names the key.
        """


def _numbers(value: Any) -> Iterator[int | float]:
    """Numbers in a value, whatever lists and mappings they are in."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from _numbers(each)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value
