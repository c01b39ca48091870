"""What keys of a recipe are made of: groups of them are declared beside the code that reads them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Keys(BaseModel):
    """Base of every group of recipe keys: unknown keys are refused, values do not change.

    Each field has a ``description`` with its meaning, unit and source; help and reference pages are made of these.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    def check(self) -> None:
        """Refuse values that fit their types but not each other; called once for each recipe.

        Raises
        ------
        ConfigError
            Names the key.
        """
