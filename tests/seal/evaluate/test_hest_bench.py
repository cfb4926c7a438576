"""HEST-Bench from folders to tables: HEST's own steps, the comparison with published numbers, what is not scored."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from seal.data import hest_bench as tasks_of
from seal.data.assemble import assemble
from seal.errors import SealError
from seal.evaluate import hest_bench
from seal.results import RESULTS
from seal.slides import trident
from seal.train import batches, runs
from tests.bench_folder import write_task

FOLDS = [["A", "B"], ["C", "D"]]
PATCHES = {"A": 14, "B": 12, "C": 13, "D": 8}


@pytest.fixture
def bench(small, tmp_path):
    """Two tasks, tokens, and trained runs of the first fold."""
    for seed, name in enumerate(("IDC", "HCC")):
        write_task(tmp_path / "bench" / name, PATCHES, FOLDS, seed=seed)
    source = batches.build(assemble(small))
    chosen = hest_bench.list_runs(source.pairs)
    runs.train_runs(chosen, source)
    return tasks_of.read_tasks(tmp_path / "bench"), source, chosen


def plain_hest_bench(z, y, split, genes):
    """HEST's steps with scikit-learn: train_test_reg after StandardScaler and PCA; mean Pearson over genes."""
    from scipy.stats import pearsonr
    from sklearn.decomposition import PCA
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    (x, x_test), (t, t_test) = ([np.concatenate([of[s] for s in side]) for side in split] for of in (z, y))
    pipe = make_pipeline(StandardScaler(), PCA(min(256, *x.shape), svd_solver="full"))
    x, x_test = pipe.fit_transform(x), pipe.transform(x_test)
    ridge = Ridge(100 / (x.shape[1] * genes), solver="lsqr", fit_intercept=False, max_iter=1000, tol=1e-10)
    predicted = ridge.fit(x, t).predict(x_test)
    return np.mean([pearsonr(t_test[:, g], predicted[:, g])[0] for g in range(genes)])


def test_from_folders_to_tables(bench):
    tasks, source, chosen = bench
    table = hest_bench.evaluate(tasks, source, chosen)
    assert set(RESULTS["hest_bench"].columns) <= set(table)
    encoders = ("stnet", "bleep", "pathomclip", "pathomclip_spatial", "mclstexp", "triplex")
    once = {"frozen", "seal_shuffled", "no_expression", *(f"{name}_probed" for name in encoders)}
    assert table.groupby("method")["seed"].nunique().to_dict() == dict.fromkeys(once, 1) | {"seal": 2}
    labels = table.drop_duplicates("method").set_index("method")
    assert labels.loc["stnet_probed", ["label", "kind"]].tolist() == ["ST-Net's encoder", "probed"]
    assert table["simulated"].all()
    assert table["published"].isna().all()
    keys = ["task", "method", "probe", "fold", "seed", "correlation"]
    assert not table.duplicated(keys).any()
    summary = hest_bench.summary(table, 50)
    assert set(RESULTS["hest_bench_summary"].columns) <= set(summary)
    assert list(dict.fromkeys(summary["task"])) == ["IDC", "HCC", "average"]
    assert set(summary["note"].str.split("; ").str[-1]) == {"simulated: no published number"}
    seal = summary.query("method == 'seal' and probe == 'hest_bench' and correlation == 'pooled'").set_index("task")
    own = table.query("probe == 'hest_bench' and correlation == 'pooled' and task == 'IDC'")
    means = own.groupby("method")["value"].mean()
    assert seal.loc["IDC", "mean"] == pytest.approx(means["seal"])
    assert seal.loc["IDC", "difference"] == pytest.approx(means["seal"] - means["frozen"])
    assert seal.loc["average", "mean"] == pytest.approx(seal.loc["IDC", "mean"])  # HCC is outside
    assert (seal.loc["average", "tasks"], seal.loc["IDC", "folds"], seal.loc["IDC", "seeds"]) == (1, 2, 2)


def test_the_official_probe_is_hest_benchs_to_the_tolerance(bench):
    tasks, source, chosen = bench
    table = hest_bench.evaluate(tasks[:1], source, chosen[:1])
    task = tasks[0]
    y = {sample: task.expression(sample) for sample in task.files}
    for method, name in (("frozen", "dinov2s_derived"), ("seal", f"dinov2s_derived_seal_{chosen[0].fold.name}_seed0")):
        files = {sample: hest_bench._file(source.pairs, task, sample, name) for sample in task.files}
        z = {sample: trident.read_table(path, "features") for sample, path in files.items()}
        for fold, split in task.splits.items():
            ours = table.set_index(["method", "fold", "probe", "correlation"])["value"]
            ours = ours[method, fold, "hest_bench", "pooled"]
            assert ours == pytest.approx(plain_hest_bench(z, y, split, len(task.genes)), abs=1e-4)


def test_nothing_is_embedded_twice_and_a_changed_sample_is(bench):
    tasks, source, chosen = bench
    hest_bench.embed_tasks(tasks, source, chosen)
    name = "dinov2s_derived"
    path = hest_bench._file(source.pairs, tasks[0], "A", name)
    before = path.stat().st_mtime_ns
    hest_bench.embed_tasks(tasks, source, chosen)
    assert path.stat().st_mtime_ns == before
    write_task(tasks[0].files["A"][0].parents[1], {"A": 9}, [["A"]], seed=7)
    hest_bench.embed_tasks(tasks, source, chosen)
    assert len(trident.read_table(path, "features")) == 9
    assert trident.attributes_of(path)["simulated"]


def test_embeddings_are_the_whole_encoders(bench):
    tasks, source, chosen = bench
    hest_bench.embed_tasks(tasks[:1], source, chosen)
    images = np.concatenate(list(tasks[0].images("A", 99)))
    for name, encoder in (
        ("dinov2s_derived", source.encoder),
        (f"dinov2s_derived_seal_{chosen[1].fold.name}_seed1", runs.train_vision(chosen[1], source).encoder),
    ):
        whole = encoder.eval()(encoder.preprocess(images)).detach().numpy()
        stored = trident.read_table(hest_bench._file(source.pairs, tasks[0], "A", name), "features")
        np.testing.assert_allclose(stored, whole, atol=1e-5)


def test_a_small_section_and_a_shared_donor_have_a_row_that_says_so(bench):
    tasks, source, chosen = bench
    table = hest_bench.evaluate(tasks[:1], source, chosen[:1])
    second = table[(table["fold"] == "1") & (table["correlation"] == "sample")]
    assert (second["note"] == "8 test patches: too few for a correlation").all()
    assert second["value"].notna().all()  # of the other sample
    shared = dataclasses.replace(tasks[0], donors={"A": "study, P1", "C": "study, P1"})
    table = hest_bench.evaluate([shared], source, chosen[:1])
    assert table["value"].isna().all()
    assert set(table["note"]) == {"donor study, P1 is in training and test: not scored"}
    summary = hest_bench.summary(table, 50)
    assert summary["mean"].isna().all()
    assert summary["note"].str.startswith("donor study, P1").all()


def test_simulated_tasks_are_refused_where_results_would_say_real(bench):
    tasks, source, _ = bench
    real = dataclasses.replace(tasks[0], simulated=False)
    with pytest.raises(SealError, match="task IDC is real, profile demo has simulated data"):
        hest_bench.evaluate([real], source, [])


def test_another_field_of_view_is_refused(bench):
    tasks, source, _ = bench
    pairs = dataclasses.replace(source.pairs, profile=dataclasses.replace(source.pairs.profile, um_per_px=1.0))
    other = batches.RecomputedTokens(pairs, source.key)
    with pytest.raises(SealError, match="takes patches of 56 um"):
        hest_bench.evaluate(tasks, other, [])


# ---- the comparison with published numbers, on made-up scores ------------------------------------------------------


def scores(encoder, frozen, gain=0.05, simulated=False):
    """Frozen and SEAL in two folds of each task, whose means are `frozen` and `frozen` + `gain`; made up."""
    rows = [
        {"task": task, "method": method, "label": method, "kind": kind, "fold": str(fold)}
        | {"value": value + shift + (fold - 0.5) * 0.02}
        for task, value in frozen.items()
        for method, kind, shift in (("frozen", "encoder", 0.0), ("seal", "adapted", gain))
        for fold in range(2)
    ]
    table = pd.DataFrame(rows).assign(encoder=encoder, probe="hest_bench", correlation="pooled", metric="pcc", seed=0)
    boosted = table.assign(probe="xgboost", value=table["value"] - 0.1)
    return pd.concat([table, boosted]).assign(simulated=simulated, note="", published=np.nan)


def published(encoder="uni2_h"):
    numbers = hest_bench.read_published()[encoder]
    return {task: numbers[task] for task in tasks_of.AVERAGED}


def seal_rows(table, probe="hest_bench"):
    summary = hest_bench.summary(table, 200)
    return summary[(summary["method"] == "seal") & (summary["probe"] == probe)].set_index("task")


def test_the_published_rows_average_as_stated():
    for name, numbers in hest_bench.read_published().items():
        tasks = [numbers[task] for task in tasks_of.AVERAGED]
        assert np.mean(tasks) == pytest.approx(numbers["average"], abs=1e-4), name


def test_where_the_frozen_encoder_is_as_published_the_gain_is_reported():
    rows = seal_rows(scores("uni2_h", published()))
    assert rows["difference"].to_numpy() == pytest.approx(0.05)
    assert (rows["note"] == "").all()
    assert rows.loc["IDC", "published"] == 0.5898
    assert rows.loc["average", "published"] == 0.4141
    assert rows.loc["average", ["difference_low", "difference_high"]].tolist() == pytest.approx([0.05, 0.05])


def test_where_it_misses_the_published_number_no_gain_is_reported():
    numbers = published() | {"IDC": published()["IDC"] + 0.03, "READ": published()["READ"] + 0.015}
    table = scores("uni2_h", numbers)
    for probe in ("hest_bench", "xgboost"):
        rows = seal_rows(table, probe)
        assert rows.loc["IDC", ["difference", "difference_low", "difference_high"]].isna().all()
        assert rows.loc["IDC", "note"] == "frozen number misses the published one by +0.0300: no gain reported"
        assert rows.loc["READ", "difference"] == pytest.approx(0.05)  # within .02
        assert rows.loc["average", "difference"] == pytest.approx(0.05)  # +.005, within .01
    low = {task: value - 0.012 for task, value in published().items()}  # each task within .02, their average not
    rows = seal_rows(scores("uni2_h", low))
    assert rows.loc[list(low), "difference"].notna().all()
    assert np.isnan(rows.loc["average", "difference"])
    assert rows.loc["average", "note"].startswith("frozen number misses the published one by -0.0120")


def test_an_encoder_without_a_published_row_says_so():
    rows = seal_rows(scores("dinov2s_derived", {"IDC": 0.4}))
    assert (rows["note"] == "no published row to check against").all()
    assert rows["difference"].to_numpy() == pytest.approx(0.05)


def test_simulated_tasks_are_never_compared():
    rows = seal_rows(scores("uni2_h", dict.fromkeys(tasks_of.AVERAGED, 0.1), simulated=True))
    assert rows["published"].isna().all()
    assert (rows["note"] == "simulated: no published number").all()
    assert rows["difference"].notna().all()


def test_an_average_of_fewer_than_nine_is_not_compared():
    numbers = published() | {"HCC": 0.9}
    del numbers["LUNG"]
    rows = seal_rows(scores("uni2_h", numbers))
    assert np.isnan(rows.loc["average", "published"])
    assert rows.loc["average", "note"] == "not all of the nine tasks: no published number of these"
    inside = [numbers[task] for task in tasks_of.AVERAGED if task in numbers]
    assert rows.loc["average", "mean"] == pytest.approx(np.mean(inside) + 0.05)
    assert rows.loc["HCC", "note"] == "no published row to check against"
