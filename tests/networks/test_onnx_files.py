"""ONNX files: a key must cover every byte of the network."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from wsolpipe.contract.errors import WeightsError
from wsolpipe.networks.sources import resolve


def model(where):
    """A network whose one large tensor is an initializer, a constant, or in the branch of a condition."""
    large = numpy_helper.from_array(np.arange(4096, dtype=np.float32), "large")
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4096]) for name in "xy")
    if where == "initializer":
        graph = helper.make_graph([helper.make_node("Add", ["x", "large"], ["y"])], "g", [x], [y], [large])
    elif where == "constant":
        nodes = [
            helper.make_node("Constant", [], ["large"], value=large),
            helper.make_node("Add", ["x", "large"], ["y"]),
        ]
        graph = helper.make_graph(nodes, "g", [x], [y])
    else:
        branch = helper.make_graph([helper.make_node("Add", ["x", "large"], ["z"])], "b", [], [y], [large])
        flag = helper.make_tensor_value_info("flag", TensorProto.BOOL, [])
        node = helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch)
        graph = helper.make_graph([node], "g", [x, flag], [y])
    return helper.make_model(graph)


@pytest.mark.parametrize("where", ["initializer", "constant", "branch"])
def test_a_network_in_several_files_is_refused(tmp_path, where):
    whole, split = tmp_path / "whole.onnx", tmp_path / "split.onnx"
    onnx.save(model(where), whole)
    assert resolve(str(whole)).path == whole
    onnx.save(
        model(where), split, save_as_external_data=True, location="split.data", size_threshold=0, convert_attribute=True
    )
    assert (tmp_path / "split.data").stat().st_size > 16_000
    with pytest.raises(WeightsError, match="split.onnx keeps tensors in other files") as raised:
        resolve(str(split))
    assert "onnx.save" in raised.value.hint


@pytest.mark.parametrize("content", [b"", b"\x00", b"not a network at all", b"\x3a\xff\xff\xff\xff\x0f"])
def test_what_is_not_a_network_is_refused(tmp_path, content):
    (tmp_path / "w.onnx").write_bytes(content)
    with pytest.raises(WeightsError, match="w.onnx is not an ONNX file"):
        resolve(str(tmp_path / "w.onnx"))


def test_a_truncated_network_is_refused(tmp_path):
    onnx.save(model("initializer"), tmp_path / "w.onnx")
    (tmp_path / "w.onnx").write_bytes((tmp_path / "w.onnx").read_bytes()[:-100])
    with pytest.raises(WeightsError, match="w.onnx is not an ONNX file"):
        resolve(str(tmp_path / "w.onnx"))
