import math

import torch
from torch.nn import functional as F

from seal.models import architecture
from seal.models.conch import ConchVisual
from seal.models.encoder_registry import CONCH


def tiny() -> ConchVisual:
    torch.manual_seed(0)
    model = architecture.make_plain(CONCH, 64, tiny=True).eval()
    for parameter in model.parameters():  # start values of norms and biases would hide their use
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def test_embedding_equals_the_pool_written_out():
    model = tiny()
    w, heads, width = model.state_dict(), model.attn_pool_contrast.attn.num_heads, 32
    tokens = torch.randn(3, 17, 48)
    pool = {key.removeprefix("attn_pool_contrast."): value for key, value in w.items() if "pool_contrast" in key}
    query = F.layer_norm(pool["query"], (width,), pool["ln_q.weight"], pool["ln_q.bias"])
    normed = F.layer_norm(tokens, (48,), pool["ln_k.weight"], pool["ln_k.bias"])
    bias_q, bias_k, bias_v = pool["attn.in_proj_bias"].chunk(3)
    q = (query @ pool["attn.q_proj_weight"].T + bias_q).view(heads, -1)
    k = (normed @ pool["attn.k_proj_weight"].T + bias_k).view(3, 17, heads, -1)
    v = (normed @ pool["attn.v_proj_weight"].T + bias_v).view(3, 17, heads, -1)
    scores = torch.einsum("hd,bthd->bht", q, k) / math.sqrt(width / heads)
    out = torch.einsum("bht,bthd->bhd", scores.softmax(-1), v).reshape(3, width)
    out = out @ pool["attn.out_proj.weight"].T + pool["attn.out_proj.bias"]
    expected = F.layer_norm(out, (width,), w["ln_contrast.weight"], w["ln_contrast.bias"])
    torch.testing.assert_close(model.pool(tokens), expected, atol=1e-5, rtol=1e-4)


def test_forward_pools_the_normed_tokens_and_leaves_projection_and_captions_out():
    model, images = tiny(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before = model(images)
        torch.testing.assert_close(before, model.pool(model.trunk.forward_features(images)))
        model.proj_contrast.zero_()
        for parameter in model.attn_pool_caption.parameters():
            parameter.zero_()
        torch.testing.assert_close(model(images), before, atol=0, rtol=0)


def test_keys_and_shapes_are_those_of_the_release():
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in architecture.make_plain(CONCH, 448).state_dict().items()}
    pool = ("query", "attn.in_proj_bias", "attn.out_proj.weight", "attn.out_proj.bias")
    pool += ("ln_q.weight", "ln_q.bias", "ln_k.weight", "ln_k.bias")
    separate = ("attn.q_proj_weight", "attn.k_proj_weight", "attn.v_proj_weight")
    block = [f"{part}.{kind}" for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
             for kind in ("weight", "bias")]  # fmt: skip
    expected = {"proj_contrast", "trunk.cls_token", "trunk.pos_embed"}
    expected |= {f"{name}.{kind}" for name in ("trunk.patch_embed.proj", "trunk.norm", "ln_contrast", "ln_caption")
                 for kind in ("weight", "bias")}  # fmt: skip
    expected |= {f"trunk.blocks.{i}.{name}" for i in range(12) for name in block}
    expected |= {f"attn_pool_contrast.{name}" for name in (*pool, *separate)}
    expected |= {f"attn_pool_caption.{name}" for name in (*pool, "attn.in_proj_weight")}
    assert set(shapes) == expected
    assert shapes["trunk.pos_embed"] == (1, 28 * 28 + 1, 768)
    assert shapes["attn_pool_contrast.query"] == (1, 512)
    assert shapes["attn_pool_contrast.attn.k_proj_weight"] == (512, 768)
    assert shapes["attn_pool_caption.query"] == (256, 768)
    assert shapes["proj_contrast"] == (512, 512)
