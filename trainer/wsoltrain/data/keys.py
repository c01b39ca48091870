"""What keys of a recipe are made of: groups of them are declared beside the code that reads them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from wsolpipe.keys.models import spell_none


class Keys(BaseModel):
    """Base of every group of recipe keys: unknown keys are refused, values do not change.

    Each field has a ``description`` with its meaning, unit and source; help and reference pages are made of these.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _spell_none(cls, given: Any) -> Any:
        return spell_none(cls, given)

    def check(self) -> None:
        """Refuse values that fit their types but not each other; called once for each recipe.

        Raises
        ------
        ConfigError
            Names the key.
        """
