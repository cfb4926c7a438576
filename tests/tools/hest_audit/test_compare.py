"""Sections found twice in the files: made-up ones changed in every way, real ones where they are at hand."""

import io
import itertools

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.sparse import csr_matrix

from seal.data.sample_files import list_samples, write_files
from seal.data.samples import COLUMNS, read_samples
from seal.data.sources import her2st
from seal.errors import SealError
from tools.hest_audit import compare, expression
from tools.hest_audit import pictures as image_fingerprints
from tools.hest_audit.pictures import SIZE, ImageFingerprint

SIDE = 16  # spots a side of the made-up array, 100 um apart
GENES = [f"GENE{i}" for i in range(1600)]
ROW, COL = (v.ravel() for v in np.mgrid[:SIDE, :SIDE])


def rates():
    rng = np.random.default_rng(0)
    fields = gaussian_filter(rng.normal(size=(SIDE, SIDE, 4)), (3, 3, 0)).reshape(SIDE**2, 4)
    weights = rng.normal(size=(4, len(GENES)))
    return np.exp(2 * (fields / fields.std(axis=0)) @ weights * 0.2 + rng.normal(-1.5, 0.7, len(GENES)))


RATES = rates()


def section(seed=1):
    """Another seed counts other molecules of the same tissue on the same array, as a serial section would at best."""
    return as_data(np.random.default_rng(seed).poisson(RATES))


def as_data(counts, genes=GENES):
    obs = pd.DataFrame({"array_row": ROW, "array_col": COL}, index=[f"AAAC{i}-1" for i in range(SIDE**2)])
    obs["pxl_row_in_fullres"], obs["pxl_col_in_fullres"] = 200.0 * ROW + 300, 200.0 * COL + 300  # 0.5 um a px
    return anndata.AnnData(csr_matrix(counts.astype(np.float32)), obs=obs, var=pd.DataFrame(index=list(genes)))


def thinned(data, share, seed=7):
    data = data.copy()
    data.X = csr_matrix(np.random.default_rng(seed).binomial(data.X.toarray().astype(int), share).astype(np.float32))
    return data


def changed(how):
    data, rng = section(), np.random.default_rng(3)
    if how == "order":
        return data[rng.permutation(data.n_obs)][:, rng.permutation(data.n_vars)].copy()
    if how == "panel":  # each gene caught as well as its probe does
        chosen = rng.choice(data.n_vars, 400, replace=False)
        return thinned(data[:, chosen], rng.uniform(0.4, 1, 400))
    if how == "spots":
        return data[rng.random(data.n_obs) < 0.9].copy()
    if how == "genome":
        data.var_names = [f"GRCh38_{name}" for name in data.var_names]
        return data
    if how == "molecules":
        return thinned(data, 0.5)
    moved = rng.permutation(data.n_obs)  # the same counts at other places, as where spots were pooled anew
    data.obs[["array_row", "array_col"]] = data.obs[["array_row", "array_col"]].to_numpy()[moved]
    return data


def by_expression(*sections):
    prints = [compare.Fingerprint(f"S{i}", expression.of(data), None) for i, data in enumerate(sections)]
    return compare.overlaps(prints)


@pytest.mark.parametrize("how", ["order", "panel", "spots", "genome", "molecules", "places"])
def test_a_section_published_twice_is_found_by_its_counts(how):
    (row,) = by_expression(section(), changed(how)).to_dict("records")
    assert (row["sample_a"], row["sample_b"], row["kind"], row["verdict"]) == ("S0", "S1", "expression", "same section")
    assert row["share"] > 0.6


def test_serial_sections_on_one_array_share_nothing():
    assert by_expression(section(1), section(2), section(3)).empty


def test_a_panel_without_common_genes_is_not_compared():
    other = section()
    other.var_names = [f"OTHER{i}" for i in range(other.n_vars)]
    assert by_expression(section(), other).empty


def test_a_few_common_genes_tell_nothing():
    other = section()
    other.var_names = [*GENES[:4], *(f"OTHER{i}" for i in range(other.n_vars - 4))]
    assert by_expression(section(), other).empty


def test_a_part_of_a_section_is_in_it():
    data = section()
    part = data[data.obs["array_col"] < 6].copy()
    (row,) = by_expression(data, part).to_dict("records")
    assert row["share"] == pytest.approx(1, abs=0.1)


def test_sections_that_share_a_third_overlap():
    data, other = section(1), section(2)
    counts = np.where((COL < 6)[:, None], data.X.toarray(), other.X.toarray())
    (row,) = by_expression(data, as_data(counts)).to_dict("records")
    assert row["verdict"] == "overlapping"
    assert row["share"] == pytest.approx(6 / 16, abs=0.1)


def test_the_fingerprint_does_not_depend_on_order():
    a, b = (expression.of(data) for data in (section(), changed("order")))
    np.testing.assert_array_equal(a.genes, b.genes)
    np.testing.assert_array_equal(a.totals, b.totals)
    np.testing.assert_allclose(a.sketch, b.sketch, atol=2e-3)


def residuals(data):
    """The residual of each gene at each spot, spot by spot."""
    counts, places = data.X.toarray().astype(float), data.obs[["array_row", "array_col"]].to_numpy()
    out = np.zeros_like(counts)
    for s in range(len(counts)):
        near = (np.abs(places - places[s]).max(axis=1) == 1).nonzero()[0]
        out[s] = counts[s] - counts[s].sum() * counts[near].sum(axis=0) / counts[near].sum()
    return out


def test_the_share_at_spots_is_the_correlation_of_residuals():
    a, b = section(), changed("molecules")
    found_in_both = np.minimum(a.X.getnnz(axis=0), b.X.getnnz(axis=0)) >= expression.LEAST_SPOTS
    pairs = zip(residuals(a).T[found_in_both], residuals(b).T[found_in_both], strict=True)
    share = expression.shares_at_spots([expression.of(data) for data in (a, b)])[0, 1]
    assert share == pytest.approx(np.mean([np.corrcoef(x, y)[0, 1] for x, y in pairs]), abs=0.02)
    assert share == pytest.approx(np.sqrt(0.5), abs=0.05)


def test_depth_is_no_residual():
    depth = np.random.default_rng(0).integers(1, 90, SIDE**2)
    assert by_expression(*[as_data(np.outer(depth, np.arange(1600) % 7))] * 2).query("share > 0").empty


def test_a_spot_with_nothing_around_it_is_as_expected():
    data = section()
    data.obs.loc[data.obs_names[40], "pxl_row_in_fullres"] = 90_000
    more = data.copy()
    more.X[40] = more.X[40] * 50
    a, b = (expression.of(one).sketch for one in (data, more))
    np.testing.assert_allclose(a, b, atol=2e-3)


def test_the_share_over_the_section_is_that_of_independent_counts():
    prints = [expression.of(d) for d in (section(1), section(1), section(2), thinned(section(1), 0.5))]
    shares = expression.shares_over_section(prints)
    assert shares[0, 1] == 1
    assert shares[0, 2] == pytest.approx(0, abs=0.25)
    # variance a (1 - p) p of a count thinned to p, over a p^2 + a p of an independent one
    assert shares[0, 3] == pytest.approx(1 - 0.5 / 1.5, abs=0.1)
    np.testing.assert_array_equal(shares, shares.T)


def test_genes_that_one_sample_does_not_list_are_left_out():
    prints = [expression.of(d) for d in (section(), thinned(section(), 0.5)[:, :1150].copy())]
    assert expression.shares_over_section(prints)[0, 1] == pytest.approx(1 - 0.5 / 1.5, abs=0.1)


def test_counts_that_were_normalised_are_not_compared_over_the_section():
    data = section()
    data.X = data.X / 3
    prints = [expression.of(data)] * 2
    assert expression.shares_over_section(prints)[0, 1] == -np.inf
    assert expression.shares_at_spots(prints)[0, 1] > 0.9


def test_a_handful_of_spots_is_no_section():
    few = section()[:6].copy()
    assert not len(expression.of(few).sketched)
    assert by_expression(few, few).empty


# ---- pictures


def tissue(seed=0, side=1800):
    """Made-up tissue, 1 um a px: nuclei of all sizes, dark on pink."""
    rng = np.random.default_rng(seed)
    dark = np.zeros((side, side), dtype=np.float32)
    for size in (2.0, 3.0, 4.0):
        dots = np.zeros((side, side), dtype=np.float32)
        dots[tuple(rng.integers(0, side, (2, side**2 // 700)))] = rng.uniform(0.5, 1, side**2 // 700)
        dark += gaussian_filter(dots, size) * size**2 * 6
    dark = np.minimum(dark, 1)[..., None]
    return Image.fromarray(np.uint8(np.array([225, 170, 205]) * (1 - dark) + np.array([70, 50, 120]) * dark))


TISSUE = tissue()


def cut(image=TISSUE, um=1.0, start=(60, 60), pitch=100, size=SIZE):
    """Patches of 112 um on a grid, their centres in um."""
    xs, ys = (np.arange(first, length * um - 58, pitch) for first, length in zip(start, image.size, strict=True))
    centres = np.array(list(itertools.product(xs, ys)))
    boxes = [(x / um - 56 / um, y / um - 56 / um, x / um + 56 / um, y / um + 56 / um) for x, y in centres]
    lanczos = Image.Resampling.LANCZOS
    return np.stack([np.asarray(image.resize((size, size), lanczos, box=box)) for box in boxes]), centres


def pictured(patches, centres):
    return image_fingerprints.of([patches[:50], patches[50:]], centres)


def share(a, b):
    return image_fingerprints.shares([a, None, b])[0, 2]


@pytest.fixture(scope="module")
def original():
    return pictured(*cut())


def jpeg(image):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=40)
    return Image.open(file)


AGAIN = {
    "few px": lambda: cut(start=(62, 61)),
    "grid": lambda: cut(start=(97, 81)),
    "wider grid": lambda: cut(start=(71, 90), pitch=128),
    "jpeg": lambda: cut(jpeg(TISSUE), start=(97, 81)),
    "half the pixels": lambda: cut(TISSUE.resize((900, 900), Image.Resampling.BICUBIC), um=2.0, start=(97, 81)),
    "scale": lambda: cut(um=1.015, start=(97, 81)),
    "colour": lambda: cut(Image.fromarray(np.uint8(np.asarray(TISSUE) * [0.95, 0.8, 0.9] + 12)), start=(97, 81)),
    "quarter turn": lambda: cut(TISSUE.transpose(Image.Transpose.ROTATE_90), start=(97, 81)),
    "upside down": lambda: cut(TISSUE.transpose(Image.Transpose.FLIP_TOP_BOTTOM), start=(97, 81)),
    "transposed": lambda: cut(TISSUE.transpose(Image.Transpose.TRANSPOSE), start=(97, 81)),
}


@pytest.mark.parametrize("how", AGAIN)
def test_a_section_published_twice_is_found_by_its_picture(original, how):
    assert share(original, pictured(*AGAIN[how]())) > 0.75


def test_other_tissue_of_the_same_kind_shares_nothing(original):
    assert share(original, pictured(*cut(tissue(1)))) == 0


def test_the_order_of_patches_is_nothing(original):
    patches, centres = cut()
    order = np.random.default_rng(0).permutation(len(patches))
    other = pictured(patches[order], centres[order])
    np.testing.assert_array_equal(other.hashes, original.hashes)
    np.testing.assert_allclose(other.places, original.places)


def test_the_share_is_of_the_patches_that_are_in_both():
    left, right = TISSUE.crop((0, 0, 1100, 1800)), TISSUE.crop((700, 0, 1800, 1800))
    found = share(pictured(*cut(left)), pictured(*cut(right, start=(80, 60))))
    assert found == pytest.approx(0.35, abs=0.1)


def test_glass_has_no_points():
    glass = np.full((60, SIZE, SIZE, 3), 235, dtype=np.uint8) + np.random.default_rng(0).integers(
        0, 3, (60, SIZE, SIZE, 3), dtype=np.uint8
    )
    empty = pictured(glass, np.zeros((60, 2)))
    assert not len(empty.hashes)
    assert share(empty, empty) == 0


def test_a_hash_that_occurs_twice_tells_no_place(original):
    patches, centres = cut()
    assert not len(pictured(np.concatenate([patches, patches]), np.concatenate([centres, centres + 9000])).hashes)


def test_points_lie_on_nuclei():
    image = np.full((900, 900, 3), 220, dtype=np.float32)
    nuclei = np.random.default_rng(0).uniform(100, 800, (40, 2))
    y, x = np.mgrid[:900, :900]
    for one in nuclei:
        image -= 150 * np.exp(-((x + 0.5 - one[0]) ** 2 + (y + 0.5 - one[1]) ** 2) / 50)[..., None]
    patches, centres = cut(Image.fromarray(np.uint8(np.clip(image, 0, 255))))
    patch, offset, _ = image_fingerprints._points(patches)
    places = centres[patch] + offset * image_fingerprints.UM_PER_PX
    distance = np.linalg.norm(places[:, None] - nuclei, axis=2).min(axis=1)
    assert len(places) > 15
    assert np.median(distance) < 0.3  # um, a seventh of a pixel


def test_hashes_are_those_of_all_turns():
    bits = np.random.default_rng(0).random((20, 8, 8)) > 0.5
    plain = [
        min(int("".join(str(int(b)) for b in np.rot90(side, q).ravel()), 2) for side in (one, one.T) for q in range(4))
        for one in bits
    ]
    np.testing.assert_array_equal(image_fingerprints._hashes(bits), np.array(plain, dtype=np.uint64))


def scattered(rng, chance, true, turn=None, skew=0.0):
    turn = np.eye(2) if turn is None else turn
    here = rng.uniform(0, 6500, (chance + true, 2))
    there = rng.uniform(0, 6500, (chance + true, 2))
    there[:true] = here[:true] @ (turn * (1 + skew)).T + (812.0, -77.0) + rng.normal(0, 2, (true, 2))
    return here, there


@pytest.mark.parametrize("turn", image_fingerprints._TURNS)
def test_an_arrangement_is_found_among_chance_matches(turn):
    here, there = scattered(np.random.default_rng(0), 400, 40, turn, skew=0.01)
    agree = image_fingerprints._in_one_arrangement(here, there)
    assert agree[:40].all()
    assert agree[40:].sum() <= 3


@pytest.mark.parametrize("seed", range(10))
def test_chance_matches_are_no_arrangement(seed):
    rng = np.random.default_rng(seed)
    agree = image_fingerprints._in_one_arrangement(*scattered(rng, 2000, 0))
    assert agree.sum() < image_fingerprints.PATCHES


def test_fewer_than_ten_patches_are_chance(original):
    keep = np.isin(original.patches, np.unique(original.patches)[:9])
    few = ImageFingerprint(*(array[keep] for array in vars(original).values()))
    assert share(original, few) == 0
    keep = np.isin(original.patches, np.unique(original.patches)[:12])
    assert share(original, ImageFingerprint(*(array[keep] for array in vars(original).values()))) == 1


def test_the_index_loses_nothing(original):
    other = pictured(*AGAIN["grid"]())
    plain = image_fingerprints._with_partner(original, other)
    sizes = [len(np.unique(f.patches)) for f in (original, other)]
    assert sizes[0] <= sizes[1]
    assert share(original, other) == plain / sizes[0]


# ---- files


@pytest.fixture
def tree(tmp_path):
    """A and B are one section, C lies beside them on the same array; D has no picture."""
    root = tmp_path / "hest"
    patches, _ = cut(start=(150, 150), size=112)
    pictures = {"A": patches[: SIDE**2], "B": patches[: SIDE**2], "C": cut(tissue(1), start=(150, 150), size=112)[0]}
    for name, seed in (("A", 1), ("B", 1), ("C", 2), ("D", 3)):
        data = section(seed)
        data.obs["in_tissue"] = 1
        data.obsm["spatial"] = data.obs[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy()
        row = dict.fromkeys(COLUMNS, "x") | {"id": name, "pixel_size_um_estimated": 0.5}
        write_files(root, row, data, pictures.get(name), 1.0)
    list_samples(root)
    return root


def test_the_audit_reads_files_once_and_again_when_they_change(tree, tmp_path):
    samples, folder = read_samples(tree), tmp_path / "prints"
    found = compare.audit_files(samples, folder)
    assert found[["sample_a", "sample_b", "kind", "verdict"]].to_numpy().tolist() == [
        ["A", "B", "expression", "same section"],
        ["A", "B", "image", "same section"],
    ]
    assert found["share"].tolist() == pytest.approx([1, 1], abs=0.05)
    written = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert sorted(written) == ["A.npz", "B.npz", "C.npz", "D.npz"]
    (folder / "A.npz").write_bytes((folder / "A.npz").read_bytes()[:1000])
    with h5py.File(tree / "patches" / "C.h5", "a") as file:
        file.attrs["note"] = "mended"
    (tree / "st" / "D.h5ad").touch()
    (folder / ".B.1234.part.npz").write_bytes(b"half")
    pd.testing.assert_frame_equal(compare.audit_files(samples, folder, workers=1), found)
    again = {path.name for path in folder.iterdir() if path.stat().st_mtime_ns != written.get(path.name)}
    assert again == {"A.npz", "C.npz"}


def test_kept_fingerprints_are_those_that_were_taken(tree, tmp_path, monkeypatch):
    sample = read_samples(tree)[0]
    taken = compare._take(tmp_path, sample)
    loaded = compare._load(tmp_path, sample)
    for kind in ("expression", "image"):
        for name, value in vars(getattr(taken, kind)).items():
            np.testing.assert_array_equal(getattr(getattr(loaded, kind), name), value)
    monkeypatch.setattr(compare, "VERSION", compare.VERSION + 1)
    assert compare._load(tmp_path, sample) is None


def test_a_damaged_sample_is_named_and_others_are_kept(tree, tmp_path):
    path = tree / "st" / "D.h5ad"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(SealError, match=r"D\.h5ad"):
        compare.audit_files(read_samples(tree), tmp_path / "prints", workers=1)
    assert (tmp_path / "prints" / "A.npz").is_file()
    assert not (tmp_path / "prints" / "D.npz").exists()


def test_a_scale_that_is_not_known_is_named(tree):
    table = pd.read_csv(tree / "metadata.csv").assign(pixel_size_um_estimated=np.nan)
    table.to_csv(tree / "metadata.csv", index=False)
    with pytest.raises(SealError, match="sample A: pixel_size_um_estimated is nan"):
        compare.of(read_samples(tree)[0])


def test_workers_are_at_least_one(tmp_path):
    with pytest.raises(SealError, match="0 workers"):
        compare.audit_files([], tmp_path, workers=0)


def test_nothing_to_compare_is_an_empty_table(tmp_path):
    found = compare.audit_files([], tmp_path)
    assert found.empty
    assert tuple(found.columns) == compare.COLUMNS


# ---- real sections


@pytest.fixture(scope="module")
def real(shared):
    folder = shared / "her2st"
    if not folder.is_dir():
        pytest.skip(f"no real sections in {folder}")
    return {section.name: section for section in her2st.local_sections(folder)}


def test_real_serial_sections_are_apart_and_found_again(real):
    c2, c3, c4 = (her2st.read_section(real[name])[0] for name in ("C2", "C3", "C4"))
    found = by_expression(c2, c3, c4, thinned(c3, 0.5))
    assert found[["sample_a", "sample_b", "verdict"]].to_numpy().tolist() == [["S1", "S3", "same section"]]


@pytest.mark.slow
def test_real_sections_share_neither_counts_nor_tissue(real):
    prints = [expression.of(her2st.read_section(s)[0]) for s in real.values()]
    pairs = np.triu_indices(len(prints), 1)
    assert len(pairs[0]) == 496
    assert expression.shares_at_spots(prints)[pairs].max() < 0.05
    assert expression.shares_over_section(prints)[pairs].max() < 0


@pytest.mark.slow
def test_real_pictures_are_apart_and_found_again(real):
    Image.MAX_IMAGE_PIXELS = None
    um = 0.69
    grids = {}
    for name in ("B4", "C2", "C3", "C4"):
        image = Image.open(real[name].image).convert("RGB")
        grids[name] = cut(image, um, start=(1500, 1500))
        if name == "C3":
            grids["again"] = cut(jpeg(image), um * 1.01, start=(1537, 1521))
    prints = {name: pictured(*grid) for name, grid in grids.items()}
    for a, b in itertools.combinations(prints, 2):
        expected = {a, b} == {"C3", "again"}
        assert (share(prints[a], prints[b]) > 0.7) if expected else (share(prints[a], prints[b]) == 0)
