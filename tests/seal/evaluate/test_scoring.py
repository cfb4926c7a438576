"""Scores of single donors, their intervals, and the truth beside them, on made-up samples with a known truth."""

import sys
from base64 import b64decode
from functools import partial
from io import BytesIO
from types import SimpleNamespace

import anndata
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.sparse import csr_matrix

from figures import T01_T08_data
from seal import profiles, results
from seal.data.assemble import assemble
from seal.data.pairs import tabulate_panel, tabulate_samples
from seal.evaluate import patch, scoring
from seal.evaluate.ablation import Ablation
from seal.evaluate.methods import METHODS, Method, find_methods
from seal.evaluate.metrics import interval, mean_pearson, resamples
from tests.seal.data.conftest import write_sample

# those that need no run of their own
PLAIN = tuple(m for m in METHODS if m.name in ("frozen", "seal", "seal_shuffled", "random", "colour", "mean"))
SPOTS, SIDE = 20, 8
GENES = [*(f"G{i:02}" for i in range(16)), "BLANK-1"]
ORGANS = ("Brain", "Lung", "Skin")
PROFILE = profiles.get(
    "demo",
    source="made_up",
    image_size=SIDE,
    um_per_px=14.0,
    panel=profiles.PanelSettings(genes=14, test_genes=4),
    evaluation=profiles.EvaluationSettings(folds=2, resample="donors", pca=4, seeds=(0, 1), bootstrap=200),
)


def sample(organ: str, number: int):
    """Two latents: the patches' colour shows the first, which the oracle knows; the ceiling knows both."""
    rng = np.random.default_rng([ORGANS.index(organ), number])
    # an organ's own genes vary; one gene is missing in the skin
    loads = rng.normal(0, 0.1, (2, len(GENES)))
    own = 5 * ORGANS.index(organ) + np.arange(5)
    loads[:, own] = np.random.default_rng(ORGANS.index(organ)).normal(0, 1.0, (2, 5))
    seen, hidden = rng.normal(size=(2, SPOTS, 1))
    oracle, ceiling = (
        np.exp(m) / np.exp(m).sum(axis=1, keepdims=True) for m in (seen * loads[0], seen * loads[0] + hidden * loads[1])
    )
    counts = np.array([rng.multinomial(3000, p) for p in ceiling])
    row, col = np.divmod(np.arange(SPOTS), 5)
    place = {
        "array_row": row,
        "array_col": 2 * col + row % 2,
        "pxl_row_in_fullres": row * 8.0 * np.sqrt(3) / 2,
        "pxl_col_in_fullres": (2 * col + row % 2) * 4.0,
    }
    data = anndata.AnnData(
        csr_matrix(counts.astype(np.float32)),
        obs=pd.DataFrame(place, index=[f"spot{i}" for i in range(SPOTS)]),
        var=pd.DataFrame(index=GENES),
        layers={"oracle": oracle.astype(np.float32), "ceiling": ceiling.astype(np.float32)},
    )
    data.obsm["spatial"] = data.obs[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy()
    if organ == "Skin":
        data = data[:, [g for g in GENES if g != "G00"]].copy()
        for layer in ("oracle", "ceiling"):
            data.layers[layer] = data.layers[layer] / data.layers[layer].sum(axis=1, keepdims=True)
    patches = np.clip(128 + 40 * seen[:, :, None, None] + rng.normal(0, 9, (SPOTS, SIDE, SIDE, 3)), 0, 255)
    return data, patches.astype(np.uint8)


def write(root, organ, number, layers=("oracle", "ceiling"), simulated=True):
    data, patches = sample(organ, number)
    for layer in set(data.layers) - set(layers):
        del data.layers[layer]
    name = f"{organ}{number}"
    row = {"id": name, "organ": organ, "disease_state": ("Cancer", "Healthy")[number % 2], "species": "Homo sapiens"}
    row |= {
        "patient": f"P-{name}",
        "st_technology": "Visium",
        "pixel_size_um_estimated": 14.0,
        "dataset_title": "made up",
    }
    row |= {"license": "none", "simulated": simulated, "grid": "visium"}
    write_sample(root, row, data, patches, 14.0)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("made_up")
    for organ in ORGANS:
        for number in range(4):
            write(root, organ, number)
    return root


@pytest.fixture(autouse=True)
def source(monkeypatch, root):
    """A source that knows the truth behind its counts, as a simulator does."""
    truth = tuple(Method(n, n, "truth", "none", partial(expected, root, n)) for n in ("oracle", "ceiling"))
    offered = SimpleNamespace(prepare=lambda profile: root, methods=lambda pairs: truth)
    monkeypatch.setitem(sys.modules, "made_up", offered)


class MadeUp:
    """Instead of encoders: embeddings that show the patches' colour, the more noise the worse."""

    def __init__(self, pairs):
        self.pairs = pairs

    def read(self, method, fold=None, seed=None):
        noise = {"seal": 0.1, "frozen": 0.4, "seal_shuffled": 0.4, "colour": 0.6, "random": 20.0}[method]
        rng = np.random.default_rng([*method.encode(), seed])
        shown = self.pairs.patches[:].mean(axis=(1, 2)) / 40
        return np.hstack([shown, shown**2]) + noise * rng.normal(size=(self.pairs.n_pairs, 6))


def expected(root, name, pairs, fold, embedding, seed):
    """The expression that a layer of the samples expects, [test spots, test genes]."""
    assert embedding is None
    rows = []
    for section in pairs.sections:
        data = anndata.read_h5ad(root / "st" / f"{section.sample}.h5ad")
        share = pd.DataFrame(data.layers[name], columns=data.var_names).drop(columns="BLANK-1")
        share = share.reindex(columns=pairs.panel(fold).test_genes, fill_value=0)
        rows.append(np.log1p(1e4 * share.to_numpy()))
    return np.concatenate(rows)[fold.test]


@pytest.fixture
def evaluated(source):
    def run(**settings):
        profile = profiles.changed(PROFILE, **{f"evaluation__{k}": v for k, v in settings.items()})
        pairs = assemble(profile)
        return patch.Evaluation(
            pairs, MadeUp(pairs), (*PLAIN, *(m for m in find_methods(pairs) if m.kind == "truth"))
        ).run()

    return run


# --- folds of several organs --------------------------------------------------------------------------------


def test_a_fold_tests_a_donor_of_each_organ_on_that_organs_own_genes():
    pairs = assemble(PROFILE)
    donors, organs = pairs.per_spot("donor"), pairs.per_spot("organ")
    for fold in pairs.folds():
        panel = pairs.panel(fold)
        assert not set(donors[fold.test]) & (set(donors[fold.train]) | set(panel.donors))
        assert list(panel.test) == sorted(set(organs[fold.test])) == list(ORGANS)
        found = patch.parts(pairs, fold)
        assert [part.donor for part in found] == sorted(set(donors[fold.test]))
        for part in found:
            assert (donors[fold.test][part.rows] == part.donor).all()
            assert [panel.test_genes[i] for i in part.columns] == list(panel.test[part.organ])
        # what varies in an organ is its own block of genes, but for the gene that skin lacks
        own = [f"G{i:02}" for i in range(5, 10)]
        assert set(panel.test["Lung"]) <= set(own)


def test_the_results_say_where_a_donor_and_a_gene_are_tested():
    pairs = assemble(PROFILE)
    samples = tabulate_samples(pairs)
    assert samples.groupby("fold")["donor"].nunique().to_dict() == {"1of2": 6, "2of2": 6}
    out = T01_T08_data.held_out_folds(samples)
    assert out["left out"].tolist() == ["fold 1of2", "fold 2of2"]
    assert out[["organ", "test donors", "training donors"]].drop_duplicates().to_numpy().tolist() == [
        ["Brain, Lung, Skin", 6, 6]
    ]
    panel = tabulate_panel(pairs)
    assert set(panel.columns) == set(results.RESULTS["panel"].columns)
    for fold in pairs.folds():
        part = panel[panel["fold"] == fold.name]
        for organ, genes in pairs.panel(fold).test.items():
            assert set(part.loc[part["organs"].str.split(", ").map(lambda o, x=organ: x in o), "gene"]) == set(genes)
    assert T01_T08_data.gene_panel(panel)["organs"].str.contains("Lung").any()


# --- scores -------------------------------------------------------------------------------------------------


def test_scores_equal_numpys_correlation_donor_by_donor(evaluated):
    evaluation = evaluated()
    pairs = evaluation.pairs
    scores, genes = scoring.scores(evaluation), scoring.gene_scores(evaluation)
    for name, table in (("patch_level", scores), ("patch_level_genes", genes)):
        assert set(results.RESULTS[name].columns) == set(table.columns)
    pcc = scores[scores["metric"] == "pcc"].set_index(["method", "donor", "seed"]).sort_index()
    assert pcc.index.is_unique
    assert len(set(pcc["fold"])) == 2
    assert (pcc.loc["mean", "value"] == 0).all()
    fold = pairs.folds()[1]
    donor = pairs.per_spot("donor")[fold.test][0]
    organ = pairs.per_spot("organ")[fold.test][0]
    rows = np.flatnonzero(pairs.per_spot("donor") == donor)
    columns = [pairs.panel(fold).test_genes.index(g) for g in pairs.panel(fold).test[organ]]
    truth = pairs.measured(fold)[rows][:, columns]
    prediction = evaluation.predictions["seal", fold.name, 1][np.isin(fold.test, rows)][:, columns]
    r = [np.corrcoef(truth[:, i], prediction[:, i])[0, 1] for i in range(len(columns))]
    assert pcc.loc[("seal", donor, 1), "value"] == pytest.approx(np.mean(r), abs=1e-9)
    mse = scores[(scores["metric"] == "mse") & (scores["donor"] == donor) & (scores["seed"] == 1)].set_index("method")
    assert mse.loc["seal", "value"] == pytest.approx(np.mean((truth - prediction) ** 2))
    by_gene = genes.groupby(["method", "donor", "seed"])["value"].mean()
    np.testing.assert_allclose(by_gene[pcc.index], pcc["value"], atol=1e-9)


def test_truth_comes_out_on_top_and_is_said_to(evaluated):
    evaluation = evaluated()
    assert [method.name for method in evaluation.methods] == [*(m.name for m in PLAIN), "oracle", "ceiling"]
    table = scoring.summary(evaluation)
    beside = {"difference_p", "control", "control_difference", "control_low", "control_high", "control_p"}
    assert set(table.columns) == {*results.RESULTS["patch_level_summary"].columns, *beside}
    overall = table[table["organ"] == "all"].set_index("method")
    order = ["random", "colour", "seal", "oracle", "ceiling"]
    assert overall.loc[order, "mean"].is_monotonic_increasing
    assert overall.loc["ceiling", "mean"] < 1
    lines = scoring.verdicts(table)
    assert lines[0] == "paired differences, 95 % intervals over donors"
    assert [line.split(":")[0] for line in lines[1:-2]] == [m.name for m in evaluation.methods if m.name != "frozen"]
    gain = overall.loc["seal", "mean"] - overall.loc["seal_shuffled", "mean"]
    assert lines[-2].startswith(f"seal: better than seal_shuffled ({gain:+.3f}, +")
    own = overall.loc["seal", ["control_difference", "control_low", "control_high"]]
    assert lines[-2].endswith("({:+.3f}, {:+.3f} to {:+.3f})".format(*own))
    assert overall["control"].dropna().to_dict() == {"seal": "seal_shuffled"}
    assert next(line for line in lines if line.startswith("random:")).startswith("random: worse than frozen (-")
    share = overall.loc["seal", "mean"] / overall.loc["oracle", "mean"]
    assert lines[-1].startswith(f"SEAL reaches {100 * share:.0f} % of the oracle's PCC")
    assert f"the ceiling {overall.loc['ceiling', 'mean']:.3f}" in lines[-1]


def test_donors_are_resampled_together_over_methods_after_averaging_seeds(evaluated):
    """Against a plain loop over resamples."""
    evaluation = evaluated()
    table = scoring.summary(evaluation)
    scores = scoring.scores(evaluation)
    means = scores[scores["metric"] == "pcc"].groupby(["method", "organ", "donor"])["value"].mean()
    for organ, number in (("all", 12), ("Lung", 4)):
        rows = table[table["organ"] == organ].set_index("method")
        assert (rows["donors"] == number).all()
        assert (rows["folds"] == 2).all()
        seal, frozen = (means[m] if organ == "all" else means[m, organ] for m in ("seal", "frozen"))
        seal, frozen = (v.droplevel("organ").sort_index() if organ == "all" else v.sort_index() for v in (seal, frozen))
        drawn = []
        for counts in resamples(number, 200, scoring.BOOTSTRAP_SEED):
            chosen = [name for name, times in zip(seal.index, counts, strict=True) for _ in range(times)]
            drawn.append((seal[chosen].mean(), (seal[chosen] - frozen[chosen]).mean()))
        drawn = np.array(drawn)
        expected = [*interval(drawn[:, 0]), *interval(drawn[:, 1])]
        got = rows.loc["seal", ["low", "high", "difference_low", "difference_high"]].astype(float)
        np.testing.assert_allclose(got, expected, atol=1e-9)
        assert rows.loc["seal", "mean"] == pytest.approx(seal.mean())
        assert rows.loc["seal", "difference"] == pytest.approx(seal.mean() - frozen.mean(), abs=1e-12)
        assert abs(rows.loc["seal", "difference"]) > 0.01
        assert rows.loc["frozen", "difference"] == 0
    assert set(zip(table["split"], table["dealt"], table["resample"], strict=True)) == {("donor", 2, "donors")}
    assert set(table["tested"]) == {"donors left out in 2 folds"}


def test_one_donor_at_a_time_and_spots_resampled_is_what_it_always_was(evaluated):
    """With folds 0: scores of whole folds, their bootstrap over spots, means over folds; written out plainly."""
    evaluation = evaluated(folds=0, resample="spots")
    pairs = evaluation.pairs
    table = scoring.summary(evaluation).set_index(["organ", "method"])
    scores = scoring.scores(evaluation)
    pcc = scores[scores["metric"] == "pcc"].set_index(["method", "fold", "seed"])["value"]
    point, drawn = {}, {}
    for fold in pairs.folds():
        assert set(pairs.per_spot("donor")[fold.test]) == {fold.name}
        truth = pairs.measured(fold)[fold.test]
        assert tuple(pairs.panel(fold).test) == (pairs.per_spot("organ")[fold.test][0],)
        weights = resamples(len(truth), 200, 0)
        for method in ("frozen", "seal"):
            runs = dict(evaluation.runs(method, fold.name))
            for seed, prediction in runs.items():
                assert pcc[method, fold.name, seed] == mean_pearson(prediction, truth)
            point[method, fold.name] = np.mean([mean_pearson(p, truth) for p in runs.values()])
            drawn[method, fold.name] = np.mean([mean_pearson(p, truth, weights) for p in runs.values()], axis=0)
    names = [fold.name for fold in pairs.folds()]
    for organ, inside in (("all", names), ("Skin", [n for n in names if "Skin" in n])):
        seal, frozen = (np.mean([drawn[m, n] for n in inside], axis=0) for m in ("seal", "frozen"))
        row = table.loc[(organ, "seal")]
        assert row["mean"] == pytest.approx(np.mean([point["seal", n] for n in inside]), abs=1e-12)
        difference = np.mean([point["seal", n] - point["frozen", n] for n in inside])
        assert row["difference"] == pytest.approx(difference, abs=1e-12)
        assert abs(difference) > 1e-3
        np.testing.assert_allclose([row["low"], row["high"]], interval(seal), atol=1e-12)
        got = [row["difference_low"], row["difference_high"]]
        np.testing.assert_allclose(got, interval(seal - frozen), atol=1e-12)
        assert (row["folds"], row["donors"], row["dealt"]) == (len(inside), len(inside), 0)
        assert row["tested"] == "one donor left out"
    assert scoring.verdicts(scoring.summary(evaluation))[0].endswith("over spots")


def test_a_difference_is_what_a_method_gains_and_the_verdict_has_its_sign():
    """By hand: two donors, of whom one gains 0.2 and the other 0.1."""
    parts = [patch.Part("f", donor, "Lung", np.arange(3), np.arange(2)) for donor in "ab"]
    means = scoring._Means(200, parts, point={"frozen": [0.3, 0.5], "seal": [0.5, 0.6]})
    row = means.row("seal", np.arange(2), "frozen")
    assert (row["mean"], row["difference"]) == pytest.approx((0.55, 0.15))
    assert (row["low"], row["high"]) == pytest.approx((0.5, 0.6))
    assert (row["difference_low"], row["difference_high"]) == pytest.approx((0.1, 0.2))
    back = means.row("frozen", np.arange(2), "seal")
    assert (back["difference"], back["difference_low"]) == pytest.approx((-0.15, -0.2))


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.01, 0.2, "better than"),
        (-0.2, -0.01, "worse than"),
        (-0.01, 0.2, "not told apart from"),
        (-0.2, 0.01, "not told apart from"),
        (np.nan, np.nan, "no interval against"),
    ],
)
def test_a_verdict_is_what_its_interval_says(low, high, words):
    columns = ["method", "organ", "resample", *scoring.GAIN, *scoring.OVER_CONTROL]
    rows = [("frozen", *[0.0] * 6), ("seal", 0.1, low, high, 0.3, 0.2, 0.4), ("seal_shuffled", *[np.nan] * 6)]
    table = pd.DataFrame([(name, "all", "donors", *values) for name, *values in rows], columns=columns)
    other = table.assign(organ="Lung", difference=-1.0)
    lines = scoring.verdicts(pd.concat([other, table]))
    assert lines[0] == "paired differences, 95 % intervals over donors"
    assert lines[1] == f"seal: {words} frozen (+0.100, {low:+.3f} to {high:+.3f})"
    assert lines[-1] == "seal: better than seal_shuffled (+0.300, +0.200 to +0.400)"


def test_settings_of_controls_and_ablations(evaluated):
    evaluation = evaluated(random_encoders=1, ablation_folds=1)
    assert [seed for seed, _ in evaluation.runs("random", "1of2")] == [0]
    assert [seed for seed, _ in evaluation.runs("seal", "1of2")] == [0, 1]
    assert [fold.name for fold in Ablation(evaluation.pairs, None).folds()] == ["1of2"]
    table = scoring.summary(evaluation)
    assert table.set_index(["organ", "method"]).loc[("all", "random"), "seeds"] == 1


def test_maps_show_each_donors_own_first_genes(evaluated):
    evaluation = evaluated()
    maps = scoring.maps(evaluation, genes=2)
    assert set(maps.columns) == set(results.RESULTS["maps"].columns)
    assert maps["donor"].nunique() == 12
    for fold in evaluation.pairs.folds():
        genes = evaluation.pairs.panel(fold).test["Lung"][:2]
        part = maps[(maps["fold"] == fold.name) & maps["sample"].str.startswith("Lung")]
        assert part["gene"].unique().tolist() == list(genes)


def test_the_maps_sections_have_their_tissue(evaluated, monkeypatch):
    monkeypatch.setattr(scoring, "PICTURE", 20)
    evaluation = evaluated()
    table = scoring.map_sections(evaluation, scoring.maps(evaluation, genes=1))
    assert set(table.columns) == set(results.RESULTS["map_sections"].columns)
    assert len(table) == min(2, len(evaluation.folds()))
    row = table.iloc[0]
    section = next(s for s in evaluation.pairs.sections if s.sample == row["sample"])
    image, span = evaluation.pairs.tissue(section)
    picture = Image.open(BytesIO(b64decode(row["jpeg"])))
    assert max(image.shape) > max(picture.size) == 20
    assert picture.width * row["span"] == pytest.approx(image.shape[1] * span)
    assert row["um_per_px"] == section.um_per_px


def test_rows_carry_each_methods_label_and_kind_in_the_order_of_the_list(evaluated):
    evaluation = evaluated()
    expected = [(m.name, m.label, m.kind) for m in evaluation.methods]
    for table in (scoring.scores(evaluation), scoring.gene_scores(evaluation), scoring.summary(evaluation)):
        rows = table[["method", "label", "kind"]].drop_duplicates()
        assert list(rows.itertuples(index=False, name=None)) == expected


@pytest.mark.parametrize(
    ("split", "dealt", "folds", "words"),
    [
        ("given", 0, 1, "the test set's donors left out"),
        ("section", 0, 3, "one section left out"),
        ("study", 4, 4, "studies left out in 4 folds"),
        ("organ", 4, 2, "organs left out in 2 of 4 folds"),
    ],
)
def test_what_was_left_out_is_said_in_words(split, dealt, folds, words):
    assert scoring._tested(profiles.EvaluationSettings(split=split, folds=dealt), folds) == words
