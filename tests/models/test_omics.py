"""SEAL-omics: the release's key layout, the flows' Jacobian, determinism."""

import pytest
import torch

from seal.models.omics import PlanarFlow, SealOmics, gene_statistics
from seal.profiles import OmicsSettings


def make(genes=20, dim=6, **changes):
    torch.manual_seed(0)
    settings = OmicsSettings(hidden=(16, 8), **changes)
    return SealOmics(genes, dim, settings, torch.zeros(genes), torch.ones(genes))


def test_state_dict_has_the_released_layout():
    torch.manual_seed(0)
    model = SealOmics(2000, 512, OmicsSettings(), torch.zeros(2000), torch.ones(2000))
    linear = ["weight", "bias"]
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    expected = {f"encoder.{i}.{k}" for i in (0, 4) for k in linear}
    expected |= {f"encoder.{i}.{k}" for i in (1, 5) for k in norm}
    expected |= {f"{n}.{k}" for n in ("fc_mu", "fc_logvar") for k in linear}
    expected |= {f"flows.{i}.{k}" for i in range(3) for k in "uwb"}
    expected |= {f"decoder.{i}.{k}" for i in (0, 2, 5) for k in linear}
    assert set(model.state_dict()) == expected | {"gene_mean", "gene_sd"}
    assert model.encoder[4].weight.shape == (512, 1024)
    assert model.decoder[5].weight.shape == (2000, 1024)


def test_flow_log_det_equals_autograd_jacobian():
    torch.manual_seed(3)
    flow = PlanarFlow(5).double()
    torch.nn.init.normal_(flow.u)
    torch.nn.init.normal_(flow.w)
    z = torch.randn(4, 5, dtype=torch.double)
    log_det = flow(z)[1].detach()
    for row, value in zip(z, log_det, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda x: flow(x[None])[0][0], row)
        assert float(value) == pytest.approx(float(torch.linalg.slogdet(jacobian)[1]), abs=1e-6)


def test_embeddings_are_deterministic_in_evaluation_and_drawn_in_training():
    model, x = make(), torch.rand(10, 20)
    assert not torch.equal(model.encode(x).z, model.encode(x).z)
    model.eval()
    assert torch.equal(model(x), model(x))
    latent = model.encode(x)
    assert torch.equal(latent.z0, latent.mu)


def test_masking_hides_that_share_of_genes(monkeypatch):
    model, seen = make(mask=0.5), []
    model.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.encode(torch.ones(200, 20))
    assert float((seen[0] == 0).float().mean()) == pytest.approx(0.5, abs=0.05)
    model.eval()
    model.encode(torch.ones(200, 20))
    assert (seen[1] == 1).all()


def test_kl_term_is_added_only_when_on():
    x = torch.rand(10, 20)
    assert set(make().losses(x)) == {"barlow", "mse", "total"}
    torch.manual_seed(5)
    terms = {name: value.detach() for name, value in make(kl=0.1).losses(x).items()}
    rec = 0.1 * (0.05 * terms["barlow"] + 5 * terms["mse"])
    assert float(terms["total"]) == pytest.approx(float(rec + 0.1 * terms["kl"]), rel=1e-5)


def test_gene_statistics_give_a_constant_gene_sd_one():
    mean, sd = gene_statistics(torch.tensor([[1.0, 3.0], [1.0, 5.0]]))
    assert mean.tolist() == [1.0, 4.0]
    assert sd.tolist() == [1.0, 1.0]
    assert gene_statistics(torch.tensor([[0.0], [4.0]]))[1].tolist() == [2.0]
