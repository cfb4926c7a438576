"""From label tables to tasks: a user's own small cohort, and the real ones of BCNB, BRACS and TCGA."""

from collections import Counter

import numpy as np
import pytest

from seal.data import slide_cohorts
from seal.data.slide_cohorts import BCNB, BRACS, DAYS_A_MONTH, QUARTERS, TCGA, build_cohort, build_task
from seal.data.slide_tasks import read_columns
from seal.errors import SealError

COHORTS = {
    "bcnb": ("TANGLE/dataset_csv/bcnb_brca.csv", BCNB, "case"),
    "bracs": ("TANGLE/dataset_csv/bracs.csv", BRACS, "slide"),
    **{
        f"tcga_{c}": (f"SurvPath/datasets_csv/metadata/tcga_{c}.csv", TCGA, "case")
        for c in ("blca", "brca", "coadread", "hnsc", "stad")
    },
}


@pytest.fixture(params=list(COHORTS))
def real(request, shared):
    path, labels, sample = COHORTS[request.param]
    path = shared / "labels" / path
    if not path.is_file():
        pytest.skip(f"no label table {path.name} in {path.parent}")
    return request.param, read_columns(path), *build_cohort(path, request.param, labels, sample)


def test_real_tables_become_tasks(real):
    name, table, made, refused = real
    sites = name.startswith("tcga")
    one_type = name in ("tcga_blca", "tcga_hnsc")
    assert refused == ({"OncoTreeCode": "task OncoTreeCode: one label only"} if one_type else {})
    assert len(made) == {"bcnb": 6, "bracs": 2}.get(name, 4) - one_type
    for task in made:
        assert task.notes == ("folds by site: each site is on one side" if sites else "folds by case",)
        assert len(task.cases) + sum(task.dropped.values()) == len(table["case_id"])
        assert not any(slide.endswith(".svs") for slide in task.slides)
        tested = np.zeros(len(task.cases), dtype=int)
        for train, test in task.folds.values():
            tested[test] += 1
            assert len(train) + len(test) == len(task.cases)
            units = np.array(task.site if sites else task.cases)
            assert not set(units[train]) & set(units[test])
            assert not set(np.array(task.cases)[train]) & set(np.array(task.cases)[test])
            for side in (train, test):
                assert len(set((task.labels if task.event is None else task.event)[side])) == (
                    2 if task.event is not None else len(task.classes)
                )
        assert (tested == 1).all()


def test_real_counts(shared):
    path = shared / "labels" / COHORTS["bcnb"][0]
    if not path.is_file():
        pytest.skip(f"no label table {path.name} in {path.parent}")
    made, _ = build_cohort(path, "bcnb", BCNB)
    found = {task.name: [int(np.sum(task.labels == k)) for k in range(len(task.classes))] for task in made}
    assert found == {
        "er": [227, 831],
        "pr": [268, 790],
        "her2": [781, 277],
        "her2_ihc": [127, 242, 483, 206],
        "subtype": [273, 288, 372, 125],
        "aln": [655, 210, 193],
    }
    assert [task.metric for task in made] == ["macro-ovr-auc"] * 3 + ["weighted_kappa", "bacc", "weighted_kappa"]


def test_real_survival_is_whole_days_and_events(shared):
    path = shared / "labels" / COHORTS["tcga_coadread"][0]
    if not path.is_file():
        pytest.skip(f"no label table {path.name} in {path.parent}")
    table = read_columns(path)
    months = np.array([float(text) for text in table["survival_months_pfi"]])
    np.testing.assert_allclose(months * DAYS_A_MONTH, np.round(months * DAYS_A_MONTH), atol=1e-6)
    task = next(task for task in build_cohort(path, "tcga_coadread", TCGA)[0] if task.name == "PFS_PFI")
    assert task.dropped == {"days not above 0": int((months <= 0).sum())} == {"days not above 0": 2}
    row = dict(zip(table["slide_id"], zip(months, table["censorship_pfi"], strict=True), strict=True))
    for slide, event, days in zip(task.slides, task.event, task.days, strict=True):
        assert (round(row[f"{slide}.svs"][0] * DAYS_A_MONTH), 1 - int(row[f"{slide}.svs"][1])) == (days, event)


def own(labels, **more):
    number = len(labels)
    return {
        "case": [f"c{i}" for i in range(number)],
        "slide": [f"s{i}.svs" for i in range(number)],
        "label": labels,
    } | more


def test_a_users_csv_becomes_a_task(tmp_path):
    path = tmp_path / "own.csv"
    rows = [f"c{i // 2},s{i}.ndpi,{'yes' if i // 2 % 3 else 'no'},70" for i in range(60)]
    path.write_text("\n".join(["case,slide,label,age", *rows]) + "\n")
    task = build_task(read_columns(path), "answer", where=path)
    assert (task.kind, task.metric, task.classes, task.slides[0]) == ("classes", "macro-ovr-auc", ("no", "yes"), "s0")
    assert [len(set(np.array(task.cases)[test])) for _, test in task.folds.values()] == [6] * 5
    again = build_task(read_columns(path), "answer")
    assert [test.tolist() for _, test in again.folds.values()] == [test.tolist() for _, test in task.folds.values()]
    other = build_task(read_columns(path), "answer", seed=1)
    assert [test.tolist() for _, test in other.folds.values()] != [test.tolist() for _, test in task.folds.values()]


def test_the_kind_is_told_by_the_columns():
    number = [f"{i / 7:.3f}" for i in range(40)]
    assert build_task(own(number), "a").kind == "numbers"
    assert build_task(own(["1", "1.0", "0", "0.0"] * 10), "a").classes == ("0", "1")
    assert build_task(own(["10", "9", "9", "10"] * 10), "a").classes == ("9", "10")
    survival = {"event": ["0", "1"] * 20, "days": [str(i + 1) for i in range(40)]}
    task = build_task(own(["x"] * 40, **survival), "a")
    assert (task.kind, task.classes) == ("survival", QUARTERS)
    assert Counter(task.labels // 4) == {0: 20, 1: 20}
    assert Counter(task.labels % 4) == dict.fromkeys(range(4), 10)
    grades = build_task(
        own(["low", "high", "mid"] * 10), "a", kind="grades", classes={g: g for g in ("low", "mid", "high")}
    )
    assert (grades.labels[:3].tolist(), grades.metric) == ([0, 2, 1], "weighted_kappa")


def test_rows_left_out_are_counted_by_reason():
    task = build_task(own(["a", "b"] * 20 + ["", "NaN", "c"]), "t", classes={"a": "a", "b": "b"})
    assert task.dropped == {"no label": 2, "a label of no class of the task": 1}
    assert len(task.cases) == 40
    times = {"event": ["0", "1"] * 20, "days": ["5"] * 36 + ["", "0", "-1", "nan"]}
    assert build_task(own(["x"] * 40, **times), "t").dropped == {"no days": 2, "days not above 0": 2}
    assert build_task(own(["none", "some"] * 10), "t").classes == ("none", "some")


def test_survival_of_whom_none_was_censored_is_a_task():
    days = [str(i + 1) for i in range(20)]
    task = build_task(own(["x"] * 20, event=["1"] * 20, days=days, site=[f"S{i % 6}" for i in range(20)]), "OS")
    assert len(task.folds) == 5
    assert (task.labels >= 4).all()


def test_slides_lose_the_suffix_of_their_file():
    columns = own(["a", "b"] * 10, slide=[f"T.{i}.SVS" if i % 2 else f"T.{i}" for i in range(20)])
    assert build_task(columns, "t").slides == tuple(f"T.{i}" for i in range(20))


def test_a_cohort_of_other_columns_is_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("case_id,slide_id,er\n1,2,0\n")
    with pytest.raises(SealError, match="lacks the columns ALN_status, HER2 Expression, Molecular subtype, her2, pr"):
        build_cohort(path, "bcnb", BCNB)
    made, refused = build_cohort(path, "bcnb", BCNB[:1])
    assert (made, refused) == ([], {"er": "task er: 1 cases"})


BAD = {
    "no column": ({"case": ["a"], "slide": ["b"]}, r"has the columns case, slide, and lacks label"),
    "one label": (own(["a"] * 30), "one label only"),
    "few of a class": (own(["a"] * 30 + ["b"] * 4), "4 cases of b"),
    "few cases": (own(["a", "b"] * 4), "8 cases"),
    "few events": (own(["x"] * 20, event=["1"] * 4 + ["0"] * 16, days=["3"] * 20), "4 events"),
    "all censored": (own(["x"] * 20, event=["0"] * 20, days=["3"] * 20), "all 20 rows are censored"),
    "no event but 0 and 1": (own(["x"] * 20, event=["2"] * 20, days=["3"] * 20), "'2' is neither 0 nor 1"),
    "infinite days": (own(["x"] * 20, event=["1"] * 20, days=["inf"] * 20), "slide s0, days: 'inf' is not finite"),
    "a slide twice": (
        own(["a", "b"] * 20, slide=["s.svs", "s.tif"] * 20),
        "1 slides are there more than once, first s",
    ),
    "a case of two labels": (own(["a", "b"] * 20, case=["c"] * 40), "c has two values of label"),
    "a case at two sites": (
        own(["a", "b"] * 20, case=["c"] * 2 + [f"c{i}" for i in range(38)], site=["x", "y"] * 20),
        "two values",
    ),
    "no label": (own([""] * 20), "no row can be used: 20 no label"),
    "an unknown kind": (own(["a", "b"] * 20), "unknown kind of task 'ordinal'"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_said(case):
    columns, message = BAD[case]
    with pytest.raises(SealError, match=message):
        build_task(columns, "t", kind="ordinal" if "kind" in case else "")


@pytest.mark.parametrize(
    ("site", "note"),
    [
        ([f"S{i % 7}" for i in range(80)], "folds by site: each site is on one side"),
        ([f"S{i % 7}" if i < 70 else "NA" for i in range(80)], "folds by site: each site is on one side"),
        ([f"S{i % 3}" for i in range(80)], "folds by case, since by site: 3 sites for 5 folds"),
        ([f"S{i % 8}" for i in range(80)], "folds by case, since by site: fold_"),  # each site has one label only
    ],
)
def test_sites_are_kept_whole_where_they_can_be(site, note):
    task = build_task(own(["a", "b"] * 40, site=site), "t")
    assert task.notes[0].startswith(note)
    for train, test in task.folds.values():
        assert set(task.labels[test]) == set(task.labels[train]) == {0, 1}
        shared = {task.site[i] for i in train} & {task.site[i] for i in test}
        assert bool(shared) == ("by case" in note)
    assert len(set(task.site)) == len(set(site) - {"NA"}) + site.count("NA")  # whose site is unknown is alone


def test_a_label_that_one_site_holds_leaves_sites_aside_and_says_so():
    label = ["a"] * 40 + ["b"] * 10
    task = build_task(own(label, site=[f"S{i % 8}" for i in range(40)] + ["T"] * 10), "t")
    (note,) = task.notes
    assert note.startswith("folds by case, since by site: fold_")
    assert "only a to t" in note
    assert [int((task.labels[test] == 1).sum()) for _, test in task.folds.values()] == [2] * 5


def test_slides_of_a_case_may_have_labels_of_their_own():
    columns = own(["a", "b", "a"] * 20, case=[f"c{i // 3}" for i in range(60)])
    task = build_task(columns, "t", sample="slide")
    assert (task.bags, len(task.labels)) == (task.slides, 60)
    assert all(
        not {task.cases[i] for i in train} & {task.cases[i] for i in test} for train, test in task.folds.values()
    )


# --- a user's own table -----------------------------------------------------------------------------------


USERS = {
    "patient": [f"P{i // 2}" for i in range(40)],
    "file": [f"S{i}.svs" for i in range(40)],
    "clinic": [f"C{i // 2 % 4}" for i in range(40)],
    "ER/PR": ["pos" if i // 2 % 2 else "neg" for i in range(40)],
    "age": [f"{50 + i // 2}.5" for i in range(40)],
    "grade": [str(1 + i // 2 % 3) if i > 1 else "NA" for i in range(40)],
    "OS_event": [str(int(i // 2 % 3 > 0)) for i in range(40)],
    "OS_days": [str(100 + i // 2) for i in range(40)],
    "DFS_event": ["0"] * 40,
    "DFS_days": ["7"] * 40,
    "rare": ["a" if i // 2 in (3, 4) else "b" for i in range(40)],
    "unlike": [str(i % 2) for i in range(40)],
    "fold_0": ["train"] * 40,
    "ER-PR": ["x" if i // 2 % 2 else "y" for i in range(40)],
}


@pytest.fixture
def users(tmp_path):
    rows = [USERS, *zip(*USERS.values(), strict=True)]
    (tmp_path / "own.csv").write_text("\n".join(",".join(row) for row in rows))
    return tmp_path / "own.csv"


def read_users(path, site="clinic"):
    return slide_cohorts.read_labels(path, "patient", "file", site)


def test_every_column_that_can_be_a_task_is_one_and_the_others_are_named(users):
    made, refused = slide_cohorts.find_tasks(read_users(users), group="cohort", seed=3)
    assert {task.name: task.kind for task in made} == {
        **{"ER-PR": "classes", "age": "numbers", "grade": "classes", "OS": "survival"},
    }
    assert {task.group for task in made} == {"cohort"}
    er, _, grade, survival = made
    assert er.classes == ("neg", "pos")
    assert (er.slides[0], er.site[:3], len(er.folds)) == ("S0", ("C0", "C0", "C1"), 5)
    assert grade.dropped == {"no label": 2}
    assert survival.days[:3].tolist() == [100, 100, 101]
    assert "40 rows are censored" in refused.pop("DFS")
    assert "2 cases of a" in refused.pop("rare")
    assert "two values of label" in refused.pop("unlike")
    assert "fold" in refused.pop("fold_0")
    assert "another task's" in refused.pop("ER-PR")  # both would be in one folder
    assert not refused


def test_columns_that_are_asked_for_are_tasks_of_the_kind_that_is_asked_for(users):
    (grade, age), refused = slide_cohorts.find_tasks(read_users(users, ""), ["grade=grades", "age"])
    assert (grade.kind, grade.metric, age.kind, refused) == ("grades", "weighted_kappa", "numbers", {})
    assert grade.site is None
    (survival,), refused = slide_cohorts.find_tasks(read_users(users), ["OS", "rare=classes"])
    assert (survival.kind, list(refused)) == ("survival", ["rare"])
    with pytest.raises(SealError, match=r"unknown column 'grad'(.|\n)*'grade'"):
        slide_cohorts.find_tasks(read_users(users), ["grad"])
    with pytest.raises(SealError, match="unknown column 'age_event'"):
        slide_cohorts.find_tasks(read_users(users), ["age=survival"])
    with pytest.raises(SealError, match=r"unknown kind of task 'number'(.|\n)*'numbers'"):
        slide_cohorts.find_tasks(read_users(users), ["age=number"])
    with pytest.raises(SealError, match=r"no column of .* can be a task: rare \(.*2 cases of a.*expected"):
        slide_cohorts.find_tasks(read_users(users), ["rare"])


def test_survival_without_its_package_is_named(users, monkeypatch):
    monkeypatch.setattr(slide_cohorts, "find_spec", lambda name: None)
    _, refused = slide_cohorts.find_tasks(read_users(users))
    assert "pip install scikit-survival" in refused["OS"]


def test_rows_of_some_slides_are_left_out(users):
    left = read_users(users).leave_out({"S0", "S1", "S39"})
    assert len(left.slides) == 37
    assert left.labels["age"][0] == "51.5"


def test_a_column_site_that_is_not_the_hospital_is_a_label(users):
    users.write_text(users.read_text().replace("age,", "site,"))
    assert read_users(users).shared["site"][0] == "C0"
    assert read_users(users).labels["site"][0] == "50.5"
    assert "site" not in read_users(users, "").labels


def test_a_users_table_that_lacks_a_column_or_has_a_slide_twice(users):
    with pytest.raises(SealError, match=r"lacks case_id, slide_id(.|\n)*--case COLUMN"):
        slide_cohorts.read_labels(users)
    with pytest.raises(SealError, match="lacks hospital"):
        read_users(users, "hospital")
    users.write_text(users.read_text().replace("S1.svs", "S0"))
    with pytest.raises(SealError, match="1 slides are there more than once, first S0"):
        read_users(users)
