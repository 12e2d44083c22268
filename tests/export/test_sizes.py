"""Sizes in a graph: constants where the batch does not matter, and only there."""

import warnings
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from compress.export.sizes import fold_sizes


class Same(nn.Module):
    """SAME padding by arithmetic on floats, as timm has it, and an answer that needs the batch."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 3, 2)
        self.token = nn.Parameter(torch.randn(1, 1, 4))

    def forward(self, images):
        pads = []
        for size in images.shape[2:]:
            size = torch.as_tensor(size)
            whole = ((torch.ceil(size / 2) - 1) * 2 + 3 - size).clamp(min=0).to(torch.int64)
            pads = [whole // 2, whole - whole // 2, *pads]
        found = self.convolution(nn.functional.pad(images, pads))
        found = found.reshape(images.shape[0], 4, -1).transpose(1, 2)
        return torch.cat([self.token.expand(images.shape[0], -1, -1), found], 1)


@pytest.fixture
def graph(tmp_path):
    torch.manual_seed(0)
    net, path = Same().eval(), tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            (torch.zeros(2, 1, 7, 8),),
            path,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}},
            opset_version=18,
            dynamo=False,
        )
    return net, path


def test_pads_become_constants_and_the_batch_stays_open(graph):
    net, path = graph
    before = Counter(node.op_type for node in onnx.load(path).graph.node)
    assert before["Ceil"] == 2  # or the test tests nothing
    images = np.random.default_rng(0).normal(size=(5, 1, 7, 8)).astype(np.float32)
    fold_sizes(path, {"x": images})
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    after = Counter(node.op_type for node in model.graph.node)
    assert not {"Ceil", "Clip", "Div", "Cast", "Sub"} & after.keys()
    assert after["Shape"] <= 2  # of the batch
    pads = next(node.input[1] for node in model.graph.node if node.op_type == "Pad")
    assert pads in {tensor.name for tensor in model.graph.initializer}
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (1, 5):
        (found,) = session.run(None, {"x": images[:batch]})
        assert np.allclose(found, net(torch.from_numpy(images[:batch])).detach().numpy(), atol=1e-5)


def test_a_graph_without_sizes_stays_as_it_is(tmp_path):
    path = tmp_path / "model.onnx"
    x, y = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["batch", 2]) for n in "xy")
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", [x], [y])), path)
    before = path.read_bytes()
    fold_sizes(path, {"x": np.zeros((1, 2), np.float32)})
    assert path.read_bytes() == before
