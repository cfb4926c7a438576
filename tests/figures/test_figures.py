"""Figures from made-up tables: sizes, text, data where it belongs; nothing overlaps the paper's edge."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from figures import for_notebooks
from figures.E4_maps import expression_maps_figure, pitch
from figures.E5_ablations import ablations_figure
from figures.F1_overview import overview_figure
from figures.F3_hest_bench import hest_bench_panel
from figures.F3_patch_level import patch_level_figure
from figures.style import BLUE, DOUBLE, GREY, KINDS, VERMILION, draw_scale, mark, method_looks, new_figure, style
from seal.errors import SealError
from tests.figures.made_up import (
    BASELINES,
    METHODS,
    SIX,
    TRUTH,
    ablation_table,
    bench_table,
    curve_table,
    map_table,
    patch_tables,
    section_table,
)

MM = 25.4
SAMPLES = pd.DataFrame(
    {"organ": ["Breast", "Bowel"], "disease_state": ["Cancer", "Healthy"], "pairs": [100, 300], "simulated": True}
)
ORGANS = (
    *("Bladder", "Bowel", "Brain", "Breast", "Cervix", "Heart", "Kidney"),
    *("Liver", "Lung", "Ovary", "Pancreas", "Prostate", "Skin", "Uterus"),
)
ATLAS = {f"{organ}-{i}": organ for organ in ORGANS for i in range(4)}
WITH_TRUTH = METHODS | TRUTH
SUMMARY = patch_tables()[1]
RIVALS = patch_tables(methods={name: METHODS[name] for name in ("frozen", "seal")} | BASELINES)[1]


@style()
def bench_figure(**given):
    figure = new_figure(DOUBLE, 80)
    hest_bench_panel(figure.subfigures(1, 1), bench_table(**given))
    figure.draw_without_rendering()
    return figure


BY_ORGAN = ["frozen encoder", "SEAL", "SEAL, shuffled pairs"]
FIGURES = {
    "HEST-Bench": bench_figure,
    "HEST-Bench, real": lambda: bench_figure(simulated=False),
    "overview": lambda: overview_figure(samples=SAMPLES),
    "overview real": lambda: overview_figure(hest_metadata=SAMPLES.rename(columns={"pairs": "spots"})),
    "patch level, 6 folds": lambda: patch_level_figure(*patch_tables()),
    "patch level, truth": lambda: patch_level_figure(*patch_tables(methods=WITH_TRUTH)),
    "patch level, 14 organs": lambda: patch_level_figure(*patch_tables(ATLAS, dealt=4, methods=WITH_TRUTH)),
    "patch level, 2 folds": lambda: patch_level_figure(*patch_tables({"B": "Breast", "C": "Breast"})),
    "patch level, 2 encoders": lambda: patch_level_figure(*patch_tables(encoders=("own", "uni"))),
    "patch level, baselines": lambda: patch_level_figure(*patch_tables(), baselines=RIVALS),
    "maps": lambda: expression_maps_figure(map_table(), SUMMARY),
    "maps, one section": lambda: expression_maps_figure(map_table(["B4"], ["ERBB2"]), SUMMARY),
    "maps, H&E": lambda: expression_maps_figure(map_table(), SUMMARY, section_table()),
    "ablations": lambda: ablations_figure(curve_table(), ablation_table(), SUMMARY),
}


def texts(figure) -> list[Text]:
    return [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]


@pytest.fixture(scope="module")
def drawn():
    return {name: mark(draw(), "simulated data (demo)") for name, draw in FIGURES.items()}


@pytest.mark.parametrize("name", FIGURES)
def test_printed_size_and_type(drawn, name):
    figure = drawn[name]
    width, height = figure.get_size_inches() * MM
    assert width <= 183.01
    assert height <= 240
    assert min(t.get_fontsize() for t in texts(figure)) >= 6


@pytest.mark.parametrize("name", FIGURES)
def test_text_lies_on_the_page_and_not_on_the_mark(drawn, name):
    figure = drawn[name]
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()  # what is drawn, inches
    assert min(box.x0, box.y0) >= -0.01
    assert box.x1 <= width + 0.01
    assert box.y1 <= height + 0.01
    (mark,) = [t for t in texts(figure) if t.get_text().startswith("simulated data (")]
    for text in texts(figure):
        drawn_text = text.axes is None or text.axes.axison
        if drawn_text and text is not mark:
            assert not text.get_window_extent().overlaps(mark.get_window_extent()), text.get_text()


@pytest.mark.parametrize("name", FIGURES)
def test_titles_do_not_run_into_each_other(drawn, name):
    figure = drawn[name]
    titles = [t for a in figure.axes for t in (a.title, a._left_title) if t.get_text()]
    boxes = [(t.get_text(), t.get_window_extent()) for t in titles]
    for i, (first, box) in enumerate(boxes):
        for second, other in boxes[i + 1 :]:
            assert not box.overlaps(other), (first, second)


def panel(figure, title: str):
    """The axes whose title begins so."""
    return next(a for a in figure.axes if a.get_title(loc="left").startswith(title))


def test_kinds_decide_how_a_method_looks():
    looks = method_looks(patch_tables(methods=METHODS | BASELINES | TRUTH)[1])
    assert list(looks) == [*METHODS, *BASELINES, *TRUTH]
    assert (looks["frozen"].colour, looks["seal"].colour) == (BLUE, VERMILION)
    controls = [look for look in looks.values() if look.kind == "control"]
    assert {look.colour for look in controls} == {GREY}
    assert len({look.marker for look in controls}) == len(controls)
    baselines = [look.colour for look in looks.values() if look.kind == "baseline"]
    assert len(set(baselines) | {BLUE, VERMILION, GREY}) == len(baselines) + 3
    assert looks["oracle"].line != looks["ceiling"].line
    with pytest.raises(SealError, match="'frozen' is of the kind 'new'"):
        method_looks(pd.DataFrame({"method": ["frozen"], "label": "x", "kind": "new"}))
    many = pd.DataFrame({"method": [f"m{i}" for i in range(40)], "label": "x", "kind": "baseline"})
    assert len(method_looks(many)) == 40


def test_patch_level_draws_each_mean_at_its_value(drawn):
    means = SUMMARY[SUMMARY["organ"] == "all"].set_index("method")["mean"]
    axes = panel(drawn["patch level, 6 folds"], "A")
    labels = [t.get_text() for t in axes.get_yticklabels()]
    assert labels == [label for label, *_ in METHODS.values()]
    circles = [c for c in axes.collections if c.get_zorder() == 3]
    np.testing.assert_allclose([c.get_offsets()[0] for c in circles], [(means[m], i) for i, m in enumerate(METHODS)])
    assert len({float(c.get_sizes()[0]) for c in circles}) == 1, "one encoder: its size says nothing"


def test_circle_area_is_the_number_of_parameters_where_encoders_differ(drawn):
    scores, summary, encoders = patch_tables(encoders=("own", "uni"))
    figure = patch_level_figure(scores, summary, encoders.assign(parameters=[20_000_000, 80_000_000]))
    sizes = [float(c.get_sizes()[0]) for c in panel(figure, "A").collections if c.get_zorder() == 3]
    own, uni = sizes[: len(METHODS)], sizes[len(METHODS) :]
    assert uni[0] == pytest.approx(4 * own[0])
    assert (own[0], own[2]) == (own[1], uni[2]), "SEAL is as large as its encoder, a control never"
    assert any("circle area" in t.get_text() for t in texts(figure))
    assert not any("circle area" in t.get_text() for t in texts(drawn["patch level, 6 folds"]))


def contrasts(axes):
    """Row -> place, marks and printed numbers of the panel of differences."""
    labels = dict(zip(axes.get_yticks(), (t.get_text() for t in axes.get_yticklabels()), strict=True))
    printed = {t.get_position()[1]: t.get_text() for t in axes.texts if t.get_position()[0] > 1}
    marks = {}
    for line in axes.lines:
        if len(line.get_xdata()) == 1:
            marks.setdefault(line.get_ydata()[0], []).append((line.get_marker(), float(line.get_xdata()[0])))
    return [(label, marks[y], printed[y]) for y, label in labels.items()]


def test_differences_have_their_own_axis_and_printed_intervals(drawn):
    axes = panel(drawn["patch level, 6 folds"], "Differences")
    rows = contrasts(axes)
    assert [label for label, *_ in rows] == [*(label for label, *_ in list(METHODS.values())[1:]), "SEAL"]
    seal, shuffled, *_, mean, against = rows
    low, high = axes.get_xlim()
    assert -low == high < 0.1, "the mean predictor's distance does not set the axis"
    assert seal[1] == [("o", pytest.approx(0.041))]
    assert seal[2] == "+0.041 [+0.036, +0.046]"
    assert shuffled[1] == [("s", pytest.approx(-0.009))]
    assert mean[1] == [("<", low)], "an arrowhead for what lies beyond"
    assert mean[2].startswith("\N{MINUS SIGN}0.325 [")
    assert against[1:] == ([("o", 0.05)], "+0.050 [+0.030, +0.060]")
    titles = [t.get_text() for t in axes.texts if t.get_weight() == "bold"]
    assert titles == ["minus the frozen encoder", "minus SEAL, shuffled pairs"]


def test_without_its_difference_to_the_control_seal_has_one_row():
    scores, summary, encoders = patch_tables()
    older = summary.drop(columns=["control", "control_difference", "control_low", "control_high"])
    axes = panel(patch_level_figure(scores, older, encoders), "Differences")
    assert [label for label, *_ in contrasts(axes)].count("SEAL") == 1
    assert not any("minus SEAL" in t.get_text() for t in axes.texts)


def test_patch_level_draws_single_scores(drawn):
    scores, _, _ = patch_tables()
    axes = panel(drawn["patch level, 6 folds"], "A")
    ticks = np.concatenate([c.get_offsets() for c in axes.collections if c.get_zorder() == 1])
    for y, method in enumerate(METHODS):
        expected = scores.loc[scores["method"] == method, "value"]
        np.testing.assert_allclose(np.sort(ticks[ticks[:, 1] == y, 0]), np.sort(expected))


def test_organs_show_our_means_and_intervals(drawn):
    axes = panel(drawn["patch level, 6 folds"], "By organ")
    labels = [t.get_text() for t in axes.get_xticklabels()]
    assert labels == ["Bowel (2)", "Breast (2)", "Kidney (2)"]
    of = SUMMARY[SUMMARY["organ"] != "all"].set_index(["method", "organ"])
    points = {line.get_color(): line for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata()) == 3}
    for method, colour in (("frozen", BLUE), ("seal", VERMILION)):
        np.testing.assert_allclose(points[colour].get_ydata(), of.loc[method]["mean"])
        bars = [line for line in axes.lines if line.get_color() == colour and line.get_marker() != "o"]
        ends = sorted(tuple(np.round(bar.get_ydata(), 9)) for bar in bars)
        expected = of.loc[method][["low", "high"]].round(9).itertuples(index=False, name=None)
        assert ends == sorted(expected), "the mean lies not in the middle of its interval: it is drawn as it is"


def test_a_method_without_an_interval_is_drawn_at_its_mean():
    scores, summary, encoders = patch_tables()
    bare = summary.assign(**dict.fromkeys(("low", "high", "difference_low", "difference_high"), float("nan")))
    axes = panel(patch_level_figure(scores, bare, encoders), "By organ")
    of = summary[(summary["organ"] != "all") & (summary["method"] == "seal")]
    (line,) = [n for n in axes.lines if n.get_color() == VERMILION and len(n.get_xdata()) == 3]
    np.testing.assert_allclose(line.get_ydata(), of["mean"])


def test_a_new_method_needs_no_change_here():
    tables = patch_tables(methods=METHODS | {"new": ("a new one", "control", 0.3, True)})
    axes = panel(patch_level_figure(*tables), "A")
    assert axes.get_yticklabels()[-1].get_text() == "a new one"


def test_baselines_stand_in_a_panel_of_their_own_beside_seal(drawn):
    figure = drawn["patch level, baselines"]
    own = [label for label, *_ in METHODS.values()]
    assert [t.get_text() for t in panel(figure, "A").get_yticklabels()] == own
    labels = [label for label, *_ in BASELINES.values()]
    assert [t.get_text() for t in panel(figure, "C").get_yticklabels()] == ["frozen encoder", "SEAL", *labels]
    minus = next(a for a in figure.axes if any(t.get_text() == "minus SEAL" for t in a.texts))
    rows = contrasts(minus)
    assert [(label, marks[0][1]) for label, marks, _ in rows] == [(label, -0.05) for label in labels]


def test_of_several_encoders_each_has_its_rows_and_the_first_the_organs():
    figure = patch_level_figure(*patch_tables(encoders=("own", "uni")))
    titles = {t.get_position()[1]: t.get_text() for t in panel(figure, "A").texts if t.get_weight() == "bold"}
    assert titles == {0: "own-S", len(METHODS) + 1: "uni-S"}
    rows = contrasts(panel(figure, "Differences"))
    assert [label for label, *_ in rows[-2:]] == ["own-S", "uni-S"]
    by_organ = panel(figure, "By organ")
    assert [t.get_text() for t in by_organ.get_legend().get_texts()] == BY_ORGAN


def test_one_organ_is_not_drawn_twice(drawn):
    figure = drawn["patch level, 2 folds"]  # of one organ
    assert not any(a.get_title(loc="left").startswith("By organ") for a in figure.axes)
    assert any(t.get_text().startswith("Lines: 95 %") for t in texts(figure))


def test_patch_level_says_what_was_left_out():
    scores, summary, encoders = patch_tables()
    figure = patch_level_figure(scores, summary.assign(tested="one section left out"), encoders)
    assert panel(figure, "A").get_title(loc="left").endswith("one section left out")
    assert panel(figure, "A").get_xlabel().endswith("(donors 6, seeds 3)")


def test_truth_is_drawn_as_lines_and_told_from_encoders(drawn):
    for name, organs in (("patch level, truth", 3), ("patch level, 14 organs", 14)):
        _, summary, _ = patch_tables(
            SIX if organs == 3 else ATLAS, dealt=0 if organs == 3 else 4, methods=METHODS | TRUTH
        )
        figure = drawn[name]
        axes = panel(figure, "A")
        assert [t.get_text() for t in axes.get_yticklabels()] == [label for label, *_ in METHODS.values()]
        means = summary[summary["organ"] == "all"].set_index("method")["mean"]
        lines = {round(line.get_xdata()[0], 6) for line in axes.lines if len(set(line.get_xdata())) == 1}
        assert {round(means[m], 6) for m in TRUTH} <= lines
        assert {"oracle", "ceiling"} <= {t.get_text() for t in axes.texts}
        by_organ = panel(figure, "By organ")
        words = [t.get_text() for t in by_organ.get_legend().get_texts()]
        assert words == [*BY_ORGAN, *(label for label, *_ in TRUTH.values())]
        segments = [c for c in by_organ.collections if hasattr(c, "get_segments")]
        assert len(segments) == organs * len(TRUTH)
        assert len(by_organ.get_xticklabels()) == organs


def test_patch_level_says_what_was_resampled_and_dealt(drawn):
    words = " ".join(t.get_text() for t in texts(drawn["patch level, 14 organs"]))
    assert "donors left out in 4 folds" in words
    assert "(donors 56, seeds 3)" in words
    assert "95 % bootstrap intervals over donors" in words
    words = " ".join(t.get_text() for t in texts(drawn["patch level, 6 folds"]))
    assert "95 % bootstrap intervals over spots. Ticks: single donors and seeds." in words
    assert "oracle" not in words


def test_maps_name_the_donor_of_a_numbered_fold():
    table = map_table(["B4"], ["ERBB2"]).assign(fold="1of4", donor="HER2ST-B")
    assert any("B4, donor HER2ST-B left out" in t.get_text() for t in texts(expression_maps_figure(table, SUMMARY)))
    alone = table.assign(fold="B4")  # a section that is left out alone
    assert any(t.get_text().startswith("A  B4, left out") for t in texts(expression_maps_figure(alone, SUMMARY)))


def test_overview_says_whose_samples_it_counts(drawn):
    words = {name: " ".join(t.get_text() for t in texts(drawn[name])) for name in ("overview", "overview real")}
    assert "simulated samples" in words["overview"]
    assert "real HEST-1k metadata" in words["overview real"]
    assert "Cancer, 25.0%" in words["overview"]


def test_maps_share_a_scale_and_give_the_correlation():
    table = map_table(["B4"], ["ERBB2"])
    figure = expression_maps_figure(table, SUMMARY)
    spots = [
        c
        for axes in figure.axes
        for c in axes.collections
        if c.get_array() is not None and len(c.get_offsets()) == len(table)
    ]
    assert len(spots) == 3
    assert len({c.get_clim() for c in spots}) == 1
    np.testing.assert_allclose(spots[0].get_array(), table["measured"])
    np.testing.assert_allclose(spots[2].get_array(), table["seal"])
    np.testing.assert_allclose(spots[0].get_offsets(), table[["x", "y"]])
    words = [t.get_text() for t in texts(figure)]
    assert "SEAL\nPCC 1.00" in words
    assert "frozen encoder\nno PCC: all equal" in words
    assert all(axes.get_aspect() == 1 for axes in figure.axes if axes.collections and axes.get_title())


def test_maps_show_the_tissue_in_um_and_say_whose_counts_they_are(drawn):
    figure = drawn["maps, H&E"]
    tissue = [axes for axes in figure.axes if axes.get_title() == "H&E"]
    below = next(axes for axes in figure.axes if axes.get_title().startswith("simulated\n"))
    assert len(tissue) == 2
    for axes in tissue:
        (image,) = axes.images
        assert image.get_extent() == [0, 3500, 4000, 0]
        assert axes.axis() == below.axis()
        np.testing.assert_allclose(image.get_array()[20, 20], [220, 120, 180], atol=3)
        assert [t.get_text() for t in axes.texts] == ["200 µm"]
        assert np.ptp(axes.lines[0].get_xdata()) == 400, "half a um is one px"
    labels = {axes.get_ylabel() for axes in figure.axes}
    assert "log simulated counts" in labels
    real = expression_maps_figure(map_table(), SUMMARY, section_table(simulated=False))
    assert "log expression" in {axes.get_ylabel() for axes in real.axes}


def test_maps_without_tissue_have_no_empty_picture():
    words = [t.get_text() for t in texts(expression_maps_figure(map_table(), SUMMARY))]
    assert not any("H&E" in w or "µm" in w for w in words)
    assert any(w.endswith(" px") for w in words)
    one = expression_maps_figure(map_table(), SUMMARY, section_table(["B4"]))
    assert sum("the results hold" in t.get_text() for t in texts(one)) == 1


def test_maps_keep_their_patterns_where_a_gene_is_absent_or_a_prediction_is_off():
    spots = map_table(["B4"], ["ERBB2"]).assign(measured=0.0, frozen=-2.0)
    spots["seal"] = 3 + np.linspace(0, 1, len(spots))
    figure = expression_maps_figure(spots, SUMMARY)
    limits = {c.get_clim() for axes in figure.axes for c in axes.collections if axes.get_title()}
    ((low, high),) = limits
    assert low == 0, "expression is not below zero, whatever is predicted"
    assert high == pytest.approx(3.98), "and what is predicted is not all beyond the scale"
    assert "measured\nin 0 % of spots" in [t.get_text() for t in texts(figure)]


def test_tissue_stands_large_beside_a_key_and_no_cell_is_empty(drawn):
    figure = drawn["maps, H&E"]
    tissue = next(axes for axes in figure.axes if axes.get_title() == "H&E")
    spots = next(axes for axes in figure.axes if axes.get_title().startswith("SEAL"))
    assert tissue.get_position().height > 1.4 * spots.get_position().height
    blank = [a for a in figure.axes if not (a.texts or a.collections or a.images or a.lines or a.patches)]
    assert not blank


def test_overview_of_one_organ_counts_pairs_by_donor_and_samples_that_have_any():
    breast = pd.concat([SAMPLES] * 2, ignore_index=True).assign(organ="Breast", simulated=False)
    breast = breast.assign(donor=["D0", "D1", "D0", "D2"], pairs=[100, 300, 50, 0])
    axes = panel(overview_figure(samples=breast), "B")
    assert [t.get_text() for t in axes.get_yticklabels()] == ["D0", "D1"]
    title = axes.get_legend().get_title().get_text()
    assert title == "3 samples, 450 pairs\n1 more without a picture"


def test_maps_show_each_method_that_has_a_column():
    table = map_table(["B4"], ["ERBB2"])
    figure = expression_maps_figure(table.assign(random=table["measured"]), SUMMARY)
    titles = [axes.get_title().partition("\n")[0] for axes in figure.axes if axes.get_title()]
    assert titles == ["measured", "frozen encoder", "SEAL", "random weights"]


def test_curves_average_the_steps_of_an_epoch():
    table = pd.concat([curve_table(), curve_table().assign(step=99, value=2.0)])
    figure = ablations_figure(table, ablation_table(), SUMMARY)
    panels = [axes for axes in figure.axes if axes.get_xlabel() == "epoch"]
    assert len(panels) == 7
    for line in [line for axes in panels for line in axes.lines if line.get_linewidth() > 1]:
        np.testing.assert_allclose(line.get_ydata(), [(1 / (e + 1) + 2) / 2 for e in range(4)])
        np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3, 4])


def test_ablations_are_drawn_at_their_difference_and_open_where_it_may_be_none(drawn):
    axes = drawn["ablations"].axes[0]
    labels = dict(zip(axes.get_yticks(), (t.get_text() for t in axes.get_yticklabels()), strict=True))
    points = {labels[line.get_ydata()[0]]: line for line in axes.lines if line.get_marker() == "o"}
    table = ablation_table().drop_duplicates("label").set_index("label").drop("variant full")
    assert points.keys() == set(table.index)
    assert "frozen" in labels[0]
    for label, row in table.iterrows():
        assert points[label].get_xdata() == [row["difference"]]
        is_open = points[label].get_markerfacecolor() == "white"
        assert is_open == (row["difference_low"] <= 0 <= row["difference_high"])
    assert any(list(line.get_xdata()) == [0, 0] for line in axes.lines), "the full method's line"
    assert points["variant frozen"].get_color() == KINDS["encoder"][0]
    words = [t.get_text() for t in texts(drawn["ablations"])]
    assert any(w.startswith("difference in PCC to the full method") for w in words)
    assert any("one donor left out (folds 6, donors 6, seeds 1)" in w for w in words)
    assert "\N{MINUS SIGN}0.0500 [\N{MINUS SIGN}0.0650, \N{MINUS SIGN}0.0350]" in words


def test_a_variant_of_one_organ_is_not_drawn_twice():
    table = ablation_table()
    both = pd.concat([table, table.assign(organ="Breast", difference=9.0)])
    axes = ablations_figure(curve_table(), both, SUMMARY).axes[0]
    assert max(max(line.get_xdata()) for line in axes.lines) < 1


@pytest.mark.parametrize(("x", "y", "expected"), [([0, 10, 20], [0, 0, 0], 10), ([0, 0], [0, 7], 7), ([1], [1], 1)])
def test_pitch(x, y, expected):
    assert pitch(np.array(x), np.array(y)) == expected


def test_scale_bar_is_round_and_as_long_as_it_says():
    figure = for_notebooks.tissue_with_spots(None, map_table(["B4"], ["ERBB2"]), "measured")
    axes = figure.axes[0]
    for line in axes.lines:
        line.remove()
    for text in list(axes.texts):
        text.remove()
    draw_scale(axes, [0, 8000], "µm", 0.5)
    (line,), (text,) = axes.lines, axes.texts
    assert text.get_text() == "1,000 µm"
    assert np.ptp(line.get_xdata()) == 2000


def test_pictures_for_notebooks():
    spots = map_table(["B4"], ["ERBB2"]).assign(label="tumour")
    image = np.zeros((40, 35, 3), dtype=np.uint8)
    with_image = for_notebooks.tissue_with_spots(image, spots, "measured", "B4", downsample=100, um_per_px=0.69)
    assert with_image.axes[0].images[0].get_extent() == [0, 3500, 4000, 0]
    assert any(t.get_text() == "tumour" for t in texts(for_notebooks.tissue_with_spots(None, spots, "label")))
    sheet = for_notebooks.patch_sheet(np.zeros((3, 8, 8, 3), dtype=np.uint8), ["a", "b", "c"])
    assert [a.get_title() for a in sheet.axes] == ["a", "b", "c"]
    xy = np.random.default_rng(0).normal(size=(20, 2))
    pair = for_notebooks.umap_pair({"frozen": xy, "SEAL": xy}, ["x", "y"] * 10, "organ")
    assert len(pair.axes) == 2
    many = for_notebooks.umap_pair({"z": np.zeros((60, 2))}, [f"organ {i % 30}" for i in range(60)], "organ")
    labels = [t.get_text() for t in many.axes[0].get_legend().get_texts()]
    assert len(labels) == 24
    assert "others" in labels
    lines = for_notebooks.curve(curve_table(), "epoch", "value", "term", "epoch", "loss").axes[0].lines
    assert len(lines) == 6
    log = [{"step": i, "info": 2.0 - i, "kl": 0.1} for i in range(3)]
    first, second = for_notebooks.loss_curves(log, ["info", "kl"]).axes
    assert first.lines[0].get_ydata().tolist() == [2.0, 1.0, 0.0]
    assert second.get_title(loc="left") == "KL term, nats"
    maps = for_notebooks.spot_maps(spots, ["measured", "seal"], "log expression")
    assert len({a.collections[0].get_clim() for a in maps.axes[:2]}) == 1


def test_clusters_are_named_on_the_plot():
    rng = np.random.default_rng(0)
    groups = np.repeat(ORGANS, 30)
    apart = np.repeat(rng.uniform(-50, 50, (14, 2)), 30, axis=0) + rng.normal(size=(420, 2))
    figure = for_notebooks.umap_pair({"apart": apart, "together": rng.normal(size=(420, 2))}, groups, "organ")
    for axes in figure.axes:
        assert {t.get_text() for t in axes.texts} == set(ORGANS)
        boxes = [t.get_window_extent() for t in axes.texts]
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
        edge = axes.get_window_extent()
        assert all(box.x0 >= edge.x0 - 1 and box.x1 <= edge.x1 + 1 and box.y1 <= edge.y1 + 1 for box in boxes)
    for text in figure.axes[0].texts:
        centre = apart[groups == text.get_text()].mean(axis=0)
        assert np.linalg.norm(np.array(text.get_position()) - centre) < 15, "beside its points"
    many = for_notebooks.umap_pair({"z": rng.normal(size=(60, 2))}, [f"donor {i % 30}" for i in range(60)], "donor")
    assert not many.axes[0].texts


def test_the_waterfall_says_what_a_rule_takes_out():
    left, out = {"samples_left": [9, 7], "spots_left": [900, 700]}, {"samples_out": [0, 2], "spots_out": [0, 200]}
    table = pd.DataFrame({"rule": ["all", "no blank"], "source": ["paper", "our choice"], **left, **out})
    figure = for_notebooks.waterfall_figure(table, 800)
    words = [t.get_text() for t in texts(figure)]
    assert "7 samples, 700 spots   (−2, −200)" in words
    labels = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert labels == ["all", "no blank (ours)"]


def test_style_does_not_leak():
    import matplotlib as mpl

    before = mpl.rcParams["font.size"]
    ablations_figure(curve_table(), ablation_table(), SUMMARY)
    assert mpl.rcParams["font.size"] == before


def test_hest_bench_shows_published_numbers_and_no_gain_that_was_not_reported(drawn):
    said = {name: " ".join(t.get_text() for t in texts(drawn[name])) for name in ("HEST-Bench", "HEST-Bench, real")}
    assert "simulated tasks in its layout" in said["HEST-Bench"]
    assert "simulated" not in said["HEST-Bench, real"].replace("simulated data (demo)", "")
    assert "IDC: frozen number misses the published one by -0.0500: no gain reported" in said["HEST-Bench, real"]
    upper, lower = drawn["HEST-Bench, real"].subfigs[0].axes
    seal = next(line for line in lower.lines if line.get_label() == "SEAL").get_ydata()
    np.testing.assert_allclose(seal, [np.nan, 0.03, 0.03, 0.03])
    bars = [c for c in upper.collections if len(c.get_segments()) and np.ptp(c.get_segments()[0][:, 1]) == 0]
    assert [segment[0, 1] for segment in bars[0].get_segments()] == pytest.approx([0.31, 0.36, 0.41, 0.46])
