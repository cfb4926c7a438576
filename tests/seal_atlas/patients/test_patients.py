import dataclasses
from collections import Counter

import h5py
import numpy as np
import openslide
import pytest

from seal.data.slide_folds import find_shortage
from seal.errors import SealError
from seal.evaluate.slide import concordance, score_slides
from seal.files import read_json, sha256
from seal_atlas import tables
from seal_atlas.counting import transcripts
from seal_atlas.patients import oracle, people, tasks
from seal_atlas.settings import AtlasSettings
from seal_atlas.writing import cohorts, slides
from tests.seal_atlas.patients.truth_of_undrawn import expected_truth

SEED = [2026, 40]


@pytest.fixture(scope="module")
def drawn():
    return people.draw_patients(200, SEED)


def composition(patients, seed):
    """Cells of slides as organs have them: a few types each, alike within an organ and state."""
    rng, kinds = np.random.default_rng(seed), {}
    groups = np.array([cell.group for cell in tables.cell_types().values()])
    common = np.isin(groups, ["immune", "stroma"])
    rows = []
    for patient in patients:
        key = (patient.organ, patient.state)
        if key not in kinds:
            share = np.where(common, 0.04, 0.0)
            share[rng.choice(np.flatnonzero(~common), 3, replace=False)] = (0.5, 0.2, 0.1)
            kinds[key] = share
        row = kinds[key] * np.exp(0.2 * rng.standard_normal(len(groups)))
        rows.append(row / row.sum())
    return np.array(rows)


def virtual(number, seed):
    patients = people.draw_patients(number, [seed, 40])
    return patients, expected_truth(patients, composition(patients, seed), [seed, 40])


# --- who the patients are


def test_numbers_are_those_of_the_table(drawn):
    rows = [row for _, row in tables.read_numbered(tables.FOLDER / "cohort.csv")]
    assert Counter(p.subtype for p in drawn) == {row["subtype"]: int(row["patients"]) for row in rows}
    assert sum(int(row["patients"]) for row in rows) == 200
    assert len({p.case for p in drawn}) == 200


@pytest.mark.parametrize("number", [7, 199, 1000])
def test_other_numbers_keep_the_proportions(number):
    counts = Counter(p.subtype for p in people.draw_patients(number, SEED))
    assert counts.total() == number
    for _, row in tables.read_numbered(tables.FOLDER / "cohort.csv"):
        assert abs(counts[row["subtype"]] - int(row["patients"]) * number / 200) < 1


def test_organs_can_be_chosen():
    assert {p.organ for p in people.draw_patients(30, SEED, organs=("Kidney", "Lung"))} == {"Kidney", "Lung"}
    with pytest.raises(SealError, match="no diagnosis of the organs Thyroid"):
        people.draw_patients(30, SEED, organs=("Thyroid",))


def test_same_seed_same_patients_and_names_by_prefix(drawn):
    assert people.draw_patients(200, SEED) == drawn
    assert people.draw_patients(200, [2027, 40]) != drawn
    assert people.draw_patients(3, SEED, prefix="S")[0].case == "S00001"


def test_sites_are_dealt_as_the_table_says_and_unseen_ones_are_few(drawn):
    many = Counter(p.site for p in people.draw_patients(3000, SEED))
    for site, share in zip("ABCDEF", (0.2, 0.2, 0.2, 0.2, 0.1, 0.1), strict=True):
        assert abs(many[site] / 3000 - share) < 0.02
    unseen = {name for name, site in tables.sites().items() if site.role == "unseen"}
    assert unseen == {"E", "F"}
    assert 20 <= sum(p.site in unseen for p in drawn) <= 60


# --- alterations


@pytest.mark.parametrize("name", [n for n, a in people.alterations().items() if not a.is_level])
def test_alterations_have_their_shares_among_those_who_can_have_them(drawn, name):
    alteration = people.alterations()[name]
    able = [p for p in drawn if p.organ in alteration.organs and p.state[0] in alteration.states]
    assert {p.case for p in able} == {p.case for p in drawn if name in p.alterations}
    counts = Counter(p.alterations[name] for p in able)
    for value, share in zip(alteration.values, alteration.shares, strict=True):
        assert abs(counts[value] - share * len(able)) <= 1


def test_alterations_do_not_depend_on_the_organ():
    many = [p for p in people.draw_patients(8000, SEED) if "TP53" in p.alterations]
    by_organ = {o: [p.alterations["TP53"] == "mutated" for p in many if p.organ == o] for o in {p.organ for p in many}}
    z = [(np.mean(v) - 0.45) / np.sqrt(0.45 * 0.55 / len(v)) for v in by_organ.values()]
    assert np.abs(z).max() < 3.5


def test_effects_add_up(drawn):
    patient = next(p for p in drawn if p.alterations.get("TP53") == "mutated" and p.organ == "Kidney")
    causes = [people.subtypes()[patient.subtype].effect]
    for name, value in patient.alterations.items():
        alteration = people.alterations()[name]
        causes.append(alteration.effects[alteration.values.index(value)])
    wanted = sum(cause.shifts.get("p53", 0.0) for cause in causes)
    assert patient.shifts["p53"] == pytest.approx(wanted)
    assert wanted <= -1.2


def test_morphology_stays_in_bounds_and_shows_only_where_it_can():
    for patient in people.draw_patients(2000, SEED):
        for name, value in patient.morphology.items():
            factor = people.morphology_factors()[name]
            assert factor.low <= value <= factor.high
            if name not in people.shown_factors(patient.organ, patient.state):
                assert value == 1
    assert "nuclear_size" not in people.shown_factors("Heart", "Diseased")
    assert "nuclear_size" in people.shown_factors("Kidney", "Cancer")


def test_morphology_has_the_names_of_the_tissue():
    from seal_atlas.growing.grow import Morphology

    assert list(people.morphology_factors()) == [f.name for f in dataclasses.fields(Morphology)]


def test_alterations_move_what_the_table_says():
    kidneys = [p for p in people.draw_patients(4000, SEED) if "VHL" in p.alterations]
    mutated = np.array([p.alterations["VHL"] == "mutated" for p in kidneys])
    dark = np.log([p.morphology["nuclear_dark"] for p in kidneys])
    effect = people.alterations()["VHL"].effects[1].factors["nuclear_dark"]
    assert dark[mutated].mean() - dark[~mutated].mean() == pytest.approx(np.log(effect), abs=0.03)


@pytest.mark.parametrize("text", ["prolif:+1", "proliferation:x2", "nuclear_size:+1", "nuclear_size:x-1", "hypoxia:+a"])
def test_unreadable_effects_are_named_with_their_line(text):
    with pytest.raises(SealError, match=r"t\.csv, line 3"):
        people.parse_effect(text, "t.csv, line 3")


# --- tasks and labels


def test_the_papers_numbers_of_tasks():
    assert Counter(t.group for t in tasks.slide_tasks().values()) == tasks.GROUPS
    assert sum(tasks.GROUPS.values()) == 44
    assert {t.of.partition(":")[2] for t in tasks.slide_tasks().values() if t.group == "pathway"} == set(
        tables.programmes()
    )


def test_null_tasks_stand_in_three_groups_and_have_no_effects():
    null = [t for t in tasks.slide_tasks().values() if t.is_null]
    assert len(null) >= 3
    assert len({t.group for t in null}) >= 3
    for task in null:
        kind, _, name = task.of.partition(":")
        if kind == "alteration":
            assert not any(e.shifts or e.factors for e in people.alterations()[name].effects)


@pytest.fixture(scope="module")
def truth(drawn):
    return expected_truth(drawn, composition(drawn, 0), SEED)


@pytest.mark.parametrize("name", list(tasks.slide_tasks()))
def test_every_task_has_cases_enough_at_200_patients(drawn, truth, name):
    labels = tasks.label_slides(tasks.slide_tasks()[name], drawn, truth, SEED)
    assert find_shortage(labels.label, labels.classes, labels.event) is None
    assert len(labels.rows) >= 28
    assert all(labels.task.takes(drawn[i]) for i in labels.rows)


@pytest.mark.parametrize(
    ("name", "classes", "metric"),
    [
        ("ER6", 6, "weighted_kappa"),
        ("PR6", 6, "weighted_kappa"),
        ("diagnosis", 30, "bacc"),
        ("kidney_subtype", 5, "bacc"),
        ("breast_fine", 7, "bacc"),
        ("breast_coarse", 3, "bacc"),
    ],
)
def test_morphology_tasks_are_those_of_the_public_caption(drawn, truth, name, classes, metric):
    labels = tasks.label_slides(tasks.slide_tasks()[name], drawn, truth, SEED)
    assert len(labels.classes) == len(set(labels.label.tolist())) == classes
    assert labels.task.metric == metric


def test_latent_classes_have_their_shares(drawn, truth):
    for task in tasks.slide_tasks().values():
        if task.of == "latent":
            labels = tasks.label_slides(task, drawn, truth, SEED)
            share = np.bincount(labels.label) / len(labels.label)
            np.testing.assert_allclose(share, [float(s) for s in task.share.split("/")], atol=1.01 / len(labels.label))


def test_kras_is_one_of_the_classes_of_the_driver_task(drawn, truth):
    binary, three = (tasks.label_slides(tasks.slide_tasks()[n], drawn, truth, SEED) for n in ("KRAS", "RTK_RAS"))
    np.testing.assert_array_equal(binary.rows, three.rows)
    np.testing.assert_array_equal(binary.label == 1, three.label == three.classes.index("KRAS"))


def test_survival_is_censored_and_follows_the_risk():
    patients = people.draw_patients(2000, SEED)
    truth = expected_truth(patients, composition(patients, 0), SEED)
    labels = tasks.label_slides(tasks.slide_tasks()["OS"], patients, truth, SEED)
    assert 0.3 < labels.event.mean() < 0.75
    assert labels.days.min() >= 1
    risk = truth.activity[labels.rows, list(tables.programmes()).index("proliferation")]
    assert concordance(labels.days, labels.event, risk) > 0.55
    np.testing.assert_array_equal(labels.label >= 4, labels.event == 1)


def test_tasks_are_refused_where_they_name_nothing(monkeypatch, tmp_path):
    text = (tables.FOLDER / "tasks.csv").read_text()
    for old, new, what in (
        ("alteration:TP53 ", "alteration:TP35 ", "TP53: of alteration:TP35"),
        ("t_cell:1 ", "t_sell:1 ", "TIL: weight t_sell:1"),
        ("alteration:STK11", "alteration:MSI  ", "STK11: strength none, but MSI has effects"),
    ):
        assert old in text
        for path in tables.FOLDER.glob("*.csv"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
        (tmp_path / "tasks.csv").write_text(text.replace(old, new))
        monkeypatch.setattr(tables, "FOLDER", tmp_path)
        with pytest.raises(SealError, match=what):
            tasks.slide_tasks.__wrapped__()
        monkeypatch.undo()


# --- what the truth tells


def test_oracle_recovers_strong_more_than_moderate_more_than_weak_and_nothing_from_null_tasks():
    found = oracle.score_tasks(*virtual(2000, 3), [3, 40])
    assert [task.task for task, _ in found] == list(tasks.slide_tasks())
    by = {strength: [score for task, score in found if task.strength == strength] for strength in tasks.STRENGTHS}
    mean = {strength: np.mean([score.gained for score in scores]) for strength, scores in by.items()}
    assert mean["strong"] > 0.8
    assert 0.4 < mean["moderate"] < mean["strong"] - 0.1
    assert 0.1 < mean["weak"] < mean["moderate"] - 0.1
    for score in by["strong"] + by["moderate"]:
        assert score.low > score.chance, score
    for score in by["none"]:
        assert abs(score.value - score.chance) < 0.1, score


def test_null_tasks_are_at_chance_within_their_intervals():
    null, found = [t for t in tasks.slide_tasks().values() if t.is_null], []
    for seed in range(12):
        patients, truth = virtual(300, seed)
        features = oracle.oracle_features(truth)
        for task in null:
            labels = tasks.label_slides(task, patients, truth, [seed, 40])
            found.append(score_slides(features[labels.rows], labels, tasks.deal_folds(labels, truth.cases, [seed, 40])))
    inside = [score.low <= score.chance <= score.high for score in found]
    assert np.mean(inside) > 0.85
    assert abs(np.mean([score.value - score.chance for score in found])) < 0.03


@pytest.mark.slow
def test_effects_survive_in_tissue_that_was_grown(drawn):
    from seal_atlas.growing import grow
    from seal_atlas.writing import sections

    records, side = [], slides.slide_side(50)
    for patient in drawn:
        own, look = sections.seed_by_name(2026, patient.case), grow.Morphology(**patient.morphology)
        grown = grow.grow_tissue(own, patient.organ, patient.state, (side, side), look, True, patient.shifts)
        records.append(slides.slide_truth(grown, patient, own))
    columns = (np.array([r[n] for r in records]) for n in ("composition", "activity", "morphology", "scores"))
    found = oracle.score_tasks(drawn, tasks.CohortTruth(tuple(p.case for p in drawn), *columns), SEED)
    mean = {s: np.mean([score.gained for task, score in found if task.strength == s]) for s in tasks.STRENGTHS}
    assert mean["strong"] > 0.7
    assert 0.3 < mean["moderate"] < mean["strong"] - 0.15
    assert mean["weak"] < mean["moderate"] - 0.15
    assert all(score.low <= score.chance <= score.high for task, score in found if task.is_null)


def test_oracle_does_not_know_what_no_picture_shows(truth):
    other = dataclasses.replace(truth, activity=truth.activity.copy())
    hidden = [i for i, p in enumerate(tables.programmes().values()) if not p.seen]
    other.activity[:, hidden] = 0.5
    np.testing.assert_array_equal(oracle.oracle_features(other), oracle.oracle_features(truth))


# --- slides


SMALL = AtlasSettings(
    organs=("Breast", "Kidney"), patients=3, patches_per_slide=9, scanned_slides=1, scanned_patches=4, seed=5
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return cohorts.make_cohorts(tmp_path_factory.mktemp("slides") / "atlas", SMALL)


def names_of(root):
    return sorted(path.stem for path in (root / "wsis").glob("*.tif"))


def test_slides_of_patients_and_of_five_scanners(made):
    assert names_of(made) == ["SIM-P00001", "SIM-P00002", "SIM-P00003", *(f"SIM-S00001_S{i}" for i in range(1, 6))]
    import pandas as pd

    table = pd.read_csv(made / "slides.csv")
    assert table["slide_id"].tolist() == names_of(made)
    assert table.loc[table["cohort"] == "scanners", "scanner"].tolist() == ["S1", "S2", "S3", "S4", "S5"]
    assert len(set(table.loc[table["cohort"] == "scanners", "patches"])) == 1
    assert table["simulated"].all()
    mine = table[table["cohort"] == "patients"]
    assert (mine["scanner"] == [tables.sites()[site].scanner for site in mine["site"]]).all()


def test_covariates_are_what_is_known_without_the_slide(made):
    import pandas as pd

    table, patients = (pd.read_csv(made / f"{name}.csv") for name in ("covariates", "patients"))
    assert table.columns.tolist() == ["case_id", "organ", "site"]
    pd.testing.assert_frame_equal(table, patients[table.columns])
    (made / "covariates.csv").unlink()  # of an atlas that was made before there were any
    before = (made / "cohort.json").stat().st_mtime_ns
    cohorts.make_cohorts(made, SMALL)
    pd.testing.assert_frame_equal(pd.read_csv(made / "covariates.csv"), table)
    assert (made / "cohort.json").stat().st_mtime_ns == before


def test_the_truth_of_slides_is_standardised(made, monkeypatch):
    monkeypatch.setattr(cohorts, "prepare_slides", lambda _: made)
    known = cohorts.slide_truth(None)
    assert sorted(known) == ["SIM-P00001", "SIM-P00002", "SIM-P00003"]
    values = np.stack(list(known.values()))
    plain = oracle.oracle_features(cohorts.read_cohort_truth(made))
    varies = plain.std(axis=0) > 1e-9
    np.testing.assert_allclose(values[:, varies].mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(values[:, varies].std(axis=0), 1)
    r = [np.corrcoef(a, b)[0, 1] for a, b in zip(values.T[varies], plain.T[varies], strict=True)]
    np.testing.assert_allclose(r, 1)


def test_coordinates_are_tridents(made):
    slide = openslide.OpenSlide(str(made / "wsis" / "SIM-P00001.tif"))
    path = made / "20x_224px_0px_overlap" / "patches" / "SIM-P00001_patches.h5"
    with h5py.File(path) as file:
        coords, attrs = file["coords"][:], dict(file["coords"].attrs)
    assert coords.dtype == np.int64
    assert coords.shape[1] == 2
    assert (coords % 224 == 0).all()
    assert (coords + 224 <= slide.dimensions).all()
    assert [tuple(c) for c in coords] == sorted(tuple(c) for c in coords)  # columns first
    assert attrs == {
        "patch_size": 224,
        "patch_size_level0": 224,
        "level0_magnification": 20,
        "target_magnification": 20,
        "overlap": 0,
        "name": "SIM-P00001",
        "savetodir": "20x_224px_0px_overlap",
        "level0_width": slide.dimensions[0],
        "level0_height": slide.dimensions[1],
    }
    x, y = coords[len(coords) // 2].tolist()
    assert np.asarray(slide.read_region((x, y), 0, (224, 224)))[..., :3].mean() < 230


@pytest.mark.parametrize("patches", [20, 50])
def test_slides_hold_about_as_many_patches_as_asked(patches):
    from seal_atlas.growing import grow

    side = slides.slide_side(patches)
    counts = [
        len(slides.patch_coords(grow.grow_tissue([1, i], organ, "Cancer", (side, side), outlined=True)))
        for i, organ in enumerate(("Kidney", "Liver", "Prostate"))
    ]
    assert 0.8 * patches < np.mean(counts) < 1.25 * patches


def test_nothing_is_made_again_and_no_bar_appears(made, monkeypatch):
    def bar(*args, **kwargs):
        raise AssertionError("a progress bar with nothing to do")

    monkeypatch.setattr("tqdm.auto.tqdm", bar)
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*") if path.is_file()}
    cohorts.make_cohorts(made, SMALL)
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*") if path.is_file()} == before


def test_what_is_lost_is_made_again_to_the_same_bytes(made):
    files = [made / "wsis" / "SIM-P00002.tif", made / slides.COORDS / "patches" / "SIM-S00001_S3_patches.h5"]
    everything = {path: sha256(path) for path in made.rglob("*") if path.is_file()}
    for path in files:
        path.unlink()
    (made / "wsis" / ".SIM-P00009.abcd.part.tif").write_bytes(b"")
    untouched = (made / "wsis" / "SIM-P00001.tif").stat().st_mtime_ns
    cohorts.make_cohorts(made, SMALL)
    assert {path: sha256(path) for path in made.rglob("*") if path.is_file()} == everything
    assert (made / "wsis" / "SIM-P00001.tif").stat().st_mtime_ns == untouched


def test_other_settings_leave_nothing_of_the_old_behind(tmp_path):
    few = dataclasses.replace(SMALL, patients=2, organs=("Kidney",), patches_per_slide=4, scanned_patches=1)
    root = cohorts.make_cohorts(tmp_path / "slides", few)
    first = sha256(root / "wsis" / "SIM-P00001.tif")
    cohorts.make_cohorts(root, dataclasses.replace(few, patients=1, seed=6))
    assert names_of(root) == ["SIM-P00001", *(f"SIM-S00001_S{i}" for i in range(1, 6))]
    assert sha256(root / "wsis" / "SIM-P00001.tif") != first
    assert len(list((root / "truth").iterdir())) == 2


def test_truth_table_holds_what_is_true(made):
    from pyarrow import parquet

    truth, table = cohorts.read_cohort_truth(made), parquet.read_table(made / "truth.parquet")
    assert truth.cases == ("P00001", "P00002", "P00003")
    np.testing.assert_allclose(truth.composition.sum(axis=1), 1, atol=1e-4)
    assert ((truth.activity > 0) & (truth.activity < 1)).all()
    meta = {k.decode(): v.decode() for k, v in table.schema.metadata.items()}
    assert meta["programmes"].split(",") == list(tables.programmes())
    assert meta["genes"].split(",") == list(transcripts.gene_names())
    assert meta["simulated"] == "True"
    assert len(table["counts"][0]) == len(transcripts.gene_names())
    record = read_json(made / "truth" / "P00001.json")
    assert table["counts"][0].as_py() == record["counts"]
    assert table["patches"][0].as_py() == record["patches"]


def test_no_patients_is_an_error(tmp_path):
    with pytest.raises(SealError, match="no slide cohort can be made"):
        cohorts.make_cohorts(tmp_path / "slides", dataclasses.replace(SMALL, patients=0))
    with pytest.raises(SealError, match=r"truth\.parquet is missing"):
        cohorts.read_cohort_truth(tmp_path)


def test_scores_see_a_programme_and_not_the_depth():
    genes = 200
    inside = np.arange(genes) < 20
    base = np.random.default_rng(0).dirichlet(np.ones(genes))
    more = base * np.where(inside, 2.0, 1.0)
    deep, shallow = (slides.expression_scores(more * n, base, {"p": inside}) for n in (1e9, 1e5))
    assert deep[0] == pytest.approx(np.log(2), abs=0.05)
    assert shallow[0] == pytest.approx(deep[0], abs=1e-9)
    assert slides.expression_scores(base * 1e9, base, {"p": inside})[0] == pytest.approx(0, abs=1e-6)


def test_pathway_scores_follow_the_activity_of_the_slide():
    from seal_atlas.growing import grow

    patient = people.draw_patients(3, SEED, organs=("Kidney",))[0]
    column = list(tables.programmes()).index("hypoxia")
    found = []
    for shift in (-2.0, 2.0):
        moved = dataclasses.replace(patient, state="Cancer", shifts={"hypoxia": shift})
        grown = grow.grow_tissue([1, 2], "Kidney", "Cancer", (300.0, 300.0), shifts=moved.shifts)
        found.append(slides.slide_truth(grown, moved, [1, 2])["scores"][column])
    assert found[1] > found[0] + 0.2


def test_bulk_counts_are_deep_and_follow_the_cells():
    from seal_atlas.growing import grow
    from seal_atlas.writing import sections

    patient = people.draw_patients(3, SEED, organs=("Kidney",))[0]
    grown = grow.grow_tissue([1, 2], "Kidney", "Cancer", (300.0, 300.0))
    truth = sections.bulk_truth(grown, [1, 2])
    counts = slides.draw_bulk_counts(np.random.default_rng(0), truth, patient)
    assert counts.sum() == pytest.approx(transcripts.expression_parameters()["bulk_counts"], rel=0.01)
    wanted = transcripts.expected_shares(truth, "Kidney")[0]
    assert np.corrcoef(np.log(counts + 1), np.log(wanted * counts.sum() + 1))[0, 1] > 0.9
    np.testing.assert_array_equal(counts, slides.draw_bulk_counts(np.random.default_rng(0), truth, patient))
