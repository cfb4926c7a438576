"""Figures and tables of the slide level from made-up results: numbers where they belong, nothing said too much."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import SubFigure
from matplotlib.text import Text

from figures import draw, slides, sources
from figures.E1_E2_slide_tasks import LEAST, REACH, molecular_figure, relative_figure
from figures.E4_maps import expression_maps_figure
from figures.F2_slide_level import slide_level_figure
from figures.sources import LacksRows
from figures.style import BLUE, VERMILION, mark
from figures.survival import RISKS, survival_figure
from figures.T21_T44_slides import by_task
from seal import profiles, results
from tests.figures.made_up import map_table, patch_tables, section_table
from tests.figures.made_up_slides import (
    METHODS,
    attention_tables,
    slide_encoders,
    slide_groups,
    slide_summary,
    survival_table,
)

MM = 25.4
TWO = ("own", "uni")
FIVE = ("own", "conch", "h0_mini", "uni2_h", "virchow2")
SUMMARY, REAL = slide_summary(TWO), slide_summary(simulated=False)
GROUPS, LABELS = slide_groups(SUMMARY), slide_encoders(TWO)
MAPS = (map_table(), patch_tables()[1], section_table())


def five() -> tuple[pd.DataFrame, ...]:
    summary = slide_summary(FIVE)
    return summary, slide_groups(summary), slide_encoders(FIVE)


FIGURES = {
    "F2": lambda: slide_level_figure(SUMMARY, GROUPS, LABELS),
    "F2, real": lambda: slide_level_figure(REAL, slide_groups(REAL), slide_encoders()),
    "F2, five": lambda: slide_level_figure(*five()),
    "E1": lambda: relative_figure(SUMMARY, LABELS),
    "E1, five": lambda: relative_figure(five()[0], five()[2]),
    "E2": lambda: molecular_figure(SUMMARY, LABELS),
    "E2, five": lambda: molecular_figure(five()[0], five()[2]),
    "E4": lambda: expression_maps_figure(*MAPS, *attention_tables()),
    "E4, four slides": lambda: expression_maps_figure(*MAPS, *attention_tables((True, True, False, False))),
    "survival": lambda: survival_figure(survival_table()),
}


def texts(figure) -> list[Text]:
    return [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]


def words(figure) -> str:
    return " ".join(" ".join(t.get_text() for t in texts(figure)).split())


@pytest.fixture(scope="module")
def drawn():
    return {name: mark(make(), "simulated data (demo)") for name, make in FIGURES.items()}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_fit_the_page_with_type_of_six_points(drawn, name):
    figure = drawn[name]
    (width, height), box = figure.get_size_inches(), figure.get_tightbbox()
    assert width * MM <= 183.01
    assert height * MM <= 240
    assert min(t.get_fontsize() for t in texts(figure)) >= 6
    assert min(box.x0, box.y0) >= -0.01
    assert box.x1 <= width + 0.01
    assert box.y1 <= height + 0.01


@pytest.mark.parametrize("name", FIGURES)
def test_titles_and_rows_do_not_run_into_each_other(drawn, name):
    titles = [t for a in drawn[name].axes for t in (a.title, a._left_title) if t.get_text()]
    rows = [t for a in drawn[name].axes for t in a.get_yticklabels() if t.get_text()]
    tops = [f._suptitle for f in drawn[name].findobj(SubFigure) if f._suptitle]
    for some, room in ((titles + tops, 0.0), (rows, 0.12)):  # lines of a label stand close
        boxes = [(t.get_text(), t.get_window_extent()) for t in some]
        for i, (first, box) in enumerate(boxes):
            for second, other in boxes[i + 1 :]:
                shared = min(box.y1, other.y1) - max(box.y0, other.y0)
                beside = box.x1 <= other.x0 or other.x1 <= box.x0
                assert beside or shared <= room * min(box.height, other.height), (first, second)


def axes_of(figure, title: str, number: int = 0):
    """The axes whose title begins so, the first of them by default."""
    return [a for a in figure.axes if (a.get_title() or a.get_title(loc="left")).startswith(title)][number]


def marks(axes, colour: str) -> list[float]:
    """Where single marks of a colour lie, from top to bottom."""
    own = [n for n in axes.lines if len(n.get_xdata()) == 1 and n.get_marker() not in "|<>"]
    own = [n for n in own if colour in (n.get_color(), n.get_markerfacecolor())]
    return [float(n.get_xdata()[0]) for n in sorted(own, key=lambda n: n.get_ydata()[0])]


# --- F2 ---------------------------------------------------------------------------------------------------


def test_f2_draws_means_single_tasks_chance_and_oracle(drawn):
    axes = axes_of(drawn["F2"], "Pathway activity\n12 tasks")
    means = slides.choose_rows(slides.choose_pair(GROUPS), group="pathway", model="abmil")
    assert marks(axes, BLUE) == pytest.approx(means.loc[means["method"] == "frozen", "mean"].tolist())
    assert marks(axes, VERMILION) == pytest.approx(means.loc[means["method"] == "seal", "mean"].tolist())
    single = [n for n in axes.lines if n.get_marker() == "|"]
    of = slides.choose_rows(slides.choose_scores(SUMMARY), group="pathway", model="abmil", encoder="own")
    np.testing.assert_allclose(single[0].get_xdata(), of.loc[of["method"] == "frozen", "mean"])
    joined = [n for n in axes.lines if len(n.get_xdata()) == 2 and n.get_linewidth() == 0.4]
    assert len(joined) == 24, "12 tasks of two encoders, each from frozen to SEAL"
    upright = [n.get_xdata()[0] for n in axes.lines if list(n.get_ydata()) == [0, 1]]
    assert upright == pytest.approx([0.0, 0.4])


def test_f2_has_no_oracle_on_real_data_nor_where_a_task_lacks_it(drawn):
    assert "oracle" in words(drawn["F2"])
    assert "oracle" not in words(drawn["F2, real"])
    few = SUMMARY.assign(oracle=SUMMARY["oracle"].where(SUMMARY["task"] != "pathway_3"))
    figure = slide_level_figure(few, GROUPS, LABELS)
    lines = [
        [n.get_xdata()[0] for n in axes_of(figure, f"{g}\n").lines if list(n.get_ydata()) == [0, 1]]
        for g in ("Pathway activity", "Molecular status", "All three groups")
    ]
    assert [len(own) for own in lines] == [1, 2, 1]


def test_f2_says_what_seal_gains_beyond_its_controls(drawn):
    axes = axes_of(drawn["F2"], "Molecular status", 1)
    rows = [t.get_text() for t in axes.get_yticklabels()]
    controls = ["SEAL, shuffled pairs", "adapter without expression"]
    assert rows == ["SEAL minus frozen", "own-S", "uni-S", "SEAL minus controls", *controls]
    assert marks(axes, VERMILION) == pytest.approx([0.10, 0.10, 0.08, 0.07])
    assert axes.get_xlim()[0] == -axes.get_xlim()[1]
    alone = SUMMARY[SUMMARY["kind"] != "control"]
    alone = alone[~alone["against"].isin(["seal_shuffled", "no_expression"])]
    figure = slide_level_figure(alone, slide_groups(alone), LABELS)
    assert "SEAL minus controls" not in words(figure)


def test_f2_b_has_every_method_of_the_main_encoder_in_the_order_of_the_results(drawn):
    axes = axes_of(drawn["F2"], "Molecular status", 2)
    rows = [t.get_text().replace("\n", " ") for t in axes.get_yticklabels()]
    assert rows == ["minus frozen", *(label for label, kind, _ in METHODS.values() if kind != "encoder")]
    assert "B Methods beside own-S as it comes" in words(drawn["F2"])


def test_f2_counts_verdicts_of_all_38_tasks(drawn):
    axes = axes_of(drawn["F2"], "Verdicts by task", 1)
    seal = slides.choose_rows(GROUPS, group="all", model="abmil", encoder="own", method="seal", against="frozen").iloc[
        0
    ]
    assert (seal["found"], seal["lost"], seal["undecided"]) == (6, 0, 29), "and three would have shown a difference"
    bars = sorted((p.get_y(), p.get_x(), p.get_width()) for p in axes.patches)
    first = [(x, width) for y, x, width in bars if y == bars[0][0] and width]
    assert first == [(0, 6), (6, 3), (9, 29)]
    random = [(x, width) for y, x, width in bars if y == bars[-1][0] and width]
    assert random == [(0, 6), (6, 3), (9, 29)]
    colours = {p.get_facecolor() for p in axes.patches if p.get_x() == 0 and p.get_width()}
    assert len(colours) > 1, "better and worse do not look alike"
    assert axes.get_xlabel() == "of 38 tasks"


def test_f2_needs_its_groups():
    with pytest.raises(LacksRows, match="lack the group pathway"):
        slide_level_figure(SUMMARY, GROUPS[GROUPS["group"] != "pathway"], LABELS)


# --- E1, E2 -----------------------------------------------------------------------------------------------


def test_e1_divides_by_the_base_and_only_where_there_is_one(drawn):
    left, right = axes_of(drawn["E1"], "Relative change"), axes_of(drawn["E1"], "Difference")
    own = slides.choose_rows(SUMMARY, model="abmil", group="morphology", method="seal", against="frozen")
    assert sorted(marks(right, VERMILION)) == pytest.approx(sorted(own["difference"]))
    based = own[own["base"] >= LEAST]
    relative = 100 * based["difference"] / based["base"]
    assert 0 < len(based) < len(own)
    assert sorted(marks(left, VERMILION)) == pytest.approx(sorted(relative[relative <= REACH]))
    beyond = sum(100 * based["difference_high"] / based["base"] > REACH)
    assert sum(n.get_marker() == ">" for n in left.lines) == beyond > 0, "arrowheads, and none without a base"
    said = [t.get_text() for t in left.texts]
    assert said == ["none, base 0.01 to 0.04", "none, base 0.03"]


def test_e1_sorts_tasks_by_seals_difference_within_their_group():
    table = SUMMARY.copy()
    table.loc[(table["task"] == "pathway_7") & (table["against"] == "stnet"), "difference"] = 0.5
    axes = axes_of(relative_figure(table, LABELS), "Relative change", 1)
    rows = [t.get_text() for t in axes.get_yticklabels()]
    assert len(rows) == 38 + 3
    assert rows[rows.index("Pathway activity") + 1] == "pathway 7, Pearson r"
    bold = [t.get_text() for t in axes.get_yticklabels() if t.get_weight() == "bold"]
    assert bold == ["Molecular status", "Pathway activity", "Markers and response"]


def test_e1_shows_pathomclip_where_it_was_compared_and_needs_st_net(drawn):
    assert "PathOmCLIP's encoder" in words(drawn["E1"])
    without = SUMMARY[~SUMMARY["method"].str.startswith("pathomclip")]
    without = without[without["against"] != "pathomclip"]
    assert "PathOmCLIP" not in words(relative_figure(without, LABELS))
    bare = SUMMARY[(SUMMARY["method"] != "stnet") & (SUMMARY["against"] != "stnet")]
    with pytest.raises(LacksRows, match="lack a comparison with ST-Net"):
        relative_figure(bare, LABELS)


def test_e2_names_null_tasks_and_opens_what_is_not_found(drawn):
    figure = drawn["E2"]
    panels = [a for a in figure.axes if a.get_title() in ("own-S", "uni-S")]
    assert len(panels) == 4, "two encoders by ABMIL and by mean MIL"
    rows = [t.get_text() for t in panels[0].get_yticklabels()]
    assert rows[:2] == ["AUC", "molecular 0 (null)"]
    assert rows[-4:] == ["Balanced accuracy", "molecular 5", "molecular 11", "molecular 17"]
    seal = [n for n in panels[0].lines if n.get_markeredgecolor() == VERMILION and len(n.get_xdata()) == 1]
    assert [n.get_markerfacecolor() for n in seal if n.get_ydata()[0] < 3] == [VERMILION, VERMILION]
    assert {n.get_markerfacecolor() for n in seal if n.get_ydata()[0] > 3} == {"white"}
    bars = [c.get_segments()[0][0, 0] for c in panels[0].collections]
    assert bars == pytest.approx([0.5, 0.9]), "chance, then the oracle"
    assert "Null: simulated without any signal" in words(figure)
    real = molecular_figure(REAL, slide_encoders())
    assert not any(word in words(real) for word in ("(null)", "Null:", "oracle"))


# --- tables -----------------------------------------------------------------------------------------------


def make(group="molecular", number="1", model="abmil", others="no", tables=(SUMMARY, GROUPS, LABELS)) -> pd.DataFrame:
    return by_task(*tables, group=group, number=number, model=model, others=others)


def test_a_table_has_a_row_a_task_and_their_mean():
    table = make()
    assert table.attrs["title"] == "Molecular status, 18 tasks: own-S, ABMIL, not one of the paper's five"
    assert len(table) == 19
    assert table.iloc[0].to_dict() == {
        **{"task": "molecular 0 (null)", "metric": "AUC", "frozen encoder": "0.510 [0.460, 0.570]"},
        **{"SEAL": "0.610 [0.560, 0.670]", "SEAL minus frozen encoder, paired": "+0.100 [+0.060, +0.150]"},
        **{"p, Holm": "< 0.001", "smallest that could show": 0.07, "verdict": "found", "chance": 0.5, "oracle": 0.9},
        **{"strength": "none", "cases": "40", "seeds": "2"},
    }
    assert table["verdict"].tolist()[2:4] == ["not found", "undecidable at this n"]
    last = table.iloc[-1]
    assert last["task"] == "mean of 18 tasks"
    assert last["verdict"] == "found 2, lost 0, not found 1, undecidable 15"
    assert last["SEAL minus frozen encoder, paired"] == "+0.100 [+0.090, +0.120]"
    assert last["p, Holm"] == "0.030"
    note = table.attrs["note"]
    assert "Holm's correction over the 18 tasks" in note
    assert "Simulated: the oracle" in note


def test_tables_by_number_of_the_encoder_and_by_model():
    assert make(number="2", model="mean").attrs["title"].endswith("uni-S, mean MIL, not one of the paper's five")
    paper = (SUMMARY.replace("uni", "uni2_h"), GROUPS.replace("uni", "uni2_h"), slide_encoders(("own", "uni2_h")))
    assert make(number="2", tables=paper).attrs["title"].endswith("uni2_h-S, ABMIL")
    with pytest.raises(LacksRows, match="lack molecular tasks by ABMIL of encoder 3"):
        make(number="3")
    with pytest.raises(LacksRows, match="lack pathway tasks by mean MIL"):
        make(group="pathway", model="mean")


def test_real_tasks_have_no_oracle_no_strength_and_no_word_of_simulation():
    table = make(group="response", tables=(REAL, slide_groups(REAL), slide_encoders()))
    assert not {"oracle", "strength"} & set(table)
    assert "Simulated" not in table.attrs["note"]
    assert not any("null" in task for task in table["task"])


def test_other_methods_stand_beside_seal_with_its_differences_to_them():
    table = make(group="pathway", others="yes")
    assert {label for label, *_ in METHODS.values()} <= set(table)
    minus = [column for column in table if column.startswith("SEAL minus")]
    shown = [METHODS[m][0] for m in ("frozen", "seal_shuffled", "no_expression", "pathomclip", "stnet")]
    assert minus == [f"SEAL minus {label}, paired" for label in shown]
    assert table[minus[1]].iloc[0] == "+0.080 [+0.040, +0.130], p < 0.001, found"
    assert table[minus[1]].iloc[-1].endswith("p 0.030, found 2, lost 0, not found 1, undecidable 9")
    assert "encoder" not in table
    pair = slides.choose_pair(SUMMARY)
    with pytest.raises(LacksRows, match="lack methods beside SEAL"):
        make(others="yes", tables=(pair, slide_groups(pair), LABELS))


def test_morphology_has_all_encoders():
    table = make(group="morphology", number="all")
    assert table["encoder"].tolist() == ["own-S"] * 7 + ["uni-S"] * 7
    assert "title" not in table.attrs, "the register's"


# --- attention, survival ----------------------------------------------------------------------------------


def test_attention_is_relative_on_one_scale_a_slide_and_says_whose_slide_it_is(drawn):
    figure = drawn["E4"]
    squares = [c for a in figure.axes for c in a.collections if len(c.get_paths()) == 20]
    assert len(squares) == 4, "two slides, each frozen and with SEAL"
    np.testing.assert_allclose(squares[0].get_array(), 1.0)
    np.testing.assert_allclose(squares[1].get_array(), [40 / 21] + [20 / 21] * 19)
    assert squares[0].get_clim() == squares[1].get_clim()
    np.testing.assert_allclose(squares[0].get_paths()[1].vertices[:4], [(448, 0), (896, 0), (896, 448), (448, 448)])
    said = words(figure)
    assert "B slide 0, BRCA type: truth ductal, guess lobular simulated" in said
    assert "slide 1, BRCA type real slide, no label; model trained on simulated slides" in said
    below = [a for a in figure.axes if a.images and a.texts and a.texts[0].get_text() == "500 µm"]
    assert [float(np.ptp(a.lines[0].get_xdata())) for a in below] == [1000.0, 1000.0]


def test_a_wide_slide_has_a_bar_of_one_millimetre_and_a_labelled_real_one_its_truth():
    attention, about = attention_tables((True,))
    wide = about.assign(um_per_px=2.0, simulated=False)
    figure = expression_maps_figure(*MAPS, attention, wide)
    bars = [(a, t) for a in figure.axes for t in a.texts if t.get_text() == "1 mm"]
    assert [float(np.ptp(a.lines[0].get_xdata())) for a, _ in bars] == [500.0]
    assert "BRCA type: truth ductal, guess lobular real slide" in words(figure)
    assert "no label" not in words(figure)


def test_maps_without_attention_are_as_they_were():
    attention, _ = attention_tables()
    plain, half = expression_maps_figure(*MAPS), expression_maps_figure(*MAPS, attention)
    assert len(plain.axes) == len(half.axes)
    assert plain.get_size_inches().tolist() == half.get_size_inches().tolist()


def test_survival_curves_with_numbers_at_risk(drawn):
    figure = drawn["survival"]
    titles = [a.get_title(loc="left") for a in figure.axes]
    assert titles[:2] == ["OS, frozen encoder: log-rank p 0.210", "OS, SEAL: log-rank p < 0.001"]
    assert [title.partition(",")[0] for title in titles] == ["OS", "OS", "PFS", "PFS"]
    axes = figure.axes[0]
    curves = {n.get_label(): n for n in axes.lines if n.get_label().endswith("risk")}
    np.testing.assert_allclose(curves["high risk"].get_ydata(), 1 - 0.09 * np.arange(10))
    assert [n.get_color() for n in curves.values()] == [colour for colour, _ in RISKS.values()]
    assert len({str(n.get_linestyle()) for n in curves.values()}) == 2
    numbers = [t.get_text() for t in axes.texts if t.get_text().isdigit()]
    assert numbers == ["10", "7", "5", "3", "1"] * 2, "of those followed until a later step"
    assert len(axes.collections) == 2, "confidence bands"
    assert "survival" not in survival_table()["model"].unique()
    table = survival_table(["OS"])
    other = table.assign(p=table["p"].where(table["model"] != "linear", 0.5))
    assert "p 0.500" in words(survival_figure(other, "linear"))


# --- from results -----------------------------------------------------------------------------------------


def test_results_of_notebook_05_draw_what_the_register_says(tmp_path, monkeypatch):
    monkeypatch.setenv("SEAL_HOME", str(tmp_path))
    monkeypatch.setattr(sources, "REFERENCE", tmp_path / "no reference")
    demo = profiles.get("demo")
    labels = LABELS.assign(**dict.fromkeys(set(results.RESULTS["encoders"].columns) - {"name", "label"}, "lora"))
    attention, about = attention_tables()
    tables = {"slide_level_summary": SUMMARY, "slide_level_groups": GROUPS, "encoders": labels}
    tables |= {"survival_curves": survival_table(), "attention": attention, "attention_slides": about}
    tables |= {"maps": map_table(["B4"], ["ERBB2"]), "patch_level_summary": patch_tables()[1]}
    for name, table in tables.items():
        results.write_result(demo, name, table, {})
    both = {id: a for id, a in draw.REGISTER.items() if a.notebook == "05_slide_level" and "demo" in a.profiles}
    assert set(both) == {
        "F2",
        "E1",
        "E2",
        *(f"T{i}" for i in (*range(21, 27), *range(31, 34), *range(36, 39), 41, 42, 43, 44)),
    }
    draw.draw(demo, ["F2", "E4", "T21", "T41", "T44"])
    entries = draw.manifest(demo)
    assert {id: entries[id]["panels"] for id in ("F2", "E4")} == {"F2": "AB", "E4": "AB"}
    assert "t-SNE" not in entries["F2"]["caption"]
    assert entries["T21"]["title"] == "Molecular status, 18 tasks: own-S, ABMIL, not one of the paper's five"
    text = (tmp_path / "figures/demo/tables/T44.md").read_text()
    assert text.startswith("**simulated data**, profile demo")
    assert "## T44 Morphological and IHC tasks" in text
    with pytest.raises(LacksRows):
        draw.draw(demo, ["T25"])
    (tmp_path / "results/demo/attention_slides.csv").unlink()
    draw.draw(demo, ["E4"])
    assert draw.manifest(demo)["E4"]["panels"] == "A"
    assert "attention" not in draw.manifest(demo)["E4"]["caption"]
