"""The whole way on real tissue: two her2st sections of two patients, smallest settings, to the figures."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from figures import draw
from seal import paths, profiles, results
from seal.data.assemble import assemble
from seal.data.pairs import tabulate_panel, tabulate_samples
from seal.errors import SealError
from seal.evaluate import ablation, embeddings, methods, patch, scoring
from seal.models import encoders, vision
from seal.train import batches, runs


@pytest.fixture
def her2st(shared, tmp_path, monkeypatch):
    """Sections B4 and C2 with images, A3 and D1 with expression alone, as a copy of the data set holds them."""
    copy = tmp_path / "her2st"
    for name in ("B4", "C2", "A3", "D1"):
        files = [shared / "her2st/ST-cnts" / f"{name}.tsv.gz", shared / "her2st/ST-spotfiles" / f"{name}_selection.tsv"]
        for file in [*files, *(shared / "her2st/ST-imgs" / name[0] / name).glob("*.jpg")]:
            target = copy / file.relative_to(shared / "her2st")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(file)
    monkeypatch.setenv("SEAL_HER2ST", str(copy))
    profile = profiles.get(
        "her2st",
        image_size=56,
        um_per_px=2.0,
        panel__genes=100,
        panel__test_genes=20,
        omics__epochs=2,
        vision__epochs=1,
        vision__views=1,
        evaluation__seeds=(0,),
        evaluation__bootstrap=50,
    )
    try:
        encoders.build(profile.encoder, image_size=56)
    except SealError as error:
        pytest.skip(f"the encoder cannot be had: {error.what}")
    return profile


@pytest.mark.slow
def test_from_sections_to_figures(her2st, monkeypatch):
    few = {name: ablation.VARIANTS[name] for name in ("no_info", "rank_32", "mse", "half_pairs")}  # one a table
    monkeypatch.setattr(ablation, "VARIANTS", few)
    pairs = assemble(her2st)
    donors = pairs.per_spot("donor")
    assert set(donors[: pairs.n_pairs]) == {"HER2ST-B", "HER2ST-C"}
    assert set(donors[pairs.n_pairs :]) == {"HER2ST-A", "HER2ST-D"}
    source = batches.build(pairs)
    runs.train_runs(runs.list_compared(pairs), source)
    runs.train_runs(ablation.list_runs(pairs), source)
    evaluation = patch.Evaluation(pairs, embeddings.embed_all(pairs, source), methods.find_methods(pairs)).run()
    ablated = ablation.Ablation(pairs, embeddings.embed_runs(pairs, source, ablation.list_runs(pairs))).run()
    tables = {
        "samples": tabulate_samples(pairs),
        "panel": tabulate_panel(pairs),
        "settings": pd.DataFrame(profiles.setting_rows(her2st)),
        "encoders": vision.tabulate_encoders(her2st.vision, her2st.encoder),
        "patch_level": scoring.scores(evaluation),
        "patch_level_summary": scoring.summary(evaluation),
        "patch_level_genes": scoring.gene_scores(evaluation),
        "maps": scoring.maps(evaluation),
        "training_curves": runs.tabulate_training(pairs),
        "ablations": ablation.table(ablated),
        "ablation_shapes": ablation.shapes(ablated),
    }
    for name, table in tables.items():
        results.write_result(her2st, name, table, inputs={"pairs": pairs.key})
    draw.draw(her2st)
    drawn = {p.name for p in paths.figures("her2st").rglob("*") if p.is_file()}
    assert {f"{name}.{kind}" for name in ("F1", "F3", "E4", "E5") for kind in ("pdf", "png")} <= drawn
    assert {f"T{i}.csv" for i in (1, 2, 5, 6, 7, 8, 9, 19, 20, 51, 52, 53, 54)} <= drawn
    assert draw.manifest(her2st)["F3"]["data"] == "real data"
    pcc = tables["patch_level"].query("metric == 'pcc'").groupby("method")["value"].mean()
    # At these settings the score itself means nothing; that every method has one does.
    assert set(pcc.index) == {method.name for method in evaluation.methods}  # nobody knows the truth of real tissue
    assert np.isfinite(pcc).all()
    assert pcc["mean"] == 0


@pytest.mark.slow
def test_nothing_of_the_test_donor_reaches_a_model(her2st):
    """With the left-out patient's counts replaced by other counts, the other fold's panel and weights are the same."""
    from safetensors.torch import load_file

    def train():
        pairs = assemble(her2st)
        fold = pairs.fold("HER2ST-B")
        runs.train_vision(runs.Run(pairs, fold, 0), batches.build(pairs))
        folder = runs.Run(pairs, fold, 0, "seal").folder
        return pairs.panel(fold), load_file(folder / "adapter" / "adapter_model.safetensors")

    import anndata

    panel, weights = train()
    path = paths.samples("her2st") / "st" / "HER2ST-B4.h5ad"
    data = anndata.read_h5ad(path)
    data.X = data.X[::-1].copy()
    data.write_h5ad(path)
    changed_panel, changed = train()
    assert changed_panel == panel
    assert all((changed[name] == value).all() for name, value in weights.items())
    assert dataclasses.asdict(panel)["donors"] == ("HER2ST-A", "HER2ST-C", "HER2ST-D")
