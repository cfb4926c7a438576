"""The whole way of the researcher: HEST-1k on a hub, its table's rules, fetched, audited, assembled, verified, trained.

The hub is a stand-in; the samples are the simulated atlas's sections in HEST-1k's layout (patches at 0.5 um/px).
"""

import numpy as np
import pandas as pd
import pytest

import seal_atlas
from seal import profiles
from seal.__main__ import main
from seal.data import maple, sample_files
from seal.data.assemble import assemble
from seal.data.samples import read_samples
from seal.data.sources import hest
from seal.errors import SealError
from seal.models import encoders
from seal.train import batches, runs
from tests import hub_server
from tests.seal.data.maple.conftest import table
from tools.hest_audit.__main__ import main as audit

PROFILE = profiles.changed(
    profiles.MAPLE,
    encoder="dinov2s_derived",
    image_size=56,
    um_per_px=2.0,
    selection__test_organs=1,
    selection__test_spots=24,
    panel__genes=40,
    panel__test_genes=10,
    compute__assembly="threads",
    compute__tokens="recompute",
    compute__workers=2,
    compute__precision="float32",
    omics__hidden=(16, 8),
    omics__epochs=1,
    vision__decoder_hidden=8,
    vision__batch=16,
    vision__epochs=1,
    vision__views=1,
    vision__blocks=1,
)
ATLAS = {"organs": ("Breast", "Kidney"), "donors_per_organ": 4, "spots_per_section": 12}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """HEST-1k as the hub has it: eight sections of named patients, one of them twice, and one of another technology."""
    home = tmp_path_factory.mktemp("hub")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEAL_HOME", str(home / "atlas"))
        sections = read_samples(seal_atlas.prepare(profiles.get("demo", source_settings=ATLAS)))
        rows = [_row(i, section) for i, section in enumerate(sections)]
        again = {**rows[0], "id": "S8", "dataset_title": "Published again", "patient": None}
        other = {**rows[1], "id": "S9", "st_technology": "Spatial Transcriptomics", "fullres_px_width": 1}
        frame = table(*rows, again, other)
        for row, section in zip(frame.to_dict("records"), [*sections, sections[0], sections[1]], strict=True):
            data = sample_files.read_counts(section)
            images = np.concatenate(list(sample_files.read_patches(section, data.obs_names.tolist(), 224, 0.5)))
            sample_files.write_files(home / "tree", row, data, images, 0.5)
    frame.to_csv(home / "tree" / "HEST_v9_0_0.csv", index=False)
    return home / "tree"


def _row(number, section):
    return {
        "organ": "Breast",  # one organ, so that it has donors enough for a test set
        "disease_state": section.disease_state,
        "patient": f"Patient {number}",
        "spots_under_tissue": 12,
        "pixel_size_um_estimated": section.um_per_px,
        "dataset_title": "A study of breast",
    }


@pytest.fixture
def small_maple(monkeypatch):
    """The command line's maple profile, small."""
    monkeypatch.setitem(profiles.PROFILES, "maple", PROFILE)
    monkeypatch.setattr(profiles, "MAPLE", PROFILE)
    return PROFILE


@pytest.mark.slow
def test_from_the_hub_to_a_trained_encoder(tree, small_maple, monkeypatch, tmp_path, tiny_build, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("SEAL_HEST", str(tmp_path / "hest"))
    monkeypatch.setattr(encoders, "build", tiny_build)
    faults = hub_server.Faults(token="hf_secret")
    with hub_server.serve(tree, faults):
        assert main(["fetch"]) == 0
        assert "9 samples" in capsys.readouterr().out, "the table does not show that S8 is S0"
        assert main(["fetch", "--samples", "S9"]) == 0, "what MAPLE leaves out, for the audit"
    assert audit(["--workers", "1"]) == 0
    found = pd.read_csv(tmp_path / "hest" / maple.OVERLAPS)
    assert set(zip(found["sample_a"], found["sample_b"], strict=True)) == {("S0", "S8"), ("S1", "S9")}
    assert set(found["verdict"]) == {"same section"}
    selection = maple.read_selection(tmp_path / "hest", PROFILE.selection)
    assert selection.samples["id"].tolist() == [f"S{i}" for i in range(8)]
    pairs = assemble(PROFILE)
    assert main(["verify", "--profile", "maple"]) == 0
    (fold,) = pairs.folds()
    donors = pairs.per_spot("donor")
    assert (len(fold.train), len(fold.test)) == (72, 24)
    assert not set(donors[fold.train]) & set(donors[fold.test])
    assert pairs.panel(fold).test.keys() == {"Breast"}
    model = runs.train_vision(runs.Run(pairs, fold, 0), batches.build(pairs))
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_an_altered_split_is_refused(tree, small_maple, monkeypatch):
    """A donor of the test set whose other section is trained on: no pairs are made of that."""
    monkeypatch.setenv("SEAL_HEST", str(tree))
    real = hest.select_rows

    def leaking(profile, root):
        rows = real(profile, root)
        of_test = rows["role"].eq("test")
        rows.loc[rows.index[~of_test][0], "donor"] = rows.loc[of_test, "donor"].iloc[0]
        return rows

    monkeypatch.setattr(hest, "select_rows", leaking)
    with pytest.raises(SealError, match="would test on donor"):
        assemble(PROFILE)
