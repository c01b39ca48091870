"""Features of one layer of a classifier and the gradients of its logits there, for any timm network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from wsolpipe.contract.errors import ConfigError, unknown

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wsolpipe.networks.classifier import ImageClassifier


@dataclass(frozen=True)
class MapLayout:
    """How a layer's output lies in memory.

    Attributes
    ----------
    kind : "NCHW", "NHWC" or "tokens"
    grid : (int, int)
        Rows and columns.
    prefix : int
        Tokens before the patches.
    """

    kind: str
    grid: tuple[int, int]
    prefix: int = 0

    def to_grid(self, output: Tensor) -> Tensor:
        """The layer's output as [N, C, h, w]; leading axes before N are kept."""
        if self.kind == "NCHW":
            return output
        if self.kind == "NHWC":
            return output.movedim(-1, -3)
        patches = output[..., self.prefix :, :]
        return patches.reshape(*patches.shape[:-2], *self.grid, patches.shape[-1]).movedim(-1, -3)


@dataclass(frozen=True)
class Pass:
    """One forward up to the logits, recorded from the layer on.

    Attributes
    ----------
    output : Tensor
        The layer's output, a leaf.
    logits : float32 Tensor [N, K]
    layout : Layout
    """

    output: Tensor
    logits: Tensor
    layout: MapLayout

    @property
    def features(self) -> Tensor:
        """float32 Tensor [N, C, h, w], without gradients."""
        return self.layout.to_grid(self.output.detach()).float()

    def gradients(self, classes: Tensor) -> Tensor:
        """Derivatives of the logits of `classes` [N, T] by the features: float32 Tensor [N, T, C, h, w]."""
        found = []
        for slot in range(classes.shape[1]):
            score = self.logits.gather(1, classes[:, slot : slot + 1]).sum()
            (gradient,) = torch.autograd.grad(score, self.output, retain_graph=slot + 1 < classes.shape[1])
            found.append(self.layout.to_grid(gradient).float())
        return torch.stack(found, dim=1)


class FeatureMaps:
    """A classifier opened at one layer.

    Parameters
    ----------
    classifier : ImageClassifier
        On its device, in evaluation mode, without gradients.
    layer : str, optional
        Dotted name of a module, such as ``layer3`` or ``blocks.11.norm1``. None for the features that timm pools
        (``forward_features``); in a transformer that reads only its class token, for the last block's ``norm1``, the
        last place where patches still count.

    Attributes
    ----------
    layer : str or None
        As chosen.
    layout : Layout
    weight : Tensor [K, C] or None
        Of the last linear layer, where the logits are a linear function of the mean of these features (measured, not
        guessed from the architecture).

    Raises
    ------
    ConfigError
        If there is no such layer, or its output is not a grid of features.
    """

    def __init__(self, classifier: ImageClassifier, layer: str | None = None) -> None:
        self.classifier = classifier
        self.net: Any = classifier.net
        names = dict(self.net.named_modules())
        if layer is not None and layer not in names:
            raise ConfigError(unknown(f"layer of {classifier.record.model}", layer, [name for name in names if name]))
        self.layer = layer or self._default(names)
        self._module: nn.Module | None = names[self.layer] if self.layer else None
        size = classifier.record.size
        # Noise and not a constant, so that no two features are alike when linearity is tested.
        probe = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)).to(classifier.mean.device)
        self._probe = probe.to(memory_format=classifier.memory_format)
        output, _ = self._run(self._probe)
        self.layout = self._layout(output)
        self.weight = self._linear_weight(output.detach())
        self.channels = int(self.layout.to_grid(output).shape[1])

    def __call__(self, inputs: Tensor) -> Pass:
        """Run normalised inputs [N, 3, S, S]."""
        output, logits = self._run(inputs)
        return Pass(output, logits, self.layout)

    def bends(self) -> bool:
        """Whether the logits have a second derivative by the features; measured at noise.

        False where they are linear or piecewise linear (ReLU, max pooling), True after smooth activations,
        normalisation or attention.
        """
        if self.weight is not None:
            return False
        output, logits = self._run(self._probe)
        generator = torch.Generator().manual_seed(1)

        def drawn(like: Tensor) -> Tensor:
            return torch.randn(like.shape, generator=generator).to(like)

        (slope,) = torch.autograd.grad((logits * drawn(logits)).sum(), output, create_graph=True)
        if not slope.requires_grad:
            return False
        try:
            (bend,) = torch.autograd.grad((slope * drawn(slope)).sum(), output, allow_unused=True)
        except RuntimeError:  # fused attention has no second derivative in torch, and is not linear
            return True
        return bend is not None and float(bend.abs().max()) > 1e-6 * float(slope.detach().abs().max())

    def _default(self, names: dict[str, nn.Module]) -> str | None:
        blocks = getattr(self.net, "blocks", None)
        reads_token = self.classifier.head is not None or getattr(self.net, "global_pool", None) in ("token", "")
        if getattr(self.net, "num_prefix_tokens", 0) and blocks is not None and reads_token:
            name = f"blocks.{len(blocks) - 1}.norm1"
            return name if name in names else None
        return None

    def _run(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        if self._module is None:
            with torch.no_grad():
                output = self.net.forward_features(inputs)
            output = output.detach().requires_grad_()
            return output, self.net.forward_head(output).float()
        seen: list[Tensor] = []

        def cut(_: nn.Module, __: Any, output: Any) -> Tensor:
            if not isinstance(output, torch.Tensor) or seen:
                where = f"layer {self.layer} of {self.classifier.record.model}"
                msg = f"{where} does not return a single tensor, or runs twice"
                raise ConfigError(msg, hint="cams.layer=null takes the last features")
            seen.append(output.detach().requires_grad_())
            return seen[0].clone()  # what follows may work in place

        handle = self._module.register_forward_hook(cut)
        try:
            logits = self.classifier(inputs).float()
        finally:
            handle.remove()
        if not seen or not logits.requires_grad:
            msg = f"the logits of {self.classifier.record.model} do not depend on layer {self.layer}"
            raise ConfigError(msg, hint="cams.layer=null takes the last features")
        return seen[0], logits

    def _layout(self, output: Tensor) -> MapLayout:
        shape = tuple(output.shape)
        if len(shape) == 4:
            last = getattr(self.net, "output_fmt", "NCHW") == "NHWC"
            if shape[2] != shape[3] or (last and shape[1] == shape[2]):
                return MapLayout("NHWC", (shape[1], shape[2]))
            return MapLayout("NCHW", (shape[2], shape[3]))
        prefix = int(getattr(self.net, "num_prefix_tokens", 0))
        if len(shape) == 3:
            side = round((shape[1] - prefix) ** 0.5)
            if side > 0 and side * side == shape[1] - prefix:
                return MapLayout("tokens", (side, side), prefix)
        where = f"layer {self.layer or 'forward_features'} of {self.classifier.record.model}"
        msg = f"{where} returns {list(shape)}, which is not a grid"
        raise ConfigError(msg, hint="cams.layer=NAME, of a layer whose output is [N, C, h, w] or tokens of a square")

    def _linear_weight(self, output: Tensor) -> Tensor | None:
        """Weight of the last layer where the head is that layer after the mean of the features: measured."""
        last = self.net.get_classifier() if self.classifier.head is None else None
        means = self.layout.to_grid(output).float().mean(dim=(-2, -1))
        if self._module is not None or not isinstance(last, torch.nn.Linear) or last.in_features != means.shape[1]:
            return None
        weight = last.weight.detach().float()
        bias = 0 if last.bias is None else last.bias.detach().float()
        with torch.no_grad():
            # Small and large features too: what bends only a little, or saturates far out, must not pass for linear.
            for factor in (1.0, 1e-2, 1e2):
                logits = self.net.forward_head(output * factor).float()
                plain = factor * means @ weight.T + bias
                if float((plain - logits).abs().max()) > 1e-4 * max(1.0, float(logits.abs().max())):
                    return None
        return weight
