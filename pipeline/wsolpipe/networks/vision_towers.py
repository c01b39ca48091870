"""Vision towers in files of CLIP: OpenAI's and open_clip's names of tensors as timm's."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

TOWER, TRUNK = "visual.", "visual.trunk."
#: Parts of names, in the order in which they are replaced.
RENAMED = (
    ("conv1.", "patch_embed.proj."),
    ("positional_embedding", "pos_embed"),
    ("class_embedding", "cls_token"),
    ("transformer.resblocks.", "blocks."),
    ("ln_pre", "norm_pre"),
    ("ln_post", "norm"),
    ("attn.ln_q", "attn.q_norm"),
    ("attn.ln_k", "attn.k_norm"),
    ("ln_", "norm"),
    ("in_proj_", "qkv."),
    ("out_proj", "proj"),
    ("mlp.c_fc", "mlp.fc1"),
    ("mlp.c_proj", "mlp.fc2"),
)


def tower_of_clip(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Tensors of the vision tower of a CLIP under timm's names, for a timm model; any other state as it is.

    The text tower, the temperature and the projection to the joint space are left out. CLIP's patch embedding has no
    bias; a model that has one gets zeros.
    """
    own = model.state_dict()
    if any(name.startswith(TOWER) for name in own):  # a CLIP itself
        return dict(state)
    if any(name.startswith(TRUNK) for name in state):
        return {name.removeprefix(TRUNK): value for name, value in state.items() if name.startswith(TRUNK)}
    if f"{TOWER}class_embedding" not in state:
        return dict(state)
    tower = {}
    for name, value in state.items():
        if not name.startswith(TOWER) or name == f"{TOWER}proj":
            continue
        timm_name = name.removeprefix(TOWER)
        for theirs, timms in RENAMED:
            timm_name = timm_name.replace(theirs, timms)
        tower[timm_name] = {"cls_token": value.reshape(1, 1, -1), "pos_embed": value[None]}.get(timm_name, value)
    bias = "patch_embed.proj.bias"
    if bias in own:
        tower.setdefault(bias, state[f"{TOWER}class_embedding"].new_zeros(len(state[f"{TOWER}conv1.weight"])))
    return tower
