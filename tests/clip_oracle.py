"""CLIP-ES written out: float64, one image, one class at a time, straight from the tensors of OpenAI's key names.

Slow on purpose and sharing no line with the product: plain loops over heads, the N x N matrix divided, squared and
masked as the paper has it, boxes by flood fill. The tensors come in as a state dict.
"""

from __future__ import annotations

import math

import torch
from torch.nn.functional import gelu, interpolate, layer_norm


def random_state(*, width=128, layers=3, patch=16, side=64, dims=24, text_width=64, text_layers=1, context=16, seed=0):
    """A CLIP of OpenAI's shapes and key names with tensors lively enough that its attention is not flat."""
    draws = torch.Generator().manual_seed(seed)

    def tensor(*shape, gain=1.0):
        return gain * torch.randn(*shape, generator=draws)

    state = {
        "visual.class_embedding": tensor(width),
        "visual.positional_embedding": tensor((side // patch) ** 2 + 1, width),
        "visual.proj": tensor(width, dims, gain=width**-0.5),
        "visual.conv1.weight": tensor(width, 3, patch, patch, gain=(3 * patch * patch) ** -0.5 * 2),
        "positional_embedding": tensor(context, text_width),
        "token_embedding.weight": tensor(49408, text_width),
        "text_projection": tensor(text_width, dims, gain=text_width**-0.5),
        "logit_scale": torch.tensor(math.log(20.0)),
    }
    norms = [("visual.ln_pre", width), ("visual.ln_post", width), ("ln_final", text_width)]
    for tower, size, depth in (("visual.transformer", width, layers), ("transformer", text_width, text_layers)):
        for number in range(depth):
            block = f"{tower}.resblocks.{number}"
            norms += [(f"{block}.ln_1", size), (f"{block}.ln_2", size)]
            state |= {
                f"{block}.attn.in_proj_weight": tensor(3 * size, size, gain=size**-0.5),
                f"{block}.attn.in_proj_bias": tensor(3 * size, gain=0.1),
                f"{block}.attn.out_proj.weight": tensor(size, size, gain=size**-0.5),
                f"{block}.attn.out_proj.bias": tensor(size, gain=0.1),
                f"{block}.mlp.c_fc.weight": tensor(4 * size, size, gain=size**-0.5),
                f"{block}.mlp.c_fc.bias": tensor(4 * size, gain=0.1),
                f"{block}.mlp.c_proj.weight": tensor(size, 4 * size, gain=(4 * size) ** -0.5),
                f"{block}.mlp.c_proj.bias": tensor(size, gain=0.1),
            }
    for name, size in norms:
        state |= {f"{name}.weight": 1 + tensor(size, gain=0.2), f"{name}.bias": tensor(size, gain=0.2)}
    return state


class Oracle:
    """One vision tower; heads are 64 wide."""

    def __init__(self, state, *, quick_gelu):
        self.state = {key: value.double() for key, value in state.items()}
        self.quick = quick_gelu
        self.width = len(self.state["visual.class_embedding"])
        self.depth = sum(key.endswith("ln_1.weight") and key.startswith("visual.") for key in state)
        self.scale = math.exp(float(self.state["logit_scale"]))

    def norm(self, name, x):
        return layer_norm(x, x.shape[-1:], self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def attend(self, name, x):
        weight, bias = self.state[f"{name}.attn.in_proj_weight"], self.state[f"{name}.attn.in_proj_bias"]
        q, k, v = (
            x @ weight[i * self.width : (i + 1) * self.width].T + bias[i * self.width :][: self.width] for i in range(3)
        )
        gathered, shares = [], []
        for head in range(self.width // 64):
            part = slice(head * 64, (head + 1) * 64)
            share = torch.softmax(q[:, part] @ k[:, part].T / 8, dim=1)
            shares.append(share)
            gathered.append(share @ v[:, part])
        out = torch.cat(gathered, dim=1) @ self.state[f"{name}.attn.out_proj.weight"].T
        return out + self.state[f"{name}.attn.out_proj.bias"], sum(shares) / len(shares)

    def mlp(self, name, x):
        hidden = x @ self.state[f"{name}.mlp.c_fc.weight"].T + self.state[f"{name}.mlp.c_fc.bias"]
        hidden = hidden * torch.sigmoid(1.702 * hidden) if self.quick else gelu(hidden)
        return hidden @ self.state[f"{name}.mlp.c_proj.weight"].T + self.state[f"{name}.mlp.c_proj.bias"]

    def tokens(self, image):
        """[3, H, W] -> [1 + hw, C], grid."""
        kernel = self.state["visual.conv1.weight"]
        patch = kernel.shape[-1]
        h, w = image.shape[1] // patch, image.shape[2] // patch
        rows = [
            (kernel * image[:, y * patch : (y + 1) * patch, x * patch : (x + 1) * patch]).sum(dim=(1, 2, 3))
            for y in range(h)
            for x in range(w)
        ]
        table = self.state["visual.positional_embedding"]
        own = math.isqrt(len(table) - 1)
        plane = table[1:].reshape(own, own, -1).permute(2, 0, 1)[None]
        plane = interpolate(plane, size=(h, w), mode="bilinear", align_corners=False)[0]
        positions = torch.cat([table[:1], plane.permute(1, 2, 0).reshape(h * w, -1)])
        return self.norm("visual.ln_pre", torch.stack([self.state["visual.class_embedding"], *rows]) + positions), (
            h,
            w,
        )

    def embeddings(self, image):
        """Joint-space vectors of the class token and of the mean of patches."""
        x, _ = self.tokens(image)
        for number in range(self.depth):
            name = f"visual.transformer.resblocks.{number}"
            x = x + self.attend(name, self.norm(f"{name}.ln_1", x))[0]
            x = x + self.mlp(name, self.norm(f"{name}.ln_2", x))
        x = self.norm("visual.ln_post", x)
        return x[0] @ self.state["visual.proj"], x[1:].mean(dim=0) @ self.state["visual.proj"]

    def maps(self, image, names, background, target, *, softmax=True, temperature=1.0, blocks=8, threshold=0.4):
        """CAM and refined CAM [h, w] of one class; `names` [P, D] and `background` [M, D] are unit vectors."""
        x, (h, w) = self.tokens(image)
        shares = []
        for number in range(self.depth):
            name = f"visual.transformer.resblocks.{number}"
            normed = self.norm(f"{name}.ln_1", x)
            if number == self.depth - 1:
                normed = normed.detach().requires_grad_()
            out, share = self.attend(name, normed)
            shares.append(share.detach()[1:, 1:])
            x = x + out
            x = x + self.mlp(name, self.norm(f"{name}.ln_2", x))
        pooled = self.norm("visual.ln_post", x)[1:].mean(dim=0) @ self.state["visual.proj"]
        logits = self.scale / temperature * torch.cat([names, background]) @ (pooled / pooled.norm())
        score = torch.softmax(logits, 0)[target] if softmax else logits[target]
        gradient = torch.autograd.grad(score, normed)[0][1:]
        features = normed.detach()[1:]
        cam = sum(gradient[:, c].mean() * features[:, c] for c in range(self.width)).clamp(min=0)
        cam = stretch(cam).reshape(h, w)
        return cam, refine(cam, torch.stack(shares[-blocks:]).mean(0), threshold)


def stretch(values, times=2):
    """Min-max with 1e-7, so many times; a map with (almost) no span is 0."""
    if values.max() - values.min() <= 1e-5 * values.max():
        return torch.zeros_like(values)
    for _ in range(times):
        values = values - values.min()
        values = values / (1e-7 + values.max())
    return values


def refine(cam, affinity, threshold):
    """Divide, symmetrise, square, mask, multiply, min-max once."""
    w = affinity
    for _ in range(3):
        w = w / w.sum(dim=0, keepdim=True)
        w = w / w.sum(dim=1, keepdim=True)
    w = (w + w.T) / 2
    w = w @ w
    return stretch((w * boxes(cam, threshold).reshape(1, -1)) @ cam.reshape(-1), times=1).reshape(cam.shape)


def boxes(cam, threshold):
    """1 inside the boxes of 8-connected regions above the threshold, whose far edge is held at size - 1."""
    h, w = cam.shape
    levels = (cam * 255).to(torch.uint8).tolist()
    cut = int(threshold * max(max(row) for row in levels))
    left = {(y, x) for y in range(h) for x in range(w) if levels[y][x] > cut}
    mask = torch.zeros(h, w, dtype=torch.float64)
    while left:
        region, border = set(), [left.pop()]
        while border:
            y, x = border.pop()
            region.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            border += near
        ys, xs = [y for y, _ in region], [x for _, x in region]
        mask[min(ys) : min(max(ys) + 1, h - 1), min(xs) : min(max(xs) + 1, w - 1)] = 1
    return mask
