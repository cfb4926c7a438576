"""Ours beside the authors' own code: release.json holds what mahmoodlab/SEAL 2137d8d gave on the inputs stated here.

All inputs are drawn by numpy's default_rng in the order in which a test draws them, and given to the release as
float32; its code ran on a CPU. Only its numbers, and the names and shapes of its tensors, are kept.
"""

import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from seal import losses, profiles
from seal.data import assemble_sample, expression, panel
from seal.data.assemble_sample import PARTS, Job
from seal.data.samples import Sample
from seal.files import write_json
from seal.models import architecture, encoders
from seal.models.omics import Latent, SealOmics, make_projection_head
from seal.models.released import ENCODER, load_omics, load_vision
from seal.models.vision import BottleneckAdapter, SealVision
from seal.profiles import OmicsSettings, PanelSettings, VisionSettings
from tests.seal.models.test_released import adapted, vision_file

RELEASE = json.loads(Path(__file__).with_name("release.json").read_text(encoding="utf-8"))


def tensor(values) -> torch.Tensor:
    return torch.tensor(np.asarray(values), dtype=torch.float32)


def close(ours: torch.Tensor, theirs, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(ours.detach(), tensor(theirs), atol=tolerance, rtol=tolerance)


# --- losses ---


def expressions():
    """Prediction, measurement, gene mean and sd: 6 spots, 5 genes."""
    rng = np.random.default_rng(0)
    x_hat, x = rng.gamma(1.5, 0.8, (6, 5)), np.log1p(rng.poisson(3.0, (6, 5)))
    return [tensor(v) for v in (x_hat, x, np.linspace(0.2, 1.0, 5), np.linspace(0.5, 1.5, 5))]


CALLED = {"barlow_mse": "barlow_std_mse", "mse": "standardized_mse"}  # ours: theirs, where they differ


@pytest.mark.parametrize("name", losses.GENE_LOSSES)
def test_gene_losses_and_their_scales(name):
    theirs = RELEASE["gene_losses"][CALLED.get(name, name)]
    total = float(losses.gene_loss(name, *expressions())["total"])
    scale = 1 if name == "mse" else theirs["scale"]  # ours has none
    assert total == pytest.approx(scale * theirs["loss"], rel=1e-4)


def test_names_that_stand_for_something_else_there_are_known():
    """Whoever looks a name up in the release finds another loss under two of ours."""
    x_hat, x, mean, sd = expressions()
    for name in ("barlow_mse", "mse"):
        theirs = RELEASE["gene_losses"][name]["loss"]
        assert float(losses.gene_loss(name, x_hat, x, mean, sd)["total"]) != pytest.approx(theirs, rel=0.1)
        raw = float(torch.nn.functional.mse_loss(x_hat, x))
        assert theirs == pytest.approx(raw + (name == "barlow_mse") * 0.05 * float(losses.barlow(x_hat, x)), rel=1e-4)


def test_the_barlow_term_is_theirs_without_pairs_of_genes():
    x_hat, x, *_ = expressions()
    theirs = RELEASE["gene_losses"]["barlow_soft"]["loss"]
    assert losses.BARLOW_WEIGHT * float(losses.barlow(x_hat, x)) == pytest.approx(theirs, rel=1e-4)


def stage_1(gene_loss: str, **settings):
    """A SEAL-omics of 7 genes whose posterior, prediction and mask are stated, and the expression that it sees."""
    rng = np.random.default_rng(1)
    mu, logvar, log_det = rng.normal(size=(4, 3)), rng.normal(size=(4, 3)), rng.normal(size=4)
    x_hat, x, masked = rng.gamma(1.5, 0.8, (4, 7)), rng.gamma(1.5, 0.8, (4, 7)), rng.random((4, 7)) < 0.4
    model = SealOmics(
        7, 3, OmicsSettings(hidden=(6, 5), gene_loss=gene_loss, **settings), torch.zeros(7), torch.ones(7)
    )
    mu, logvar, log_det, x_hat, masked = map(tensor, (mu, logvar, log_det, x_hat, masked))
    model.encode = lambda x: Latent(mu, mu, mu, logvar, log_det, masked if settings.get("mask") else None)
    model.decode = lambda z: x_hat
    return model, tensor(x)


def test_kl_and_masking_terms():
    """The release adds both to the gene loss before that is scaled: here to 10 x l1."""
    model, x = stage_1("l1", mask=0.4, kl=1.0)
    terms = {name: float(value) for name, value in model.losses(x).items()}
    theirs = RELEASE["vae_terms"]
    assert terms["kl"] == pytest.approx(theirs["kl_loss"], rel=1e-5)
    assert 10 * terms["masked"] == pytest.approx(theirs["mlm"], rel=1e-5)
    assert terms["total"] == pytest.approx(10 * (terms["l1"] + theirs["kl_loss"] + theirs["mlm"]), rel=1e-5)


def test_our_kl_and_masking_are_other_ones():
    model, x = stage_1("l1", mask=0.4, mask_weight=0.0, kl=1.0, kl_form="drawn")
    terms = {name: float(value) for name, value in model.losses(x).items()}
    assert "masked" not in terms
    assert terms["total"] == pytest.approx(10 * terms["l1"] + terms["kl"], rel=1e-5)
    assert terms["kl"] != pytest.approx(RELEASE["vae_terms"]["kl_loss"], rel=0.1)


# --- what is trained ---


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_both_heads_of_the_release_are_our_linear_one(kind):
    rng = np.random.default_rng(2)
    weight, bias, z = (tensor(rng.normal(size=size)) for size in ((3, 3), 3, (2, 3)))
    head = make_projection_head("linear", 3)
    assert len(RELEASE["heads"][kind]["keys"]) == len(head.state_dict())
    head.load_state_dict({"weight": weight, "bias": bias})
    close(head(z), RELEASE["heads"][kind]["output"])


def test_the_bottleneck_is_applied_twice_and_in_the_embedding_s_place():
    rng = np.random.default_rng(3)
    sizes = {"down.weight": (3, 4), "down.bias": 3, "up.weight": (4, 3), "up.bias": 4}
    state, z = {name: tensor(rng.normal(size=size)) for name, size in sizes.items()}, tensor(rng.normal(size=(2, 4)))
    for kind in ("bottleneck_twice", "bottleneck"):
        adapter = BottleneckAdapter(4, 3, kind)
        adapter.load_state_dict(state)
        same = np.allclose(adapter(z).detach(), RELEASE["bottleneck"]["output"], rtol=1e-5)
        assert same == (kind == "bottleneck_twice")


def test_the_encoder_takes_either_bottleneck():
    for kind in ("bottleneck_twice", "bottleneck"):
        encoder = encoders.build("dinov2_s", weights="random", image_size=28, tiny=True)
        omics = SealOmics(7, encoder.dim, OmicsSettings(hidden=(5,)), torch.zeros(7), torch.ones(7))
        SealVision(encoder, omics, VisionSettings(adapter=kind, bottleneck=3))
        assert (encoder.adapter.up.weight.abs().sum() > 0) == (kind == "bottleneck_twice")


@pytest.mark.parametrize(("name", "theirs"), [("phikon_v2", "phikon_v2"), ("dinov2_s", "timm"), ("uni2_h", "timm")])
def test_lora_goes_where_the_release_puts_it(name, theirs):
    encoder = encoders.build(name, weights="random", image_size=2 * encoders.find_spec(name).geometry.patch, tiny=True)
    chosen = encoder.lora_targets(1, VisionSettings().lora_layers)
    last = encoder.depth - 1
    assert sorted(name.partition(f".{last}.")[2] for name in chosen) == RELEASE["lora_targets"][theirs]
    assert len(encoder.lora_targets(1, "all")) == (6 if name == "phikon_v2" else 4)


# --- files ---


def fill(layout: dict[str, list[int]], seed: int) -> dict[str, torch.Tensor]:
    """Tensors of the release's names and shapes, in the order of their names."""
    rng, state = np.random.default_rng(seed), {}
    for name, shape in sorted(layout.items()):
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(1)
            continue
        values = rng.normal(size=tuple(shape)) * 0.5
        state[name] = tensor(np.abs(values) + 0.5 if name.endswith("running_var") else values)
    return state


@pytest.mark.parametrize("prefix", ["", "module."])
def test_an_omics_file_with_a_head_and_norms_in_the_decoder(tmp_path, prefix):
    state = fill(RELEASE["layouts"]["omics"], 4)
    torch.save({prefix + name: value for name, value in state.items()}, tmp_path / "o.pth")
    model = load_omics(tmp_path / "o.pth")
    z = model(tensor(np.random.default_rng(5).gamma(1.5, 0.8, (2, 7))))
    close(z, RELEASE["omics"]["z"])
    close(model.decode(z), RELEASE["omics"]["x_hat"])
    close(model.projection_head(z), RELEASE["omics"]["head"])
    assert model.decoder[2].num_batches_tracked.dtype == torch.int64


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapper", ["model.", "encoder."])
def test_a_vision_file_with_a_head_and_norms_in_the_decoder(tmp_path, prefix, wrapper):
    """Virchow2's encoder under either of its names; decoder and head are for a tiny one, whose embedding has 96."""
    original = adapted("virchow2", 1, size=28)
    whole = {n: v for n, v in vision_file(original).items() if n.startswith(ENCODER)}
    whole = {n.replace(f"{ENCODER}model.", ENCODER + wrapper): v for n, v in whole.items()}
    wide = {
        name: [original.dim if size == 4 else size for size in shape]
        for name, shape in RELEASE["layouts"]["vision"].items()
    }
    torch.save({prefix + n: v for n, v in (whole | fill(wide, 6)).items()}, tmp_path / "v.pth")
    encoder, decoder, head = load_vision(tmp_path / "v.pth", "virchow2", image_size=28, tiny=True)
    images = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        z = original(images)
        torch.testing.assert_close(encoder(images), z, atol=1e-6, rtol=1e-6)
        assert decoder(z).shape == (2, 7)
        assert (decoder(z) >= 0).all()
        assert head(z).shape == z.shape


def test_decoder_and_head_of_a_vision_file_give_their_numbers(tmp_path):
    from seal.models.vision import GeneDecoder

    state = fill(RELEASE["layouts"]["vision"], 6)
    hidden = len(state["decoder.decoder.0.bias"])
    decoder = GeneDecoder(4, torch.zeros(7), torch.ones(7), VisionSettings(decoder_hidden=hidden), norm=True).eval()
    own = {n.removeprefix("decoder."): v for n, v in state.items() if n.startswith("decoder.")}
    decoder.load_state_dict(own, strict=True)
    head = make_projection_head("linear", 4)
    head.load_state_dict({n: state[f"projection_head.0.{n}"] for n in ("weight", "bias")})
    z = tensor(np.random.default_rng(7).normal(size=(2, 4)))
    close(decoder(z), RELEASE["vision"]["x_hat"])
    close(head(z), RELEASE["vision"]["head"])


@torch.no_grad()
def test_conch_s_positions_at_224_px_are_those_of_its_own_forward(tmp_path):
    """The release gives images of 224 px to CONCH built for 448, whose timm trunk resamples them as it runs."""
    original = adapted("conch", 1)
    spec, state = original.spec, original.model.trunk.state_dict()
    arguments = architecture.timm_arguments(architecture.shrink(spec), spec.image_size)
    theirs = VisionTransformer(**arguments, dynamic_img_size=True)
    theirs.load_state_dict({n: v for n, v in state.items() if not n.startswith("blocks.")}, strict=False)
    torch.save(vision_file(original), tmp_path / "v.pth")
    ours = load_vision(tmp_path / "v.pth", "conch", tiny=True)[0].model.trunk
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(3))
    tokens = [vit._pos_embed(vit.patch_embed(images)) for vit in (ours, theirs)]
    torch.testing.assert_close(*tokens, atol=1e-6, rtol=1e-6)


# --- expression ---

SEEDS = {"Visium": 8, "Visium HD": 9, "Spatial Transcriptomics": 10}


def counted(technology: str, folder: Path, **settings):
    """A section of 6 x 6 spots and 400 genes, counted by the assembly under the release's settings."""
    rng = np.random.default_rng(SEEDS[technology])
    counts = rng.poisson(rng.gamma(0.5, 1.5, 400), (36, 400)).astype(np.float32)
    row, k = np.divmod(np.arange(36), 6)
    col = 2 * k + row % 2 if technology == "Visium" else k
    x, y = (50 * col, 86.6 * row) if technology == "Visium" else (256 * col, 256 * row)
    obs = {"array_row": row, "array_col": col, "pxl_col_in_fullres": x, "pxl_row_in_fullres": y}
    data = anndata.AnnData(
        counts,
        obs=pd.DataFrame(obs, index=[f"s{i}" for i in range(36)]),
        var=pd.DataFrame(index=[f"G{i:03d}" for i in range(400)]),
    )
    (folder / "st").mkdir()
    data.write_h5ad(folder / "st" / "S.h5ad")
    kind = "visium" if technology == "Visium" else "square"
    sample = Sample(
        "S", folder, "Breast", "Cancer", "D", "train", technology, "", 0.5, np.nan, kind, False, False, "", ""
    )
    job = Job(folder, sample, profiles.get("maple", panel=PanelSettings(**settings)))
    for name in (PARTS, "moments"):
        (folder / name).mkdir()
    write_json(folder / PARTS / "aliases.json", {})
    write_json(folder / "genes.json", list(data.var_names))
    assemble_sample.count(job)
    return job, *assemble_sample._counted(job, data.var_names.to_numpy())


def dealt(job, counts, listed):
    """The panel's genes in order, and the context of the spots in them."""
    settings = job.profile.panel
    assemble_sample._sum_up(job, counts, listed)
    sums = panel.load_moments(job.folder / "moments" / "S.npz")
    genes = json.loads((job.folder / "genes.json").read_text())
    chosen = panel.select(lambda _: sums, ["D"], genes, {}, settings).genes
    context = expression.spot_context(counts, assemble_sample._adjacency(job), settings.own_weight)
    return chosen, expression.normalise(context, settings.target_sum).toarray()[:, [genes.index(g) for g in chosen]]


@pytest.mark.parametrize("technology", SEEDS)
def test_genes_and_spot_context(technology, tmp_path):
    """Rare genes dropped before a spot's total, the spot among its neighbours, genes chosen on its own counts."""
    theirs = RELEASE["expression"][technology]
    genes, context = dealt(*counted(technology, tmp_path, genes=10))
    assert theirs["few"] >= 40  # genes of one or two counts
    assert list(genes) == theirs["genes"]
    np.testing.assert_allclose(context[:9], theirs["context"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "changes", [{"rare_genes": "counted"}, {"variable_genes": "context"}, {"neighbourhood": "grid"}]
)
def test_each_of_our_choices_gives_something_else(changes, tmp_path):
    theirs = RELEASE["expression"]["Visium"]
    genes, context = dealt(*counted("Visium", tmp_path, genes=10, **changes))
    same = list(genes) == theirs["genes"]
    assert not same or not np.allclose(context[:9], theirs["context"], rtol=1e-3)


def test_a_spot_s_own_weight_in_its_context():
    row, k = np.divmod(np.arange(25), 5)
    for col, others, weight in ((2 * k + row % 2, 4, 0.6), (k, 8, 0.5 + 0.5 / 9)):
        near = expression.neighbourhood(row, col)
        assert near[[12]].sum() == others + 1
        only = expression.spot_context(expression_of_one_spot(), near, 0.5).toarray()
        assert only[12, 0] == pytest.approx(weight)


def expression_of_one_spot():
    from scipy.sparse import csr_array

    return csr_array(np.eye(25, dtype=np.float32)[:, [12]])


# --- labels ---


def test_defaults_that_are_labelled_release_are_those_of_its_configuration():
    panel_, omics, vision = PanelSettings(), OmicsSettings(), VisionSettings()
    assert (panel_.rare_genes, panel_.variable_genes, panel_.neighbourhood) == ("dropped", "own", "radius")
    assert (omics.dropout, omics.epochs, omics.mask, omics.mask_weight, omics.kl) == (0, 0, 0, 10, 0)
    assert (vision.decoder_dropout, vision.decoder_relu, vision.bottleneck) == (0, True, 256)
    assert encoders.find_spec("h0_mini").precision == "float32"


def test_tables_say_our_choice_where_a_profile_leaves_the_release():
    for profile in profiles.PROFILES.values():
        rows = {(row["stage"], row["setting"]): row for row in profiles.setting_rows(profile)}
        for (stage, name), row in rows.items():
            if row["source"] == profiles.RELEASE:
                assert row["value"] == row["default"], (profile.name, stage, name)
        assert rows["omics", "epochs"]["source"] == profiles.CHOICE
        assert rows["vision", "bottleneck"]["source"] == profiles.RELEASE
    maple = {(r["stage"], r["setting"]): r["source"] for r in profiles.setting_rows(profiles.MAPLE)}
    ours = {
        key for key, source in maple.items() if source == profiles.CHOICE and key[0] in ("panel", "omics", "vision")
    }
    assert ours == {
        *(("panel", name) for name in ("test_genes", "coverage", "neighbourhood")),
        ("omics", "epochs"),
        *(("vision", name) for name in ("blocks", "decoder_relu", "views")),
    }
