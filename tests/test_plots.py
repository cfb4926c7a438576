"""Figures from made-up tables: sizes, text, data where it belongs; nothing overlaps the paper's edge."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from seal import plots
from seal.plots.maps import draw_scale, pitch
from seal.plots.style import METHODS

MM = 25.4
LEVELS = {"frozen": 0.20, "seal": 0.24, "seal_shuffled": 0.19, "random": 0.12, "colour": 0.10, "mean": 0.0}
SEEDLESS = ("frozen", "colour", "mean")


def patch_tables(folds: dict[str, str], encoders=("own",)):
    """Scores (fold + seed shift the level), their summary and the encoders' table."""
    rows = [
        {"encoder": e, "method": m, "organ": organ, "fold": fold, "seed": seed}
        | {"value": level + 0.05 * i + 0.001 * seed if m != "mean" else 0.0}
        for e in encoders
        for i, (fold, organ) in enumerate(folds.items())
        for m, level in LEVELS.items()
        for seed in range(1 if m in SEEDLESS else 3)
    ]
    scores = pd.DataFrame(rows).assign(task="t", metric="pcc")
    summary = []
    for organ in ["all", *sorted(set(folds.values()))]:
        chosen = scores if organ == "all" else scores[scores["organ"] == organ]
        for (encoder, method), part in chosen.groupby(["encoder", "method"]):
            mean, frozen = part["value"].mean(), chosen[chosen["method"] == "frozen"]["value"].mean()
            row = {"encoder": encoder, "method": method, "organ": organ, "mean": mean, "low": mean - 0.01}
            row |= {"high": mean + 0.01, "difference": mean - frozen, "difference_low": mean - frozen - 0.005}
            row |= {"difference_high": mean - frozen + 0.005, "folds": part["fold"].nunique()}
            summary.append(row | {"seeds": part["seed"].nunique()})
    table = pd.DataFrame(
        {"name": encoders, "label": [f"{e}-S" for e in encoders], "parameters": 21_600_000, "trainable": 73_728}
    )
    return scores, pd.DataFrame(summary).assign(task="t", metric="pcc", split="donor"), table


def map_table(samples=("B4", "C2"), genes=("ERBB2", "KRT19", "IGKC")) -> pd.DataFrame:
    x, y = (a.ravel() * 290.0 for a in np.meshgrid(np.arange(12), np.arange(14)))
    rng = np.random.default_rng(0)
    frames = []
    for sample in samples:
        for gene in genes:
            truth = np.sin(x / 500) + rng.normal(0, 0.2, len(x))
            frame = pd.DataFrame({"fold": sample[0], "sample": sample, "x": x, "y": y, "gene": gene})
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
    table = table.assign(mean=level, low=level - 0.02, high=level + 0.02, folds=6, seeds=1, split="donor")
    return table.assign(task="t", encoder="own", metric="pcc", organ="all")


SAMPLES = pd.DataFrame(
    {"organ": ["Breast", "Bowel"], "disease_state": ["Cancer", "Healthy"], "pairs": [100, 300], "simulated": True}
)
SIX = {"a": "Breast", "b": "Breast", "c": "Bowel", "d": "Bowel", "e": "Kidney", "f": "Kidney"}
FIGURES = {
    "overview": lambda: plots.overview_figure(samples=SAMPLES),
    "overview real": lambda: plots.overview_figure(hest_metadata=SAMPLES.rename(columns={"pairs": "spots"})),
    "patch level, 6 folds": lambda: plots.patch_level_figure(*patch_tables(SIX)),
    "patch level, 2 folds": lambda: plots.patch_level_figure(*patch_tables({"B": "Breast", "C": "Breast"})),
    "patch level, 2 encoders": lambda: plots.patch_level_figure(*patch_tables(SIX, ("own", "uni"))),
    "maps": lambda: plots.expression_maps_figure(map_table()),
    "maps, one section": lambda: plots.expression_maps_figure(map_table(["B4"], ["ERBB2"])),
    "ablations": lambda: plots.ablations_figure(curve_table(), ablation_table()),
}


def texts(figure) -> list[Text]:
    return [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]


@pytest.fixture(scope="module")
def drawn():
    return {name: plots.mark(draw(), "simulated data (demo)") for name, draw in FIGURES.items()}


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
    figure = plots.patch_level_figure(scores, summary.assign(split="section"), encoders)
    assert any("one section left out (6 folds, 3 seeds)" in t.get_text() for t in texts(figure))


def test_overview_says_whose_samples_it_counts(drawn):
    words = {name: " ".join(t.get_text() for t in texts(drawn[name])) for name in ("overview", "overview real")}
    assert "simulated samples" in words["overview"]
    assert "real HEST-1k metadata" in words["overview real"]
    assert "Cancer, 25.0%" in words["overview"]


def test_maps_share_a_scale_and_give_the_correlation():
    table = map_table(["B4"], ["ERBB2"])
    figure = plots.expression_maps_figure(table)
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
    figure = plots.ablations_figure(table, ablation_table())
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
    axes = plots.ablations_figure(curve_table(), both).axes[0]
    assert max(max(line.get_xdata()) for line in axes.lines) < 1


@pytest.mark.parametrize(("x", "y", "expected"), [([0, 10, 20], [0, 0, 0], 10), ([0, 0], [0, 7], 7), ([1], [1], 1)])
def test_pitch(x, y, expected):
    assert pitch(np.array(x), np.array(y)) == expected


def test_scale_bar_is_round_and_as_long_as_it_says():
    figure = plots.tissue_with_spots(None, map_table(["B4"], ["ERBB2"]), "measured")
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
    with_image = plots.tissue_with_spots(image, spots, "measured", "B4", downsample=100, um_per_px=0.69)
    assert with_image.axes[0].images[0].get_extent() == [0, 3500, 4000, 0]
    assert any(t.get_text() == "tumour" for t in texts(plots.tissue_with_spots(None, spots, "label")))
    sheet = plots.patch_sheet(np.zeros((3, 8, 8, 3), dtype=np.uint8), ["a", "b", "c"])
    assert [a.get_title() for a in sheet.axes] == ["a", "b", "c"]
    xy = np.random.default_rng(0).normal(size=(20, 2))
    pair = plots.umap_pair({"frozen": xy, "SEAL": xy}, ["x", "y"] * 10, "organ")
    assert len(pair.axes) == 2
    lines = plots.curve(curve_table(), "epoch", "value", "term", "epoch", "loss").axes[0].lines
    assert len(lines) == 6


def test_style_does_not_leak():
    import matplotlib as mpl

    before = mpl.rcParams["font.size"]
    plots.ablations_figure(curve_table(), ablation_table())
    assert mpl.rcParams["font.size"] == before
