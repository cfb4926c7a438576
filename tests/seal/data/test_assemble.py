"""The assembly by sample: equal to the plain one in memory, resumed after a kill, the same in every way it is run."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.sparse import csr_matrix

import seal_atlas
from seal import paths, profiles
from seal.data import assemble_sample, cluster, maple, panel, sample_files
from seal.data.assemble import assemble, verify
from seal.data.expression import normalise, spot_context
from seal.data.grid import neighbours
from seal.data.pairs import folder_of, read, tabulate_dropped
from seal.data.samples import read_samples
from seal.errors import SealError
from seal.files import read_json, sha256, write_json
from tests.seal.data.conftest import ROW, counts, pictures, write_sample
from tests.seal.data.plain_assembly import assembled

TREE = profiles.changed(
    profiles.MAPLE,
    image_size=28,
    um_per_px=4.0,
    panel__genes=4,
    panel__test_genes=2,
    panel__coverage=0.0,
    compute__assembly="threads",
    evaluation__split="donor",
    selection__test_organs=1,
)


def write_tree(root, sections=4, spots=8):
    """A tree of other people's making: sections of different genes, some without an image, one spot without a patch."""
    for i in range(sections):
        data = counts(spots, genes=7, seed=i)
        data.var_names = [f"g{(i + k) % 9}" for k in range(7)]
        data.obs["in_tissue"] = [1] * (spots - 1) + [0] if i == 1 else 1
        row = {**ROW, "id": f"S{i}", "patient": f"P{i}", "organ": ["Skin", "Lung"][i % 2]}
        alone = i == 2
        write_sample(root, row, data, None if alone else pictures(spots, 28, seed=i), 4.0)
    return root


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.setenv("SEAL_HEST", str(write_tree(tmp_path / "tree")))
    return tmp_path / "tree"


def hashes(folder):
    return {str(p.relative_to(folder)): sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()}


# ---- equal to the plain way ----


def require_equal(pairs, plain):
    np.testing.assert_array_equal(pairs.patches[:], plain["patches"])
    np.testing.assert_array_equal(np.vstack([pairs.counts(s).toarray() for s in pairs.sections]), plain["counts"])
    assert pairs.genes_counted == plain["genes"]
    assert pairs.frame()["barcode"].tolist() == plain["barcodes"]
    assert [fold.name for fold in pairs.folds()] == plain["folds"]
    for fold in pairs.folds():
        chosen = pairs.panel(fold)
        columns = [plain["genes"].index(gene) for gene in chosen.genes]
        np.testing.assert_array_equal(pairs.context(fold), plain["smooth"][:, columns])
        np.testing.assert_array_equal(pairs.measured(fold), plain["own"][:, np.array(columns)[chosen.test_columns]])


def test_equals_the_plain_assembly_on_the_atlas(small):
    pairs = assemble(small)
    require_equal(pairs, assembled(read_samples(seal_atlas.prepare(small)), small, pairs.sections))


def test_equals_the_plain_assembly_on_samples_of_different_genes(tree):
    pairs = assemble(TREE)
    assert [s.sample for s in pairs.sections] == ["S0", "S1", "S3", "S2"], "with an image first"
    assert (pairs.n_pairs, pairs.n_spots) == (23, 31)
    assert {s.um_per_px for s in pairs.sections} == {0.5}, "of the image, not of the patches"
    require_equal(pairs, assembled(read_samples(tree), TREE, pairs.sections))


@pytest.mark.parametrize("varies", ["own", "context"])
def test_some_spots_at_a_time_give_the_sums_of_all(tree, monkeypatch, varies):
    monkeypatch.setattr(assemble_sample, "SPOTS", 3)
    profile = profiles.changed(TREE, panel__variable_genes=varies)
    pairs = assemble(profile)
    require_equal(pairs, assembled(read_samples(tree), profile, pairs.sections))
    frame = pairs.frame()
    for section in pairs.sections:
        spots = frame[frame["sample"] == section.sample]
        own = pairs.counts(section)
        adjacency = neighbours(spots["array_row"].to_numpy(), spots["array_col"].to_numpy(), section.grid)
        chosen = own if varies == "own" else spot_context(own, adjacency, TREE.panel.own_weight)
        expression = normalise(chosen, TREE.panel.target_sum)
        found = vars(panel.load_moments(pairs.folder / "moments" / f"{section.sample}.npz"))
        plain = vars(panel.sum_spots(own, expression, found["measured"] > 0))
        for name, value in found.items():
            np.testing.assert_allclose(value, plain[name], rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("how", ["lacks it", "refuses"])
def test_a_system_that_takes_no_advice(tree, monkeypatch, how):
    expected = hashes(assemble(TREE).folder)
    shutil.rmtree(folder_of(TREE))
    if how == "lacks it":
        monkeypatch.delattr(os, "posix_fadvise")
    else:
        monkeypatch.setattr(os, "posix_fadvise", _refusing)
    assert hashes(assemble(TREE).folder) == expected


def _refusing(*_):
    raise OSError(22, "Invalid argument")


@pytest.mark.slow
def test_equals_the_plain_assembly_on_real_sections(shared, monkeypatch, tmp_path):
    from seal.data.sources import her2st

    monkeypatch.setenv("SEAL_HER2ST", str(shared / "her2st"))
    profile = profiles.get("her2st", image_size=28, um_per_px=4.0, panel__genes=50)
    root = her2st.prepare(profile)
    kept = [s for s in read_samples(root) if s.id.endswith(("B4", "C2", "B1", "D3"))]
    monkeypatch.setattr("seal.data.assemble.read_samples", lambda *_: kept)
    pairs = assemble(profile)
    assert len(pairs.sections) == 4
    require_equal(pairs, assembled(kept, profile, pairs.sections))


def test_the_index_has_a_row_a_spot(tree):
    pairs = assemble(TREE)
    frame = pd.read_parquet(pairs.folder / "spots.parquet")
    assert len(frame) == pairs.n_spots
    assert frame.columns.tolist()[:4] == ["sample", "donor", "organ", "barcode"]
    for section in pairs.sections:
        assert frame["sample"].iloc[section.start : section.stop].eq(section.sample).all()
        assert frame["has_image"].iloc[section.start : section.stop].eq(section.has_image).all()


def test_aliases_settle_names(tree, tmp_path, monkeypatch):
    plain = assemble(TREE)
    genes, column = plain.genes_counted, plain.genes_counted.index("G0")
    sums = [plain.counts(section)[:, [column]].sum() for section in plain.sections]
    table = tmp_path / "aliases.tsv"
    table.write_text("symbol\talias_symbol\tprev_symbol\nOFFICIAL\tG0\t\n")
    monkeypatch.setenv("SEAL_ALIASES", str(table))
    pairs = assemble(TREE)
    assert pairs.key != plain.key
    assert pairs.genes_counted == sorted([*(gene for gene in genes if gene != "G0"), "OFFICIAL"])
    column = pairs.genes_counted.index("OFFICIAL")
    assert [pairs.counts(section)[:, [column]].sum() for section in pairs.sections] == sums
    table.write_text(table.read_text().replace("OFFICIAL", "ANOTHER"))
    assert "ANOTHER" in assemble(TREE).genes_counted, "the table is read again where it was edited"


def test_an_alias_table_edited_on_the_way_changes_nothing(tree, tmp_path, monkeypatch):
    table = tmp_path / "aliases.tsv"
    table.write_text("symbol\talias_symbol\tprev_symbol\nOFFICIAL\tG0\t\n")
    monkeypatch.setenv("SEAL_ALIASES", str(table))
    whole = assemble_sample.count

    def count(job):
        table.write_text("symbol\talias_symbol\tprev_symbol\nANOTHER\tG0\t\n")
        return whole(job)

    monkeypatch.setattr(assemble_sample, "count", count)
    genes = assemble(TREE).genes_counted
    assert "OFFICIAL" in genes
    assert not {"ANOTHER", "G0"} & set(genes)


# ---- killed and resumed ----

KILLED = """
    import os, signal, sys
    from seal.data.assemble import assemble
    from seal.data import assemble_sample as work
    from tests.seal.data.test_assemble import TREE

    step, number = sys.argv[1], int(sys.argv[2])
    function, made = getattr(work, step), []
    def dying(job):
        made.append(job.sample.id)
        if len(made) == number:
            if step == "place":  # in the middle of a sample's patches
                from seal.data import sample_files
                whole = sample_files.read_patches
                def half(*arguments):
                    for chunk in whole(*arguments):
                        yield chunk[: len(chunk) // 2]
                        os.kill(os.getpid(), signal.SIGKILL)
                sample_files.read_patches = half
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return function(job)
    setattr(work, step, dying)
    from seal.data import cluster
    cluster.cores = lambda: 1
    assemble(TREE)
"""


@pytest.mark.parametrize(
    ("step", "number"), [("count", 2), ("place", 2), pytest.param("write_folds", 3, marks=pytest.mark.slow)]
)
def test_a_killed_assembly_goes_on_to_the_same_bytes(tree, tmp_path, monkeypatch, step, number):
    undisturbed = hashes(assemble(TREE).folder)
    shutil.rmtree(folder_of(TREE))
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(KILLED))
    environment = {**os.environ, "PYTHONPATH": str(paths.PROJECT)}
    done = subprocess.run([sys.executable, script, step, str(number)], env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with pytest.raises(SealError, match="holds no assembled pairs"):
        read(TREE)
    (partial,) = folder_of(TREE).parent.glob(".*.part")
    counted = len(list((partial / "parts").glob("*.count.json")))
    pictured = len([p for p in (partial / "parts").glob("*.place.json") if not p.name.startswith("S2")])
    assert (counted, pictured) < (4, 3) or step == "write_folds"
    again = []
    monkeypatch.setattr(sample_files, "read_counts", _noting(sample_files.read_counts, again))
    monkeypatch.setattr(sample_files, "read_patches", _noting(sample_files.read_patches, again))
    assert hashes(assemble(TREE).folder) == undisturbed
    assert (again.count("read_counts"), again.count("read_patches")) == (4 - counted, 3 - pictured)
    assert not list(folder_of(TREE).parent.glob(".*.part"))


def _noting(function, notes):
    def noted(*arguments):
        notes.append(function.__name__)
        return function(*arguments)

    return noted


def test_killed_before_it_has_its_name(tree, monkeypatch):
    undisturbed = hashes(assemble(TREE).folder)
    shutil.rmtree(folder_of(TREE))

    def dying(partial, _):
        shutil.rmtree(partial / assemble_sample.PARTS)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("seal.data.assemble._settle", dying)
        with pytest.raises(KeyboardInterrupt):
            assemble(TREE)
    again = []
    monkeypatch.setattr(sample_files, "read_counts", _noting(sample_files.read_counts, again))
    assert hashes(assemble(TREE).folder) == undisturbed
    assert not again


def test_a_sample_whose_grid_is_not_that_of_its_image(tree):
    path = next(sample for sample in read_samples(tree) if sample.id == "S1").st_path
    data = anndata.read_h5ad(path)
    data.obs["array_col"] = 2 * np.random.default_rng(0).permutation(data.n_obs)
    data.write_h5ad(path)
    with pytest.raises(SealError, match="visium grid") as error:
        assemble(TREE)
    assert str(path) in str(error.value)


def test_places_of_spots_outside_tissue_are_nothing(tree):
    sample = read_samples(tree)[0]
    before = assemble(TREE).n_spots
    data = anndata.read_h5ad(sample.st_path)
    data.obs.iloc[-2:, data.obs.columns.get_indexer(["array_row", "array_col", "in_tissue"])] = 0
    data.write_h5ad(sample.st_path)
    assert assemble(TREE).n_spots == before - 2


# ---- what is dropped ----


def dropped(pairs):
    return {
        (sample, what): (reason, lost, of)
        for sample, what, reason, lost, of in read_json(pairs.folder / "dropped.json")
    }


def edit_counts(tree, name, change):
    data = anndata.read_h5ad(tree / "st" / f"{name}.h5ad")
    data = change(data)
    data.write_h5ad(tree / "st" / f"{name}.h5ad")


def test_whatever_is_dropped_is_counted(tree):
    data = counts(8, 7, seed=0)
    data.var_names = ["BLANK-1", *data.var_names[1:]]
    data.obs["in_tissue"] = [1] * 6 + [0] * 2
    values = data.X.toarray()
    values[0], values[1] = 0, np.eye(7)[0]
    data.X = csr_matrix(values)
    data.obs_names = [*data.obs_names[:5], "another", *data.obs_names[6:]]
    data.write_h5ad(tree / "st" / "S0.h5ad")
    (tree / "st" / "S1.h5ad").rename(tree / "elsewhere")
    (tree / "st" / "S1.h5ad").symlink_to(tree / "nowhere")
    pairs = assemble(TREE)
    rows = read_json(pairs.folder / "dropped.json")
    assert rows == [
        ["S1", "samples", "st/ID.h5ad is a link to nothing", 1, 1],
        ["S2", "pictures", "patches/ID.h5 is not there", 1, 1],
        ["S0", "spots", "not in tissue", 2, 8],
        ["S0", "spots", "no patch", 1, 8],
        ["S0", "spots", "fewer counts than 1", 2, 8],
        ["S0", "patches", "no spot has their barcode", 1, 8],
        ["S0", "genes", "control probe, or no name", 1, 7],
    ]
    (section,) = [section for section in pairs.sections if section.sample == "S0"]
    assert section.stop - section.start == 8 - 2 - 1 - 2
    table = tabulate_dropped(pairs.folder).set_index(["what", "reason"])
    assert table.loc[("spots", "not in tissue"), ["lost", "of", "samples", "first"]].tolist() == [2, 8, 1, "S0"]
    assert "checksum holds" in verify(TREE)


@given(data=st.data())
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_spot_vanishes_uncounted(data):
    """Of each sample, the spots that stay and those that are dropped are all that the file has, or it is an error."""
    flags = st.lists(st.booleans(), min_size=8, max_size=8)
    inside, shown, counted = (np.array(data.draw(flags)) for _ in range(3))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        table = counts(8, 7)
        table.X = csr_matrix(table.X.toarray() * counted[:, None] + counted[:, None])
        table.obs["in_tissue"] = inside.astype(int)
        write_sample(Path(folder), ROW, table, pictures(8, 28), 4.0)
        (sample,) = read_samples(Path(folder))
        patch.setattr(sample_files, "patch_barcodes", lambda *_: [f"spot{i}" for i in np.flatnonzero(shown)])
        job = assemble_sample.Job(Path(folder) / "job", sample, TREE)
        write_json(job.folder / assemble_sample.PARTS / "aliases.json", {})
        used, possible = inside & shown & counted, inside & shown
        if used.any() and 2 * used.sum() >= possible.sum():
            found = assemble_sample.count(job)
            assert found["spots"] == used.sum()
            assert found["spots"] + sum(lost for _, what, _, lost, _ in found["dropped"] if what == "spots") == 8
        else:
            with pytest.raises(SealError, match="or loses most of them"):
                assemble_sample.count(job)


def test_barcodes_that_mostly_do_not_match_are_an_error(tree):
    edit_counts(tree, "S0", lambda data: _renamed(data, [*data.obs_names[:2], *(f"x-{i}" for i in range(6))]))
    with pytest.raises(SealError, match="6 of 8 patches: no spot has their barcode") as error:
        assemble(TREE)
    assert "S0" in error.value.what
    assert "'spot0'" in error.value.do


def _renamed(data, names):
    data.obs_names = names
    return data


def test_patches_of_some_spots_alone_are_no_loss(tree):
    """A file that calls the whole array tissue, and patches where there is some: HEST-1k has such samples."""
    counts(40, 7, seed=3).write_h5ad(tree / "st" / "S3.h5ad")
    assert dropped(assemble(TREE))["S3", "spots"] == ("no patch", 32, 40)


def test_most_samples_lost_are_an_error(tree):
    for name in ("S0", "S1", "S3"):
        (tree / "patches" / f"{name}.h5").unlink()
        (tree / "patches" / f"{name}.h5").symlink_to(tree / "unmounted" / f"{name}.h5")
    with pytest.raises(SealError, match="3 of 4 samples in its table") as error:
        assemble(TREE)
    assert "mount" in error.value.do
    for name in ("S0", "S1", "S2", "S3"):
        (tree / "st" / f"{name}.h5ad").unlink()
    with pytest.raises(SealError, match="4 of 4 samples in its table"):
        assemble(TREE)


@pytest.mark.parametrize("suffix", [".tiff", ".png"])
def test_images_of_other_names_are_read(tree, suffix):
    expected = assemble(TREE).n_pairs
    (tree / "patches" / "S0.h5").unlink()
    (tree / "wsis").mkdir()
    Image.fromarray(pictures(1, 1200)[0]).save(tree / "wsis" / f"S0{suffix}")
    pairs = assemble(TREE)
    assert pairs.n_pairs == expected
    assert ("S0", "pictures") not in dropped(pairs)


def test_an_image_of_no_known_format_is_counted(tree):
    (tree / "patches" / "S0.h5").unlink()
    (tree / "wsis").mkdir()
    for name in ("S0.vsi", "S0.b.tif"):
        (tree / "wsis" / name).touch()
    assert dropped(assemble(TREE))["S0", "pictures"] == ("wsis/ID.vsi has no known format", 1, 1)


def test_an_id_with_a_blank_does_not_vanish(tree):
    table = pd.read_csv(tree / "metadata.csv")
    table.loc[table["id"] == "S0", "id"] = "S0 "
    table.to_csv(tree / "metadata.csv", index=False)
    pairs = assemble(TREE)
    there = {section.sample for section in pairs.sections} | {
        name.strip() for name, what in dropped(pairs) if what == "samples"
    }
    assert there == {"S0", "S1", "S2", "S3"}


def test_spots_with_control_probes_alone_are_none(tree):
    sample = read_samples(tree)[0]
    before = assemble(TREE).n_spots
    data = anndata.read_h5ad(sample.st_path)
    data.var_names = ["BLANK-1", *data.var_names[1:]]
    values = data.X.toarray()
    values[3], values[3, 0] = 0, 9
    data.X = csr_matrix(values)
    data.write_h5ad(sample.st_path)
    assert assemble(TREE).n_spots == before - 1


def test_what_is_stale_goes(tree):
    pairs = assemble(TREE)
    partial = pairs.folder.with_name(f".{pairs.folder.name}.000000000000.part")
    partial.mkdir()
    (partial / "patches.npy").write_bytes(b"x")
    write_sample(tree, {**ROW, "id": "S0", "patient": "P0"}, counts(8, 7, seed=9), pictures(8, 28, 9), 4.0)
    other = assemble(TREE)
    assert (other.folder, other.key != pairs.key) == (pairs.folder, True)
    assert other.key != pairs.key
    assert not partial.exists()


def test_a_changed_sample_is_assembled_anew(tree):
    before = assemble(TREE)
    write_sample(tree, {**ROW, "id": "S0", "patient": "P0"}, counts(8, 7, seed=9), pictures(8, 28, 9), 4.0)
    after = assemble(TREE)
    assert after.key != before.key
    np.testing.assert_array_equal(after.patches[0:8], pictures(8, 28, 9))


def test_two_at_once_wait_for_each_other(tree, tmp_path):
    script = tmp_path / "script.py"
    lines = ("from seal.data.assemble import assemble", "from tests.seal.data.test_assemble import TREE")
    script.write_text("\n".join([*lines, "print(assemble(TREE).key)"]))
    environment = {**os.environ, "PYTHONPATH": str(paths.PROJECT)}
    both = [
        subprocess.Popen([sys.executable, script], env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    keys = [process.communicate(timeout=120)[0] for process in both]
    assert keys[0] == keys[1] == assemble(TREE).key + "\n"


@pytest.mark.slow
def test_two_at_once_in_a_new_home(tmp_path):
    """Both make the atlas and its pairs, each in its own time: none dies, and both end in the same."""
    script = tmp_path / "script.py"
    lines = (
        "from seal.data.assemble import assemble",
        "from tests.conftest import SMALL",
        "print(assemble(SMALL).key)",
    )
    script.write_text("\n".join(lines))
    options = {"env": {**os.environ, "PYTHONPATH": str(paths.PROJECT)}, "text": True}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    both = [subprocess.Popen([sys.executable, script], **options, **pipes) for _ in range(2)]
    said = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert said[0][0] == said[1][0]
    assert "free some space" not in said[0][1] + said[1][1]


def test_a_home_that_cannot_be_made_is_one_error(tree, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SEAL_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(SealError, match=r"cannot write .*Not a directory") as error:
        assemble(TREE)
    assert "free some space" not in error.value.do


# ---- no room, bad input ----


def test_no_room_is_said_beforehand(tree, monkeypatch):
    usage = shutil.disk_usage(tree)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(SealError, match=r"0\.0 GB free for .* GB of pairs"):
        assemble(TREE)


def test_a_disk_that_fills_up_is_one_error_and_resumes(tree, monkeypatch):
    written = []

    def pwrite(file, data, place):
        written.append(len(data))
        if len(written) == 4:
            raise OSError(28, "No space left on device")
        return real(file, data, place)

    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(SealError, match="No space left on device") as error:
        assemble(TREE)
    assert "goes on from here" in error.value.do
    monkeypatch.setattr(os, "pwrite", real)
    assert assemble(TREE).n_pairs == 23


def test_a_patch_that_vanished_is_named(tree, monkeypatch):
    whole = sample_files.read_patches
    monkeypatch.setattr(sample_files, "read_patches", lambda *a: (chunk[:-1] for chunk in whole(*a)))
    with pytest.raises(SealError, match=r"S\d: \d of \d rows for patches\.npy"):
        assemble(TREE)


def test_a_sample_without_counts_is_named(tree):
    data = counts(8, 7)
    data.X *= 0
    data.write_h5ad(tree / "st" / "S3.h5ad")
    with pytest.raises(SealError, match="S3 has no spot"):
        assemble(TREE)


def rewrite(tree, name, change):
    data = anndata.read_h5ad(tree / "st" / f"{name}.h5ad")
    change(data)
    data.write_h5ad(tree / "st" / f"{name}.h5ad")


def test_own_columns_called_x_and_y_are_no_positions(tree):
    expected = hashes(assemble(TREE).folder / "folds") | {"": sha256(assemble(TREE).folder / "spots.parquet")}
    shutil.rmtree(folder_of(TREE))

    def add(data):
        data.obs["x"], data.obs["y"], data.obs["sample"], data.obs["has_image"] = 0.0, "left", 7, "perhaps"

    rewrite(tree, "S0", add)
    pairs = assemble(TREE)
    assert hashes(pairs.folder / "folds") | {"": sha256(pairs.folder / "spots.parquet")} == expected


def test_one_sample_with_ids_of_another_naming_is_named(tree):
    rewrite(tree, "S1", lambda data: setattr(data, "var_names", [f"ENSG0000000000{i}" for i in range(data.n_vars)]))
    with pytest.raises(SealError, match=r"sample S1 lists 0 of the panel's 4 genes") as error:
        assemble(profiles.changed(TREE, panel__coverage=0.6))
    assert "SEAL_ALIASES" in error.value.do


def test_columns_of_one_gene_are_summed(tree):
    def double(data):
        data.var_names = [name if i else data.var_names[1].upper() for i, name in enumerate(data.var_names)]

    before = assemble(TREE)
    column = before.genes_counted.index("G1")
    once = before.counts(before.sections[0]).toarray()
    rewrite(tree, "S0", double)
    pairs = assemble(TREE)
    np.testing.assert_array_equal(
        pairs.counts(pairs.sections[0]).toarray()[:, pairs.genes_counted.index("G1")],
        once[:, column] + once[:, before.genes_counted.index("G0")],
    )


def test_a_scale_that_the_pitch_contradicts_is_named(tree):
    table = pd.read_csv(tree / "metadata.csv").assign(inter_spot_dist=[100.0, 50.0, 50.0, 50.0])
    table.to_csv(tree / "metadata.csv", index=False)  # spots are 100 px apart, of 0.5 um
    with pytest.raises(SealError, match="its spots are 50 um apart"):
        assemble(TREE)
    table.assign(inter_spot_dist="50").to_csv(tree / "metadata.csv", index=False)
    assemble(TREE)


def test_an_altered_record_is_refused(tree):
    pairs = assemble(TREE)
    record = json.loads((pairs.folder / "pairs.json").read_text())
    record["sections"][0]["donor"] = "someone else"
    (pairs.folder / "pairs.json").write_text(json.dumps(record))
    with pytest.raises(SealError, match="was altered"):
        read(TREE)


# ---- the given test set ----


def test_folds_that_cannot_be_made_are_told_before_anything_is_counted(tree, monkeypatch):
    """Not after the hours in which the patches are read."""
    monkeypatch.setattr(assemble_sample, "count", lambda *_: pytest.fail("counted first"))
    for changes, named in (({"evaluation__folds": 9}, "only 3 of what"), ({"evaluation__split": "given"}, "'test'")):
        with pytest.raises(SealError, match=named):
            assemble(profiles.changed(TREE, **changes))


def test_a_given_test_set_is_one_fold(tree):
    table = pd.read_csv(tree / "metadata.csv").assign(role=["test", "train", "train", "train"])
    table.to_csv(tree / "metadata.csv", index=False)
    pairs = assemble(profiles.changed(TREE, evaluation__split="given"))
    (fold,) = pairs.folds()
    assert fold.name == "test"
    assert set(pairs.per_spot("sample")[fold.test]) == {"S0"}
    assert panel.load(pairs.folder / "folds" / "test" / "panel.json").donors == ("P1", "P2", "P3")


def test_a_given_test_set_that_shares_a_donor_is_refused(tree):
    table = pd.read_csv(tree / "metadata.csv").assign(role=["test", "train", "train", "train"], patient="P")
    table.to_csv(tree / "metadata.csv", index=False)
    with pytest.raises(SealError, match="would test on donor P and train on other sections"):
        assemble(profiles.changed(TREE, evaluation__split="given"))


def test_no_given_test_set(tree):
    with pytest.raises(SealError, match="no section with patches has the role 'test'"):
        assemble(profiles.changed(TREE, evaluation__split="given"))


# ---- threads, processes, a scheduler ----


@pytest.mark.slow
def test_processes_give_the_same_bytes(tree):
    threads = hashes(assemble(TREE).folder)
    shutil.rmtree(folder_of(TREE))
    before = dict(os.environ)
    assert hashes(assemble(profiles.changed(TREE, compute__assembly="processes")).folder) == threads
    assert dict(os.environ) == before, "what is started later would have one thread"


@pytest.mark.slow
def test_a_scheduler_gives_the_same_bytes(tree, monkeypatch):
    from distributed import LocalCluster

    threads = hashes(assemble(TREE).folder)
    shutil.rmtree(folder_of(TREE))
    with cluster._keep_environment(), LocalCluster(2, threads_per_worker=1, dashboard_address=None) as scheduler:
        monkeypatch.setenv("SEAL_DASK", scheduler.scheduler_address)
        assert hashes(assemble(TREE).folder) == threads


@pytest.mark.slow
def test_an_error_in_a_worker_comes_through_whole(tree):
    (tree / "st" / "S1.h5ad").write_bytes(b"no h5ad")
    with pytest.raises(SealError, match=r"S1\.h5ad cannot be read") as error:
        assemble(profiles.changed(TREE, compute__assembly="processes"))
    assert error.value.do


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense"])
def test_a_scheduler_that_is_not_there(tree, monkeypatch, address):
    monkeypatch.setenv("SEAL_DASK", address)
    monkeypatch.setattr(cluster, "PATIENCE", "1s")
    with pytest.raises(SealError, match=f"SEAL_DASK={address}"):
        assemble(TREE)


def test_a_worker_that_does_not_see_the_folder(tree, tmp_path):
    sample = read_samples(tree)[0]
    job = assemble_sample.Job(tmp_path / "elsewhere", sample, TREE)
    for step in (assemble_sample.count, assemble_sample.place, assemble_sample.write_folds):
        with pytest.raises(SealError, match="does not see"):
            step(job)


def test_expression_alone_has_no_pairs(tmp_path, monkeypatch):
    root = write_tree(tmp_path / "tree")
    shutil.rmtree(root / "patches")
    monkeypatch.setenv("SEAL_HEST", str(root))
    with pytest.raises(SealError, match="has patches"):
        assemble(TREE)


def test_settings_of_the_selection_reach_the_samples(tree, monkeypatch):
    asked, real = [], maple.read_selection
    monkeypatch.setattr(maple, "read_selection", lambda root, settings: asked.append(settings) or real(root, settings))
    assemble(TREE)
    assert asked == [TREE.selection]
