"""Simulated held against real: each number on data where the truth is known."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter

from figures.style import mark, new_figure, style
from seal import results
from seal.data.sample_files import list_samples, write_files
from seal.data.samples import read_samples
from seal.errors import SealError
from seal_atlas.realism import (
    FIGURE_SIZE,
    count_statistics,
    draw_realism,
    mouse,
    pairings,
    picture_statistics,
    real_sections,
    section_statistics,
    shortfalls,
)


def negative_binomial(rng, mean: np.ndarray, a: float) -> np.ndarray:
    return rng.poisson(mean * rng.gamma(1 / a, a, size=mean.shape)) if a else rng.poisson(mean)


@pytest.mark.parametrize("a", [0.0, 0.1, 0.5])
def test_dispersion_is_recovered_whatever_the_library_sizes(a):
    rng = np.random.default_rng(0)
    size = np.exp(rng.normal(0, 0.8, (400, 1)))
    counts = negative_binomial(rng, size * rng.uniform(2, 20, 300), a)
    found = count_statistics.count_dispersion(counts[counts.sum(axis=1) > 0], "dispersion")
    assert found.value == pytest.approx(a, abs=0.03 + 0.1 * a)
    assert found.low <= found.value <= found.high


def test_rare_genes_say_nothing_about_dispersion():
    counts = np.random.default_rng(0).poisson(0.1, (50, 20)) + np.eye(50, 20, dtype=int)
    assert np.isnan(count_statistics.count_dispersion(counts, "dispersion").value)


def test_thinning_keeps_the_depth_and_the_shares():
    rng = np.random.default_rng(0)
    counts = rng.poisson([[3.0, 30.0, 300.0]], (200, 3))
    thinned = count_statistics.thin_counts(counts, 100, rng)
    assert (thinned.sum(axis=1) == 100).all()
    assert (thinned <= counts).all()
    assert thinned.mean(axis=0) / 100 == pytest.approx(np.array([3, 30, 300]) / 333, abs=0.01)


def test_spectrum_of_noise_stays_below_the_edge_and_a_factor_rises_above_it():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(80, 200))
    by_name = {s.name: s.value for s in count_statistics.correlation_spectrum(noise) if np.isnan(s.x)}
    assert by_name["components"] <= 1  # the edge holds in the limit
    assert by_name["first_component"] < 1.1 * count_statistics.noise_edge(80, 200) / 200
    shared = noise + rng.normal(size=(80, 1)) * (np.arange(200) < 100)
    by_name = {s.name: s.value for s in count_statistics.correlation_spectrum(shared) if np.isnan(s.x)}
    assert by_name["components"] == 1
    assert by_name["above_noise"] == by_name["first_component"] > 0.2


def lattice(grid: str, side_um: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Array rows and columns of a square field, and um positions."""
    dx, dy = {"visium": (50.0, 50.0 * 3**0.5), "square": (200.0, 200.0)}[grid]
    cols, rows = np.meshgrid(np.arange(int(side_um / dx)), np.arange(int(side_um / dy)))
    keep = (rows + cols) % 2 == 0 if grid == "visium" else np.ones(rows.shape, dtype=bool)
    return rows[keep], cols[keep], np.column_stack([cols[keep] * dx, rows[keep] * dy])


@pytest.mark.parametrize(("grid", "neighbours"), [("visium", 6), ("square", 4)])
def test_spots_apart_follow_the_grid(grid, neighbours):
    rows, cols, xy = lattice(grid, 2000)
    for lag in (count_statistics.PITCH[grid], 200.0):
        pairs = count_statistics.spots_apart(rows, cols, grid, lag)
        distance = np.linalg.norm(xy[:, None] - xy[None], axis=2)
        first, second = pairs.nonzero()
        assert distance[first, second] == pytest.approx(lag)
        assert np.asarray(pairs.sum(axis=1)).max() == neighbours
        assert (pairs != pairs.T).nnz == 0


def test_moran_tells_a_smooth_map_from_a_shuffled_one():
    rows, cols, xy = lattice("visium", 1500)
    smooth = np.sin(xy[:, 0] / 400) + np.cos(xy[:, 1] / 500)
    shuffled = np.random.default_rng(0).permutation(smooth)
    values = np.column_stack([shuffled, np.ones(len(xy)), smooth])
    found = count_statistics.morans_i(values, count_statistics.spots_apart(rows, cols, "visium", 100.0))
    assert abs(found[0]) < 0.15
    assert np.isnan(found[1])
    assert found[2] > 0.9


def test_two_grids_agree_at_the_same_distance_only():
    found = {}
    for grid in ("visium", "square"):
        rows, cols, xy = lattice(grid, 6000)
        field = np.sin(xy[:, :1] / 150 + 1) * np.cos(xy[:, 1:] / 170)
        for lag in (count_statistics.PITCH[grid], 200.0):
            found[grid, lag] = count_statistics.morans_i(field, count_statistics.spots_apart(rows, cols, grid, lag))[0]
    assert found["visium", 200.0] == pytest.approx(found["square", 200.0], abs=0.05)
    assert found["visium", 100.0] > found["square", 200.0] + 0.3


H, E = np.array([0.65, 0.70, 0.29]), np.array([0.07, 0.99, 0.11])


def stained(haematoxylin: np.ndarray, eosin: np.ndarray, white=(240, 235, 245)) -> np.ndarray:
    """Transmitted light through known amounts of two stains, uint8 [..., 3]."""
    density = haematoxylin[..., None] * H / np.linalg.norm(H) + eosin[..., None] * E / np.linalg.norm(E)
    return np.rint(np.array(white) * np.exp(-density)).astype(np.uint8)


def test_stains_and_glass_are_recovered():
    rng = np.random.default_rng(0)
    share = rng.beta(0.5, 0.5, (3, 64, 64))
    amount = rng.uniform(0.5, 1.5, share.shape)
    amount[:, :8] = 0
    patches = stained(share * amount, (1 - share) * amount)
    white = picture_statistics.glass_intensity(patches)
    assert white == pytest.approx([240, 235, 245])
    density = picture_statistics.optical_density(patches, white)
    found = picture_statistics.stain_vectors(density[density.mean(axis=-1) > picture_statistics.TISSUE_OD])
    assert found.haematoxylin == pytest.approx(H / np.linalg.norm(H), abs=0.03)
    assert found.eosin == pytest.approx(E / np.linalg.norm(E), abs=0.03)


def nuclei_picture(centres, radii=(4.0, 4.0), side=224) -> np.ndarray:
    """One patch with elliptic nuclei, centres and radii in um (x, y), 0.5 um/px, a little blurred, and some glass."""
    y, x = np.indices((side, side)) * 0.5
    dark = np.zeros((side, side))
    for cx, cy in centres:
        dark = np.maximum(dark, ((x - cx) / radii[0]) ** 2 + ((y - cy) / radii[1]) ** 2 <= 1)
    eosin = np.full((side, side), 0.5)
    eosin[:, -10:] = 0
    return gaussian_filter(stained(1.6 * dark, eosin).astype(float), (1.4, 1.4, 0)).round().astype(np.uint8)[None]


GRID = [(x, y) for x in range(12, 100, 16) for y in range(12, 110, 16)]


def test_drawn_nuclei_are_counted_and_measured():
    found = {s.name: s for s in picture_statistics.picture_statistics(nuclei_picture(GRID), 0.5)}
    tissue = 112 * 107 / 1e6  # mm2
    assert found["nuclear_density"].value == pytest.approx(len(GRID) / tissue, rel=0.02)
    assert found["nuclear_area"].value == pytest.approx(np.pi * 16, rel=0.15)
    assert found["eccentricity"].value < 0.3
    assert found["tissue"].value == pytest.approx(107 / 112, abs=0.01)
    darkest = 1.6 * H[0] / np.linalg.norm(H) + 0.04
    assert 0.7 * darkest < found["nuclear_od"].value < darkest  # the outline takes some of the blur in


def test_nuclei_twice_as_large_measure_twice_as_much():
    areas = []
    for radius in (3.0, 3.0 * np.sqrt(2)):
        statistics = picture_statistics.picture_statistics(nuclei_picture(GRID, (radius, radius)), 0.5)
        areas.append(next(s.value for s in statistics if s.name == "nuclear_area"))
    assert areas[1] / areas[0] == pytest.approx(2, rel=0.15)


def test_a_dark_picture_gives_no_optical_density():
    bright = nuclei_picture(GRID)
    found = [{s.name for s in picture_statistics.picture_statistics(p)} for p in (bright, bright // 2)]
    assert {"nuclear_area", "sharpness", "saturation"} <= found[1] < found[0]
    assert not any(name.startswith(("od", "glass", "eosin", "haematoxylin", "nuclear_od")) for name in found[1])


def test_long_nuclei_are_eccentric_and_touching_ones_parted():
    long = {s.name: s.value for s in picture_statistics.picture_statistics(nuclei_picture(GRID, (6.0, 3.0)), 0.5)}
    assert long["eccentricity"] == pytest.approx(np.sqrt(1 - 0.25), abs=0.08)
    pair = nuclei_picture([(40, 40), (47.5, 40)])
    red = picture_statistics.optical_density(pair, picture_statistics.glass_intensity(pair))[0, ..., 0]
    assert picture_statistics.label_nuclei(red, 0.8, 0.5).max() == 2


def test_each_nucleus_belongs_to_one_of_neighbouring_patches():
    whole = nuclei_picture([(x, y) for x in range(8, 100, 16) for y in range(12, 110, 16)])
    red = picture_statistics.optical_density(whole, picture_statistics.glass_intensity(whole))[..., 0]
    parts = [red[:, :120, :80], red[:, :120, 80:], red[:, 120:, :80], red[:, 120:, 80:]]  # through some of them
    counted = sum(len(picture_statistics.measure_nuclei(part, 0.8, 0.5)) for part in parts)
    assert counted == pytest.approx(len(picture_statistics.measure_nuclei(red, 0.8, 0.5)), abs=2)


def test_slope_of_a_known_spectrum():
    rng = np.random.default_rng(0)
    radius = np.maximum(np.hypot(*np.meshgrid(np.fft.fftfreq(256, 0.5), np.fft.fftfreq(256, 0.5))), 1e-3)
    waves = np.fft.fft2(rng.normal(size=(20, 256, 256)))
    for slope in (-2.0, -3.0):
        field = np.fft.ifft2(waves * radius ** (slope / 2)).real
        assert picture_statistics.spectrum_slope(field, 0.5) == pytest.approx(slope, abs=0.15)


def test_glass_alone_is_no_picture():
    assert picture_statistics.picture_statistics(np.full((2, 32, 32, 3), 240, dtype=np.uint8)) == []
    with pytest.raises(SealError, match="float64"):
        picture_statistics.picture_statistics(np.zeros((2, 32, 32, 3)))


def make_sample(root, name, *, simulated, organ="Breast", spots=48, picture=True, normalised=False, seed=0, a=0.2):
    """Write one sample of 60 genes, its patches with drawn nuclei."""
    rng = np.random.default_rng(seed)
    row, col = np.divmod(np.arange(spots), 8)
    place = {"array_row": row, "array_col": 2 * col + row % 2, "pxl_row_in_fullres": row * 200.0}
    obs = pd.DataFrame({**place, "pxl_col_in_fullres": col * 200.0, "in_tissue": 1})
    obs.index = [f"b{i}" for i in range(spots)]
    counts = negative_binomial(rng, np.ones((spots, 1)) * np.linspace(10, 60, 60), a)
    genes = pd.DataFrame(index=[f"G{i}" for i in range(60)])
    values = np.log1p(counts) if normalised else counts
    data = anndata.AnnData(values.astype(np.float32), obs=obs, var=genes)
    data.obsm["spatial"] = obs[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy()
    patches = None
    if picture:
        shift = rng.uniform(-4, 4, (spots, 2))
        patches = np.concatenate([nuclei_picture(np.array(GRID) + s) for s in shift])
    about = {"id": name, "organ": organ, "disease_state": "Cancer", "species": "Homo sapiens", "patient": name}
    about |= {"st_technology": "Visium", "dataset_title": "made up", "license": "none", "grid": "visium"}
    about |= {"pixel_size_um_estimated": 0.5, "simulated": simulated, "normalised": normalised}
    write_files(root, about, data, patches, 0.5)
    list_samples(root)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Three simulated sections, three real ones of which one has no picture, and a normalised one."""
    root = tmp_path_factory.mktemp("made")
    for i in range(3):
        make_sample(root, f"SIM-{i}", simulated=True, seed=i, a=0.8)
        make_sample(root, f"REAL-{i}", simulated=False, seed=10 + i, picture=i < 2)
    make_sample(root, "NORMALISED", simulated=False, normalised=True, seed=20)
    return read_samples(root)


@pytest.fixture(scope="module")
def table(made) -> pd.DataFrame:
    measured = section_statistics(made)
    patches = pairings.draw_patches(made, 56, 2.0)
    embeddings = np.random.default_rng(0).normal(size=(len(patches.images), 8))
    return pd.concat([measured, pairings.apart_statistics(patches, embeddings)], ignore_index=True)


def test_sections_are_measured_by_what_they_hold(table):
    assert set(table.columns) == set(results.RESULTS["realism"].columns)
    kinds = table["statistic"].map(lambda name: pairings.STATISTICS[name].kind)
    by_section = {name: set(kinds[table["group"] == name]) for name in ("SIM-0", "REAL-2", "NORMALISED")}
    assert by_section["SIM-0"] == {"told", "expression", "picture", "curve"}
    assert by_section["REAL-2"] == {"told", "expression", "curve"}
    assert by_section["NORMALISED"] == {"picture"}
    dispersion = table[table["statistic"] == "dispersion"].set_index("group")["value"]
    assert dispersion["SIM-0"] == pytest.approx(0.8, abs=0.2)
    assert dispersion["REAL-0"] == pytest.approx(0.2, abs=0.1)


def test_comparisons_and_their_controls_are_there(table):
    pairs = table[table["statistic"] == "auc_encoder"].groupby("source")["group"].nunique()
    assert pairs["two simulated donors"] == 3
    assert pairs["two real patients"] == 3  # the normalised section has a picture too
    assert pairs["a simulated and a real section"] == 9
    assert set(pairings.POOLED) <= set(pairs.index)
    assert table.loc[table["statistic"] == "auc_encoder", "value"].between(0, 1).all()


def test_same_seed_same_numbers(made):
    genes = count_statistics.common_genes(made)
    runs = [count_statistics.expression_statistics(made[-1], genes, seed) for seed in (0, 0, 1)]
    assert str(runs[0]) == str(runs[1]) != str(runs[2])


def test_shortfalls_name_what_is_outside_and_nothing_else(table):
    lines = shortfalls(table)
    assert any(line.startswith("Dispersion, depth taken out") and "too high, a factor of" in line for line in lines)
    assert not any(line.startswith(("Counts a spot", "Area of a nucleus")) for line in lines)
    real = table[table["statistic"].isin(["dispersion"])].copy()
    real.loc[real["simulated"], "value"] = real.loc[~real["simulated"], "value"].median()
    assert shortfalls(real) == []
    assert "too few" in shortfalls(table[table["simulated"]])[0]


def test_sections_that_vary_too_little_are_named():
    rows = [
        {"statistic": "counts_common", "simulated": s, "source": "x", "group": f"{s}{i}", "organ": "Breast", "value": v}
        for s, spread in ((True, 1.0), (False, 100.0))
        for i, v in enumerate(1000 + spread * np.linspace(-1, 1, 9))
    ]
    (line,) = shortfalls(pd.DataFrame(rows))
    assert "too alike, with 1% of the real spread" in line


@pytest.mark.parametrize("real", [True, False])
def test_the_figure_draws_with_and_without_real_sections(table, real):
    chosen = table if real else table[table["simulated"] & ~table["source"].str.contains("real")]
    with style():
        figure = new_figure(*FIGURE_SIZE)
        draw_realism(figure, chosen)
        mark(figure, "simulated data").canvas.draw()
    box = figure.get_tightbbox()
    assert box.x0 >= -0.02
    assert box.x1 <= figure.get_size_inches()[0] + 0.02


def test_without_anything_at_hand_it_says_so(monkeypatch, capsys):
    def unreachable():
        raise SealError("no network", expected="-", do="-")

    monkeypatch.setattr(mouse, "prepare", unreachable)
    assert real_sections() == []
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "none of her2st" in said
    assert "no network" in said


def test_sections_prepared_before_are_used_and_none_fetched(home, monkeypatch):
    from seal.data.sources import her2st

    make_sample(home / "data/samples/her2st", "HER2ST-X1", simulated=False, picture=False)
    monkeypatch.setattr(her2st, "fetch", lambda: pytest.fail("her2st was fetched"))
    monkeypatch.setattr(mouse, "prepare", lambda: home / "data/samples/her2st")
    assert real_sections()[0].id == "HER2ST-X1"
