"""VGG16-GAP, VGG16 with non-local blocks and InceptionV3-SPG beside the same networks written down once more."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as f

from small_cnns import made
from wsolpipe.contract.errors import ConfigError, WeightsError

LAYOUTS = {16: "2M2M3M3M3", 8: "2M2M3M33"}


def plain_vgg(state, image, layout, slope=0.0, attention=None):
    """Convolutions and poolings by a layout; weights by their order in the state."""
    weights = [(state[name], state[name.replace("weight", "bias")]) for name in state
               if name.startswith("features.") and state[name].ndim == 4 and state[name].shape[-1] == 3]  # fmt: skip
    done = block = 0
    for sign in layout:
        if sign == "M":
            image = f.max_pool2d(image, 2)
            continue
        for weight, bias in weights[done : done + int(sign)]:
            image = f.leaky_relu(f.conv2d(image, weight, bias, padding=1), slope)
        done, block = done + int(sign), block + 1
        if attention is not None and block > 1:
            image = attention(block, f.max_pool2d(image, 2) if block < 5 else image)
        elif attention is not None:
            image = f.max_pool2d(image, 2)
    assert done == len(weights) == 13
    return image


@pytest.mark.parametrize("stride", [16, 8])
def test_vgg16_gap_has_no_last_poolings(stride):
    args = {"width": 4, "output_stride": stride}
    model = made("cam", backbone="vgg16_gap", args=args, unstrided=0, fast=["conv6"]).eval()
    image, net = torch.randn(2, 3, 64, 64), model.net
    with torch.no_grad():
        last = plain_vgg(net.state_dict(), image, LAYOUTS[stride])
        expected = f.relu(f.conv2d(last, net.conv6.weight, net.conv6.bias, padding=1))
        torch.testing.assert_close(net.forward_features(image), expected)
        found = model.predict(image, torch.tensor([0, 2]))
    assert found.maps.shape == (2, 64 // stride, 64 // stride)
    torch.testing.assert_close(found.scores, net.fc(expected.mean((2, 3))))
    assert not [name for name in net.state_dict() if not name.startswith(("features.", "conv6.", "fc."))]


def test_nonlocal_blocks_add_attention_of_all_places():
    torch.manual_seed(0)
    net = made("nl_ccam", backbone="vgg16_nonlocal", args={"width": 4}, size=32, unstrided=0).net.eval()
    blocks = [layer for layer in net.features if type(layer).__name__ == "NonLocal"]
    assert [len(block.query_conv.weight) for block in blocks] == [1, 2, 4, 4]
    assert all(not block.bn.weight.any() for block in blocks)
    for block in blocks:
        nn.init.normal_(block.bn.weight)

    def attend(number, x):
        block = blocks[number - 2]
        rows = []
        for each in x:
            q, k, v = (
                layer(each[None])[0].flatten(1) for layer in (block.query_conv, block.key_conv, block.value_conv)
            )
            rows.append((v @ torch.softmax(q.T @ k, 1).T).view_as(each))
        return x + block.bn(block.mix_conv(torch.stack(rows)))

    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = plain_vgg(net.state_dict(), image, "22333", slope=0.2, attention=attend)
        torch.testing.assert_close(net.forward_features(image), expected, rtol=1e-4, atol=1e-5)


def test_imagenet_vgg_weights_go_to_the_convolutions_by_their_order(tmp_path):
    import timm

    source = timm.create_model("vgg16", num_classes=0, pretrained=False).state_dict()
    features = {name: value for name, value in source.items() if name.startswith("features.")}
    save_file({**features, "head.fc.weight": torch.zeros(3, 4)}, tmp_path / "vgg16.safetensors")
    from trained import build

    for backbone, method in (("vgg16_gap", "cam"), ("vgg16_nonlocal", "nl_ccam")):
        net = build(method, backbone, weights=str(tmp_path / "vgg16.safetensors"), size=32, classes=2, unstrided=0).net
        own = [layer.weight for layer in net.features if isinstance(layer, nn.Conv2d)]
        theirs = [value for name, value in features.items() if name.endswith("weight")]
        assert len(own) == 13
        assert all(torch.equal(one, other) for one, other in zip(own, theirs, strict=True))
    save_file({"features.0.weight": torch.zeros(2, 3, 3, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="do not fit"):
        build("cam", "vgg16_gap", weights=str(tmp_path / "other.safetensors"), size=32, classes=2, unstrided=0)


@pytest.mark.parametrize(("stride", "side"), [(16, 7), (8, 14)])
def test_inception_v3_spg_is_torchvisions_with_other_paddings(stride, side):
    from torchvision.models import inception_v3

    args = {"output_stride": stride}
    net = made("cam", backbone="inception_v3_spg", args=args, size=112, unstrided=0, fast=["SPG_"]).net.eval()
    other = inception_v3(weights=None, init_weights=False, aux_logits=False).eval()
    known = set(other.state_dict()) & set(net.state_dict())
    other.load_state_dict({name: net.state_dict()[name] for name in known - {"fc.weight", "fc.bias"}}, strict=False)
    other.Conv2d_1a_3x3.conv.padding = (1, 1)
    with torch.no_grad():
        image = torch.randn(1, 3, 112, 112)
        x = other.Conv2d_2b_3x3(other.Conv2d_2a_3x3(other.Conv2d_1a_3x3(image)))
        x = f.max_pool2d(x, 3, 2, 1, ceil_mode=True)
        x = f.max_pool2d(other.Conv2d_4a_3x3(other.Conv2d_3b_1x1(x)), 3, 2, 1, ceil_mode=True)
        x = other.Mixed_5d(other.Mixed_5c(other.Mixed_5b(x)))
        x = f.max_pool2d(x, 3, 2, ceil_mode=True) if stride == 16 else x
        first = other.Mixed_6a
        for layer in (first.branch3x3.conv, first.branch3x3dbl_3.conv):
            layer.stride, layer.padding = (1, 1), (1, 1)
        double = first.branch3x3dbl_3(first.branch3x3dbl_2(first.branch3x3dbl_1(x)))
        x = torch.cat([first.branch3x3(x), double, f.max_pool2d(x, 3, 1, 1)], 1)
        x = other.Mixed_6e(other.Mixed_6d(other.Mixed_6c(other.Mixed_6b(x))))
        expected = net.SPG_A3_2b(net.SPG_A3_1b(x))
        found = net.forward_features(image)
    assert found.shape[-1] == side
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_other_strides_are_refused():
    with pytest.raises(ConfigError, match="output_stride=32"):
        made("cam", backbone="vgg16_gap", args={"width": 4, "output_stride": 32}, unstrided=0)
