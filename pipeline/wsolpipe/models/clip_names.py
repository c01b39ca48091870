"""Vectors of class names, each encoded once and only when it is met."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from wsolpipe.models.class_names import ClassNames
    from wsolpipe.models.clip import Clip

#: Names that are encoded together. Groups are cut by label, so a vector does not depend on which images came first.
GROUP = 32


class NameVectors:
    """Unit vectors of a class list, made when first asked for and kept.

    Parameters
    ----------
    clip : Clip
    names : ClassNames
    templates : sequence of str
        Each with ``{}`` where the name goes.
    background : sequence of str
        Words whose vectors are made at once, as `background`, float tensor [M, D].
    """

    def __init__(self, clip: Clip, names: ClassNames, templates: Sequence[str], background: Sequence[str] = ()) -> None:
        self.clip, self.names, self.templates = clip, names, tuple(templates)
        self.labels = sorted(names.prompts)
        self.background = clip.encode_names(background, templates)
        self._groups: dict[int, Tensor] = {}

    def __getitem__(self, label: int) -> Tensor:
        """Vector [D] of a label.

        Raises
        ------
        ConfigError
            If the list has no such label.
        """
        self.names.prompt(label)  # raises, naming list and label
        group, place = divmod(self.labels.index(label), GROUP)
        return self._group(group)[place]

    def everything(self) -> Tensor:
        """Vectors [K, D] of all labels, in their order."""
        return torch.cat([self._group(number) for number in range(-(-len(self.labels) // GROUP))])

    def _group(self, number: int) -> Tensor:
        if number not in self._groups:
            labels = self.labels[number * GROUP : (number + 1) * GROUP]
            words = [self.names.prompt(label) for label in labels]
            self._groups[number] = self.clip.encode_names(words, self.templates)
        return self._groups[number]

    def rows(self, present: Sequence[Sequence[int]], *, at_least: int = 1) -> tuple[Tensor, Tensor]:
        """Vectors of the classes of each of several images.

        Parameters
        ----------
        present : sequence of B sequences of int
            Labels; may be empty.
        at_least : int
            Lowest P.

        Returns
        -------
        names : float tensor [B, P, D]
            P is the longest of them; padded with zeros.
        there : bool tensor [B, P]
        """
        longest = max(at_least, *(len(labels) for labels in present))
        names = self.background.new_zeros(len(present), longest, self.background.shape[1])
        there = torch.zeros(len(present), longest, dtype=torch.bool, device=names.device)
        for row, labels in enumerate(present):
            for place, label in enumerate(labels):
                names[row, place] = self[label]
            there[row, : len(labels)] = True
        return names, there
