"""TrCAM-V: DiPS's network on other tokens, foreground and background of one map, map sizes.

Murtaza et al., "Leveraging transformers for weakly supervised object localization in unconstrained videos", ANNPR
2024; thesis, appendix II.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch

from wsoltrain.methods.dips import Dips

if TYPE_CHECKING:
    from torch import Tensor

    from wsolpipe.networks.vit import Tokens


class TrCam(Dips):
    """As written: the decoder reads each patch token beside the class token."""

    def channels(self) -> int:
        """Patch token and class token."""
        return 2 * self.encoder.width

    def features(self, tokens: Tokens) -> Tensor:
        """Patch tokens and the last block's class token, [B, 2 D, h, w]."""
        last = tokens.classes[:, -self.encoder.width :, None, None]
        return torch.cat([tokens.patches, last.expand_as(tokens.patches)], 1)


class TrCamAttention(Dips):
    """As released: the decoder reads the last block's attention of all queries to the patches."""

    wants_attention: ClassVar[bool] = True

    def channels(self) -> int:
        """One channel for each head and query."""
        return self.encoder.heads * (1 + self.encoder.cells)

    def features(self, tokens: Tokens) -> Tensor:
        """Attention of each head and query to each patch, [B, heads (1 + h w), h, w]."""
        assert tokens.attention is not None  # noqa: S101 - asked for by `wants_attention`
        return tokens.attention
