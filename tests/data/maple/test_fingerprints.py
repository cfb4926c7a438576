"""Sections found twice in the files: made-up ones changed in every way, real ones where they are at hand."""

import functools
import io
import itertools

import anndata
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter
from scipy.sparse import csr_matrix

from seal.data import her2st, hest
from seal.data.maple import arrangement, expression_prints, fingerprints, image_prints
from seal.data.sample_files import list_samples, write_sample
from seal.errors import SealError

SIDE = 12  # spots a side of the made-up array
SPOTS = SIDE**2
GENES = np.array([f"G{i}" for i in range(300)])
PLACES = 100.0 * np.stack(np.divmod(np.arange(SPOTS), SIDE), axis=1)[:, ::-1]
RNG = np.random.default_rng(0)
FIELDS = gaussian_filter(RNG.normal(size=(SIDE, SIDE, 3)), (2, 2, 0)).reshape(SPOTS, 3)
RATES = np.exp(4 * FIELDS @ RNG.normal(size=(3, len(GENES))) + RNG.normal(0.5, 0.7, len(GENES)))


def counted(seed):
    """Counts of a section; another seed counts other molecules of the same tissue on the same array."""
    return np.random.default_rng(seed).poisson(RATES).astype(np.float32)


@functools.cache
def _painted(seed):
    values = gaussian_filter(np.random.default_rng(seed).normal(size=(SPOTS, 64, 64, 3)), (0, 5, 5, 0))
    return np.clip(120 + 500 * values, 0, 200).astype(np.uint8)


def painted(seed):
    """Patches, uint8 [SPOTS, 64, 64, 3]."""
    return _painted(seed).copy()


def thinned(counts, share, seed=9):
    return np.random.default_rng(seed).binomial(counts.astype(int), share).astype(np.float32)


def printed(counts, genes=GENES, places=PLACES):
    return expression_prints.of(csr_matrix(counts), genes, places)


def pictured(patches, places=PLACES):
    small = np.stack([np.asarray(Image.fromarray(p).resize((32, 32), Image.Resampling.LANCZOS)) for p in patches])
    return image_prints.of([small[:100], small[100:]], places, 100.0)


def fingerprint(name, expression, image=None):
    return fingerprints.Fingerprint(name, expression, image or image_prints.of([], PLACES[:0], 1.0))


def found(*prints):
    """Kind, share and verdict of what is shared."""
    return fingerprints.overlaps(prints)[["kind", "share", "verdict"]].to_records(index=False).tolist()


def written(root, name, counts, patches=None, barcodes=None):
    names = [f"BARCODE{i}-1" for i in range(len(counts))] if barcodes is None else barcodes
    data = anndata.AnnData(csr_matrix(counts), obs=pd.DataFrame(index=names), var=pd.DataFrame(index=GENES))
    data.obs["array_row"], data.obs["array_col"] = np.divmod(np.arange(len(counts)), SIDE)
    data.obs["pxl_col_in_fullres"], data.obs["pxl_row_in_fullres"] = PLACES[: len(counts)].T
    data.obs["in_tissue"], data.obsm["spatial"] = 1, PLACES[: len(counts)]
    row = dict.fromkeys(hest.COLUMNS, "x") | {"id": name, "pixel_size_um_estimated": 0.5}
    write_sample(root, row, data, patches, hest.FIELD / 64)


@pytest.fixture
def tree(tmp_path):
    """A and B are one section; C is serial to them, on the same array; D has no image."""
    for name, seed in (("A", 1), ("B", 1), ("C", 2)):
        written(tmp_path / "hest", name, counted(seed), painted(seed))
    written(tmp_path / "hest", "D", counted(3))
    list_samples(tmp_path / "hest")
    return tmp_path / "hest"


def changed(how, counts):
    """Counts, genes and places of a section, published otherwise."""
    order = np.random.default_rng(3).permutation(SPOTS)
    genes = np.random.default_rng(4).permutation(len(GENES))
    if how == "order":
        return counts[order][:, genes], GENES[genes], PLACES[order]
    if how == "panel":
        return thinned(counts[:, genes[:150]], 0.9), GENES[genes[:150]], PLACES
    if how == "spots":
        kept = order[: SPOTS - 15]
        return counts[kept], GENES, PLACES[kept]
    if how == "molecules":
        return thinned(counts, 0.7), GENES, PLACES
    if how == "normalised":
        return np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4), GENES, PLACES
    return counts, GENES, PLACES[:, ::-1] * [-0.37, 0.37] + [900, 50]


@pytest.mark.parametrize("how", ["order", "panel", "spots", "molecules", "normalised", "scaled and turned"])
def test_a_section_published_twice_is_found_by_its_counts(how):
    a, b = printed(counted(1)), printed(*changed(how, counted(1)))
    ((kind, share, verdict),) = found(fingerprint("A", a), fingerprint("B", b))
    assert (kind, verdict) == ("expression", "same section")
    assert 0.9 <= share <= 1


def test_serial_sections_on_arrays_of_the_same_places_share_nothing():
    sections = [fingerprint(str(seed), printed(counted(seed)), pictured(painted(seed))) for seed in range(6)]
    assert found(*sections) == []
    for a, b in itertools.combinations(sections, 2):  # nor without the first look that passes them over
        assert expression_prints.shared(a.expression, b.expression) == 0
        assert image_prints.shared(a.image, b.image) == 0


def test_the_share_is_that_of_the_smaller_section():
    counts, third = counted(1), SPOTS // 3
    left, right = slice(0, 2 * third), slice(third, SPOTS)
    a, b = printed(counts[left], places=PLACES[left]), printed(counts[right], places=PLACES[right])
    ((_, share, verdict),) = found(fingerprint("A", a), fingerprint("B", b))
    assert (share, verdict) == (pytest.approx(0.5, abs=0.06), "same section" if share >= 0.5 else "overlapping")
    few = slice(SPOTS - 4 * SIDE, SPOTS)
    c = printed(counts[few], places=PLACES[few])
    assert found(fingerprint("A", printed(counts)), fingerprint("C", c))[0][1] > 0.9


def test_parts_of_a_section_overlap():
    patches, cut = painted(1), SPOTS // 2
    a, b = pictured(patches[: cut + 24], PLACES[: cut + 24]), pictured(patches[cut:], PLACES[cut:])
    none = printed(np.ones((12, 3)), GENES[:3], PLACES[:12])
    assert found(fingerprint("A", none, a), fingerprint("B", none, b)) == [("image", 24 / 72, "overlapping")]


def test_the_order_of_spots_and_genes_is_nothing():
    a, b = printed(counted(1)), printed(*changed("order", counted(1)))
    for name in ("genes", "bits", "places"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_bits_match_a_plain_count():
    counts = counted(1)
    counts[5] = 0
    result = printed(counts)
    bits = np.unpackbits(result.bits, axis=1, count=len(result.genes))
    order = np.lexsort((PLACES[:, 1], PLACES[:, 0]))
    for spot, row in zip(order[::7], bits[::7], strict=True):
        apart = np.abs(PLACES - PLACES[spot]).max(axis=1)
        around = counts[(apart > 0) & (apart <= 100)]
        for gene, bit in list(zip(result.genes, row, strict=True))[::11]:
            g = int(gene[1:])
            depth = max(counts[spot].sum(), 1)
            assert bit == (counts[spot, g] / depth > around[:, g].sum() / around.sum())


def test_spots_with_hardly_any_counts_are_not_alike():
    sections = []
    for seed in (1, 2):
        counts = counted(seed)
        counts[::5] = thinned(counts[::5], 0.02, seed)  # next to none, as at the rim of tissue
        sections.append(printed(counts))
    a, b = (one.values() for one in sections)
    _, of_a, of_b = np.intersect1d(*(one.genes for one in sections), return_indices=True)
    assert expression_prints.agreement(a[:, of_a], b[:, of_b], len(of_a)).max() < expression_prints.ALIKE


def test_a_spot_far_from_all_others_is_compared_with_the_whole_section():
    places = PLACES.copy()
    places[7] = [9000, 9000]
    counts = counted(1)
    result = printed(counts, places=places)
    bits = np.unpackbits(result.bits, axis=1, count=len(result.genes))[-1]  # sorted by x: the last
    genes = [int(gene[1:]) for gene in result.genes]
    np.testing.assert_array_equal(
        bits, counts[7, genes] / counts[7].sum() > counts[:, genes].sum(axis=0) / counts.sum()
    )


def republished(how, patches):
    if how == "jpeg":
        out = []
        for patch in patches:
            file = io.BytesIO()
            Image.fromarray(patch).save(file, "JPEG", quality=50)
            out.append(np.asarray(Image.open(file)))
        return np.stack(out)
    if how == "colour":
        return np.clip(patches * [0.95, 1.03, 0.9] + [5, -4, 8], 0, 255).astype(np.uint8)
    if how == "scale":
        return np.stack([np.asarray(Image.fromarray(patch).resize((41, 41))) for patch in patches])
    return np.roll(patches, 1, axis=(1, 2))  # 1.75 um


@pytest.mark.parametrize("how", ["jpeg", "colour", "scale", "shift"])
def test_a_section_published_twice_is_found_by_its_patches(how):
    patches = painted(1)
    a, b = pictured(patches), pictured(republished(how, patches))
    assert image_prints.candidates([a, b]) == [(0, 1)]
    assert image_prints.shared(a, b) >= 0.9 * SPOTS


@pytest.mark.parametrize("turn", arrangement.TURNS)
def test_a_turned_image_is_found(turn):
    swap, x, y = turn
    patches = painted(1)
    around = (np.swapaxes(patches, 1, 2) if swap else patches)[:, ::y, ::x]
    a, b = pictured(patches), pictured(around, PLACES @ arrangement.matrix(turn).T)
    assert image_prints.candidates([a, b]) == [(0, 1)]
    assert image_prints.shared(a, b) >= 0.98 * SPOTS
    assert (np.bitwise_count(image_prints.turned(a.hashes, turn) ^ b.hashes) <= 3).all()
    np.testing.assert_array_equal(
        image_prints.canonical(a.hashes), image_prints.canonical(image_prints.turned(a.hashes, turn))
    )


def test_hashes_are_signs_of_the_cosine_transform():
    patches = painted(1)[:20, 16:48, 16:48]
    hashes, usable = image_prints.hashes(patches)
    assert usable.all()
    order = sorted(((u, v) for u in range(8) for v in range(8)), key=lambda uv: (sum(uv), max(uv), uv))
    for patch, value in zip(patches, hashes.tolist(), strict=True):
        waves = dctn(patch.astype(float) @ [0.299, 0.587, 0.114])
        bits = ["1" if (u or v) and waves[u, v] > 0 else "0" for u, v in order]
        assert f"{value:064b}" == "".join(bits)


def test_glass_and_flat_patches_have_no_hash():
    patches = painted(1)
    patches[0], patches[1], patches[2, :, :40] = 240, 128, 240
    result = pictured(patches)
    np.testing.assert_array_equal(result.places, (PLACES[3:] / 100).astype(np.float32))
    assert len(result.hashes) == SPOTS - 3


def test_the_index_passes_over_no_pair_that_shares_patches():
    patches = [painted(seed) for seed in range(5)]
    sections = [pictured(p) for p in patches]
    sections += [pictured(republished("jpeg", patches[k])) for k in (1, 3)]
    sections.append(pictured(np.concatenate([patches[4][:30], painted(9)[30:]])))
    every = itertools.combinations(range(len(sections)), 2)
    assert [pair for pair in every if image_prints.shared(*(sections[k] for k in pair))] == [(1, 5), (3, 6), (4, 7)]
    assert image_prints.candidates(sections) == [(1, 5), (3, 6), (4, 7)]


@pytest.mark.parametrize("turn", arrangement.TURNS)
def test_the_map_is_found_among_chance_matches(turn):
    rng = np.random.default_rng(0)
    a = rng.uniform(0, 60, (300, 2))
    b = 1.01 * a @ arrangement.matrix(turn).T + [7, -20] + rng.normal(0, 0.05, a.shape)
    b[40:] = rng.uniform(-80, 80, (260, 2))
    mapping = arrangement.fit(a, b)
    np.testing.assert_allclose(np.column_stack([a[:40], np.ones(40)]) @ mapping, b[:40], atol=0.4)


def test_scattered_matches_agree_on_no_map():
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert arrangement.fit(rng.uniform(0, 60, (300, 2)), rng.uniform(0, 60, (300, 2))) is None
    same = rng.uniform(0, 60, (arrangement.AGREE, 2))
    assert arrangement.fit(same[:-1], same[:-1]) is None
    np.testing.assert_allclose(arrangement.fit(same, same), [[1, 0], [0, 1], [0, 0]], atol=1e-9)


def test_partners_are_near_and_nobodys_else():
    a, b = np.array([[0, 0], [0.2, 0], [5, 5], [9, 9]]), np.array([[5.1, 5], [0.15, 0], [30, 30]])
    rows, columns = arrangement.partners(np.array([[1.0, 0], [0, 1], [0, 0]]), a, b)
    assert sorted(zip(rows.tolist(), columns.tolist(), strict=True)) == [(1, 1), (2, 0)]


def test_the_audit_reads_files_once(tree, tmp_path):
    samples, folder = hest.samples(tree), tmp_path / "prints"
    table = fingerprints.audit_files(samples, folder, workers=2)
    assert table.columns.tolist() == ["sample_a", "sample_b", "kind", "share", "verdict"]
    assert table.to_records(index=False).tolist() == [
        ("A", "B", "expression", 1.0, "same section"),
        ("A", "B", "image", 1.0, "same section"),
    ]
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert sorted(times) == ["A.npz", "B.npz", "C.npz", "D.npz"]
    (folder / "A.npz").write_bytes((folder / "A.npz").read_bytes()[:2000])  # as a bad disk leaves it
    (folder / ".B.0.part.npz").touch()
    written(tree, "C", counted(1), painted(2))
    again = fingerprints.audit_files(samples, folder, workers=1)
    assert set(zip(again["sample_a"], again["sample_b"], again["kind"], strict=True)) == {
        *(("A", "B", kind) for kind in ("expression", "image")),
        ("A", "C", "expression"),
        ("B", "C", "expression"),
    }
    kept = {path.name for path in folder.iterdir() if path.stat().st_mtime_ns == times.get(path.name)}
    assert kept == {"B.npz", "D.npz"}
    assert len(list(folder.iterdir())) == 4


def test_a_damaged_sample_is_named_and_the_others_are_kept(tree, tmp_path):
    (tree / "st" / "B.h5ad").write_bytes(b"no h5ad")
    with pytest.raises(SealError, match=r"B\.h5ad cannot be read"):
        fingerprints.audit_files(hest.samples(tree), tmp_path / "prints", workers=1)
    assert (tmp_path / "prints" / "A.npz").is_file()
    assert not (tmp_path / "prints" / "B.npz").exists()


def test_workers_are_at_least_one(tmp_path):
    with pytest.raises(SealError, match="0 workers"):
        fingerprints.audit_files([], tmp_path, workers=0)


def test_nothing_to_compare_is_an_empty_table(tmp_path):
    assert fingerprints.audit_files([], tmp_path).empty
    assert found(fingerprint("A", printed(counted(1)))) == []
    assert found(*(fingerprint(name, printed(counted(1)[:1], places=PLACES[:1])) for name in "AB")) == []


@pytest.fixture(scope="module")
def real(shared):
    if not (shared / "her2st").is_dir():
        pytest.skip(f"no real sections in {shared}")
    return {section.name: section for section in her2st.local_sections(shared / "her2st")}


def real_print(data, counts):
    return expression_prints.of(counts, data.var_names, data.obsm["spatial"])


def test_real_serial_sections_are_apart_and_themselves(real):
    sections = [her2st.read_section(real[name])[0] for name in ("B4", "C2", "C3", "C4")]  # B4 is the shallowest
    prints = [real_print(data, data.X) for data in sections]
    for a, b in itertools.combinations(prints, 2):
        assert expression_prints.shared(a, b) == 0
    for data, one in zip(sections, prints, strict=True):
        half = data.X.copy()
        half.data = thinned(half.data, 0.5)
        other = real_print(data, half)
        assert any(expression_prints.candidates([one, other]))
        assert expression_prints.shared(one, other) >= 0.9 * data.n_obs


@pytest.mark.slow
def test_real_sections_share_neither_counts_nor_patches(real, tmp_path, home):
    for section in real.values():
        her2st.convert(section, tmp_path)
    list_samples(tmp_path)
    samples = hest.samples(tmp_path)
    assert sum(sample.has_image for sample in samples) == 4
    assert fingerprints.audit_files(samples, tmp_path / "prints").empty
