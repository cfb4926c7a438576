"""Figures from made-up tables: sizes, text, data where it belongs; nothing overlaps the paper's edge."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

import figures
from figures.E4_maps import draw_scale, pitch
from figures.style import METHODS

MM = 25.4
LEVELS = {"frozen": 0.20, "seal": 0.24, "seal_shuffled": 0.19, "random": 0.12, "colour": 0.10, "mean": 0.0}
TRUTH = {"oracle": 0.5, "ceiling": 0.53}
SEEDLESS = ("frozen", "colour", "mean", *TRUTH)


def patch_tables(donors: dict[str, str], encoders=("own",), dealt=0, truth=False):
    """Scores (donor + seed shift the level), their summary and the encoders' table; `dealt` folds, or one a donor."""
    levels = LEVELS | (TRUTH if truth else {})
    rows = [
        {"encoder": e, "method": m, "organ": organ, "fold": f"{i % dealt + 1}of{dealt}" if dealt else donor}
        | {"donor": donor, "seed": seed}
        | {"value": level + 0.05 * (i % 6) + 0.001 * seed if m != "mean" else 0.0}
        for e in encoders
        for i, (donor, organ) in enumerate(donors.items())
        for m, level in levels.items()
        for seed in range(1 if m in SEEDLESS else 3)
    ]
    scores = pd.DataFrame(rows).assign(task="t", metric="pcc")
    summary = []
    for organ in ["all", *sorted(set(donors.values()))]:
        chosen = scores if organ == "all" else scores[scores["organ"] == organ]
        for (encoder, method), part in chosen.groupby(["encoder", "method"]):
            mean, frozen = part["value"].mean(), chosen[chosen["method"] == "frozen"]["value"].mean()
            row = {"encoder": encoder, "method": method, "organ": organ, "mean": mean, "low": mean - 0.01}
            row |= {"high": mean + 0.01, "difference": mean - frozen, "difference_low": mean - frozen - 0.005}
            row |= {"difference_high": mean - frozen + 0.005}
            summary.append(row | {f"{name}s": part[name].nunique() for name in ("fold", "donor", "seed")})
    table = pd.DataFrame(
        {"name": encoders, "label": [f"{e}-S" for e in encoders], "parameters": 21_600_000, "trainable": 73_728}
    )
    said = {"split": "donor", "dealt": dealt, "resample": "donors" if dealt else "spots"}
    return scores, pd.DataFrame(summary).assign(task="t", metric="pcc", **said), table


def map_table(samples=("B4", "C2"), genes=("ERBB2", "KRT19", "IGKC")) -> pd.DataFrame:
    x, y = (a.ravel() * 290.0 for a in np.meshgrid(np.arange(12), np.arange(14)))
    rng = np.random.default_rng(0)
    frames = []
    for sample in samples:
        for gene in genes:
            truth = np.sin(x / 500) + rng.normal(0, 0.2, len(x))
            frame = pd.DataFrame(
                {"fold": sample[0], "donor": sample[0], "sample": sample, "x": x, "y": y, "gene": gene}
            )
            frames.append(frame.assign(barcode="b", measured=truth, frozen=0.0, seal=0.5 * truth + 1))
    return pd.concat(frames, ignore_index=True)


def curve_table(epochs=4) -> pd.DataFrame:
    terms = {"omics": ["barlow", "mse", "total"], "vision": ["info", "rec_omics", "rec_vision", "total"]}
    rows = [
        {"stage": s, "method": m, "fold": f, "seed": 0, "epoch": e, "step": e, "term": t, "value": 1 / (e + 1)}
        for s, names in terms.items()
        for m in (("seal",) if s == "omics" else ("seal", "seal_shuffled"))
        for f in "AB"
        for e in range(epochs)
        for t in names
    ]
    return pd.DataFrame(rows)


def ablation_table(shift=-0.01) -> pd.DataFrame:
    """A variant of each kind beside the full method and the frozen encoder; `shift` moves the variants."""
    variants = [("T51", "no_info"), ("T51", "heads"), ("T52", "rank_32"), ("T53", "mse"), ("T54", "half_pairs")]
    rows = [(t, m, d) for t in ("T51", "T52", "T53", "T54") for m, d in (("full", 0.0), ("frozen", -0.05))]
    rows += [(table, method, shift * i) for i, (table, method) in enumerate(variants)]
    table = pd.DataFrame(rows, columns=["table", "method", "difference"])
    table["label"] = [f"variant {name}" for name in table["method"]]
    half = 0.015 * (table["method"] != "full")
    table = table.assign(difference_low=table["difference"] - half, difference_high=table["difference"] + half)
    level = 0.3 + table["difference"]
    table = table.assign(mean=level, low=level - 0.02, high=level + 0.02, folds=6, donors=6, seeds=1, split="donor")
    return table.assign(task="t", encoder="own", metric="pcc", organ="all", dealt=0, resample="spots")


SAMPLES = pd.DataFrame(
    {"organ": ["Breast", "Bowel"], "disease_state": ["Cancer", "Healthy"], "pairs": [100, 300], "simulated": True}
)
SIX = {"a": "Breast", "b": "Breast", "c": "Bowel", "d": "Bowel", "e": "Kidney", "f": "Kidney"}
ORGANS = (
    *("Bladder", "Bowel", "Brain", "Breast", "Cervix", "Heart", "Kidney"),
    *("Liver", "Lung", "Ovary", "Pancreas", "Prostate", "Skin", "Uterus"),
)
ATLAS = {f"{organ}-{i}": organ for organ in ORGANS for i in range(4)}
FIGURES = {
    "overview": lambda: figures.overview_figure(samples=SAMPLES),
    "overview real": lambda: figures.overview_figure(hest_metadata=SAMPLES.rename(columns={"pairs": "spots"})),
    "patch level, 6 folds": lambda: figures.patch_level_figure(*patch_tables(SIX)),
    "patch level, truth": lambda: figures.patch_level_figure(*patch_tables(SIX, truth=True)),
    "patch level, 14 organs": lambda: figures.patch_level_figure(*patch_tables(ATLAS, dealt=4, truth=True)),
    "patch level, 2 folds": lambda: figures.patch_level_figure(*patch_tables({"B": "Breast", "C": "Breast"})),
    "patch level, 2 encoders": lambda: figures.patch_level_figure(*patch_tables(SIX, ("own", "uni"))),
    "maps": lambda: figures.expression_maps_figure(map_table()),
    "maps, one section": lambda: figures.expression_maps_figure(map_table(["B4"], ["ERBB2"])),
    "ablations": lambda: figures.ablations_figure(curve_table(), ablation_table()),
}


def texts(figure) -> list[Text]:
    return [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]


@pytest.fixture(scope="module")
def drawn():
    return {name: figures.mark(draw(), "simulated data (demo)") for name, draw in FIGURES.items()}


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


def test_patch_level_draws_each_mean_at_its_value(drawn):
    _, summary, _ = patch_tables(SIX)
    means = summary[summary["organ"] == "all"].set_index("method")["mean"]
    axes = next(a for a in drawn["patch level, 6 folds"].axes if a.get_title(loc="left").startswith("A"))
    labels = [t.get_text() for t in axes.get_yticklabels()]
    assert labels == [METHODS[m][0] for m in LEVELS]
    centres = [c.get_offsets()[0] for c in axes.collections]
    np.testing.assert_allclose([c[0] for c in centres], [means[m] for m in LEVELS])
    assert [c[1] for c in centres] == list(range(6))


def test_patch_level_says_what_was_left_out():
    scores, summary, encoders = patch_tables(SIX)
    figure = figures.patch_level_figure(scores, summary.assign(split="section"), encoders)
    assert any("one section left out (6 folds, 3 seeds)" in t.get_text() for t in texts(figure))


def test_truth_is_drawn_as_lines_and_told_from_encoders(drawn):
    for name, organs in (("patch level, truth", 3), ("patch level, 14 organs", 14)):
        _, summary, _ = patch_tables(SIX if organs == 3 else ATLAS, dealt=0 if organs == 3 else 4, truth=True)
        figure = drawn[name]
        axes = next(a for a in figure.axes if a.get_title(loc="left").startswith("A"))
        assert [t.get_text() for t in axes.get_yticklabels()] == [METHODS[m][0] for m in LEVELS]
        means = summary[summary["organ"] == "all"].set_index("method")["mean"]
        lines = {round(line.get_xdata()[0], 6) for line in axes.lines if len(set(line.get_xdata())) == 1}
        assert {round(means[m], 6) for m in TRUTH} <= lines
        assert {"oracle", "ceiling"} <= {t.get_text() for t in axes.texts}
        by_organ = next(a for a in figure.axes if a.get_title(loc="left").startswith("By organ"))
        drawn_lines = [c for c in by_organ.collections if c.get_label() in ("oracle (simulated truth)",)]
        assert len(drawn_lines[0].get_segments()) == organs
        assert len(by_organ.get_xticklabels()) == organs


def test_patch_level_says_what_was_resampled_and_dealt(drawn):
    words = " ".join(t.get_text() for t in texts(drawn["patch level, 14 organs"]))
    assert "donors left out in 4 folds (56 donors, 3 seeds)" in words
    assert "95 % bootstrap intervals over donors" in words
    assert "Small dots: single donors, seeds averaged" in words
    words = " ".join(t.get_text() for t in texts(drawn["patch level, 6 folds"]))
    assert "95 % bootstrap intervals over spots. Small dots: single folds and seeds." in words
    assert "oracle" not in words


def test_maps_name_the_donor_of_a_numbered_fold():
    table = map_table(["B4"], ["ERBB2"]).assign(fold="1of4", donor="HER2ST-B")
    assert any("B4, donor HER2ST-B left out" in t.get_text() for t in texts(figures.expression_maps_figure(table)))
    alone = table.assign(fold="B4")  # a section that is left out alone
    assert any(t.get_text().startswith("B4, left out") for t in texts(figures.expression_maps_figure(alone)))


def test_overview_says_whose_samples_it_counts(drawn):
    words = {name: " ".join(t.get_text() for t in texts(drawn[name])) for name in ("overview", "overview real")}
    assert "simulated samples" in words["overview"]
    assert "real HEST-1k metadata" in words["overview real"]
    assert "Cancer, 25.0%" in words["overview"]


def test_maps_share_a_scale_and_give_the_correlation():
    table = map_table(["B4"], ["ERBB2"])
    figure = figures.expression_maps_figure(table)
    spots = [
        c
        for axes in figure.axes
        for c in axes.collections
        if c.get_array() is not None and len(c.get_offsets()) == len(table)
    ]
    assert len(spots) == 3
    assert len({c.get_clim() for c in spots}) == 1
    np.testing.assert_allclose(spots[2].get_array(), table["seal"])
    np.testing.assert_allclose(spots[0].get_offsets(), table[["x", "y"]])
    words = [t.get_text() for t in texts(figure)]
    assert "SEAL, PCC 1.00" in words
    assert "frozen" in words  # constant: no correlation to give
    assert all(axes.get_aspect() == 1 for axes in figure.axes if axes.collections and axes.get_title())


def test_curves_average_the_steps_of_an_epoch():
    table = pd.concat([curve_table(), curve_table().assign(step=99, value=2.0)])
    figure = figures.ablations_figure(table, ablation_table())
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
    words = [t.get_text() for t in texts(drawn["ablations"])]
    assert any(w.startswith("difference in PCC to the full method") for w in words)
    assert any("one donor left out (6 folds, one seed)" in w for w in words)
    assert "\N{MINUS SIGN}0.050 [\N{MINUS SIGN}0.065, \N{MINUS SIGN}0.035]" in words


def test_a_variant_of_one_organ_is_not_drawn_twice():
    table = ablation_table()
    both = pd.concat([table, table.assign(organ="Breast", difference=9.0)])
    axes = figures.ablations_figure(curve_table(), both).axes[0]
    assert max(max(line.get_xdata()) for line in axes.lines) < 1


@pytest.mark.parametrize(("x", "y", "expected"), [([0, 10, 20], [0, 0, 0], 10), ([0, 0], [0, 7], 7), ([1], [1], 1)])
def test_pitch(x, y, expected):
    assert pitch(np.array(x), np.array(y)) == expected


def test_scale_bar_is_round_and_as_long_as_it_says():
    figure = figures.tissue_with_spots(None, map_table(["B4"], ["ERBB2"]), "measured")
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
    with_image = figures.tissue_with_spots(image, spots, "measured", "B4", downsample=100, um_per_px=0.69)
    assert with_image.axes[0].images[0].get_extent() == [0, 3500, 4000, 0]
    assert any(t.get_text() == "tumour" for t in texts(figures.tissue_with_spots(None, spots, "label")))
    sheet = figures.patch_sheet(np.zeros((3, 8, 8, 3), dtype=np.uint8), ["a", "b", "c"])
    assert [a.get_title() for a in sheet.axes] == ["a", "b", "c"]
    xy = np.random.default_rng(0).normal(size=(20, 2))
    pair = figures.umap_pair({"frozen": xy, "SEAL": xy}, ["x", "y"] * 10, "organ")
    assert len(pair.axes) == 2
    many = figures.umap_pair({"z": np.zeros((60, 2))}, [f"organ {i % 30}" for i in range(60)], "organ")
    labels = [t.get_text() for t in many.axes[0].get_legend().get_texts()]
    assert len(labels) == 24
    assert "others" in labels
    lines = figures.curve(curve_table(), "epoch", "value", "term", "epoch", "loss").axes[0].lines
    assert len(lines) == 6


def test_style_does_not_leak():
    import matplotlib as mpl

    before = mpl.rcParams["font.size"]
    figures.ablations_figure(curve_table(), ablation_table())
    assert mpl.rcParams["font.size"] == before
