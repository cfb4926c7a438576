"""HEST-1k from a stand-in hub to disk: `hest_hub`, `fetch_plan` and `fetch`."""

import errno
import hashlib
import multiprocessing
import os
import shutil
import signal
import threading
import time
from concurrent.futures import as_completed
from pathlib import Path
from types import SimpleNamespace

import anndata
import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants, hf_api
from huggingface_hub.utils import _headers
from scipy.sparse import csr_matrix

from seal import files, profiles
from seal.data import fetch, fetch_plan, hest_hub, sample_files
from seal.data.samples import read_samples
from seal.errors import SealError
from tests import hub_server
from tests.seal.data.maple.conftest import table

IDS = ("S0", "S1")
SETTINGS = profiles.SelectionSettings(test_organs=1, test_spots=2000)
OURS = ("fetch.json", ".fetch/lock")
DONORS = 8  # so many that some can be left out


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A data set of two samples in HEST-1k's layout, with folders that nobody asks for."""
    root = tmp_path_factory.mktemp("hub")
    rows = table(*[{"pixel_size_um_estimated": 0.5, "oncotree_code": "", "patient": f"P{i}"} for i in range(DONORS)])
    rows.to_csv(root / "HEST_v1_1_0.csv", index=False)
    rows.iloc[:1].to_csv(root / "HEST_v1_0_2.csv", index=False)
    random = np.random.default_rng(0)
    for row in rows.iloc[: len(IDS)].to_dict("records"):
        data = anndata.AnnData(csr_matrix(random.poisson(2.0, size=(4, 5)).astype(np.float32)))
        data.obs_names, data.var_names = [f"spot{i}" for i in range(4)], [f"G{i}" for i in range(5)]
        for name in sample_files.OBS:
            data.obs[name] = np.arange(4)
        data.obsm["spatial"] = np.zeros((4, 2))
        patches = random.integers(0, 255, (4, 32, 32, 3), dtype=np.uint8)
        sample_files.write_files(root, row, data, patches, 3.5)
        for folder, suffix in (("wsis", "tif"), ("thumbnails", "jpeg"), ("cellvit_seg", "zip")):
            (root / folder).mkdir(exist_ok=True)
            (root / folder / f"{row['id']}.{suffix}").write_bytes(random.bytes(9000))
    return root


@pytest.fixture
def faults() -> hub_server.Faults:
    return hub_server.Faults(token="hf_secret")


@pytest.fixture
def hub(tree, faults, monkeypatch):
    """The stand-in in place of the hub; no wait is long."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(hest_hub, "WAITS", (0.01,) * 5)
    with hub_server.serve(tree, faults) as url:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        yield url


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "hest"


def same(root: Path, tree: Path, paths) -> bool:
    return all((root / path).read_bytes() == (tree / path).read_bytes() for path in paths)


def sample_paths(id: str, slides: bool = False) -> list[str]:
    paths = [f"st/{id}.h5ad", f"patches/{id}.h5", f"metadata/{id}.json"]
    return [*paths, f"wsis/{id}.tif"] if slides else paths


def in_folder(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


# --- the way --------------------------------------------------------------------------------------------------


def test_what_is_planned_is_fetched_and_read(hub, tree, root, faults):
    plan = fetch.plan(IDS, root)
    wanted = {"HEST_v1_1_0.csv", *sample_paths("S0"), *sample_paths("S1")}
    assert {planned.file.path for planned in plan.files} == wanted
    assert plan.size == plan.missing == sum((tree / path).stat().st_size for path in wanted)
    assert not root.exists()  # a plan writes nothing
    fetch.fetch(plan)
    assert in_folder(root) == {*wanted, *OURS}
    assert same(root, tree, wanted)
    assert sorted(faults.fetched()) == sorted(wanted)  # each once
    sample, _ = read_samples(root, SETTINGS)
    assert sample_files.read_counts(sample).n_obs == 4
    assert sample_files.patch_barcodes(sample) == [f"spot{i}" for i in range(4)]
    again = fetch.plan(IDS, root)
    assert again.missing == 0
    assert {planned.state for planned in again.files} == {fetch_plan.WHOLE}
    faults.asked.clear()
    fetch.fetch(again)
    assert faults.fetched() == []


def test_one_sample_with_its_slide(hub, tree, root):
    fetch.fetch(fetch.plan(["S1", "S1"], root, slides=True), workers=1)
    assert in_folder(root) == {"HEST_v1_1_0.csv", *OURS, *sample_paths("S1", slides=True)}


def test_the_hubs_own_client_lists_and_fetches_the_same(hub, tree, root, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub + "/{repo_id}/resolve/{revision}/{filename}")
    api = huggingface_hub.HfApi(endpoint=hub)
    listed = {
        entry.path: (entry.size, f"sha256:{entry.lfs.sha256}" if entry.lfs else f"git:{entry.blob_id}")
        for entry in api.list_repo_tree(hest_hub.REPOSITORY, repo_type="dataset", recursive=True)
        if isinstance(entry, hf_api.RepoFile)
    }
    plan = fetch.plan(IDS, root, slides=True)
    assert plan.commit == api.dataset_info(hest_hub.REPOSITORY).sha
    for planned in plan.files:
        assert listed[planned.file.path] == (planned.file.size, planned.file.checksum)
    for path in ("patches/S0.h5", "HEST_v1_1_0.csv"):
        options = {"repo_type": "dataset", "local_dir": tmp_path / "theirs"}
        theirs = huggingface_hub.hf_hub_download(hest_hub.REPOSITORY, path, **options)
        assert Path(theirs).read_bytes() == (tree / path).read_bytes()


def test_maples_samples_are_selected_from_the_hubs_table(hub, root):
    assert fetch.maple_ids(root, SETTINGS) == [f"S{i}" for i in range(DONORS)]
    assert in_folder(root) == {"HEST_v1_1_0.csv", *OURS}


def test_a_table_of_ones_own_is_not_mistaken_for_hests(hub, root):
    root.mkdir()
    (root / "metadata.csv").write_text("id\nX\n")
    with pytest.raises(SealError, match=r"metadata\.csv is not HEST-1k's table"):
        fetch.maple_ids(root, SETTINGS)


def test_the_newest_table_is_that_of_the_highest_version(tree, tmp_path, monkeypatch):
    shutil.copytree(tree, tmp_path / "hub")
    shutil.copy(tree / "HEST_v1_1_0.csv", tmp_path / "hub" / "HEST_v1_10_0.csv")
    with hub_server.serve(tmp_path / "hub") as url:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        assert hest_hub.table(hest_hub.commit()).path == "HEST_v1_10_0.csv"


def test_many_paths_are_asked_for_in_turn(hub, monkeypatch, faults):
    at = hest_hub.commit()
    whole = hest_hub.files([*sample_paths("S0"), "st/none.h5ad", *sample_paths("S1")], at)
    assert list(whole) == [*sample_paths("S0"), *sample_paths("S1")]
    monkeypatch.setattr(hest_hub, "LISTED", 2)
    faults.asked.clear()
    assert hest_hub.files([*sample_paths("S0"), "st/none.h5ad", *sample_paths("S1")], at) == whole
    assert len(faults.asked) == 4


def test_the_token_reaches_the_hub_and_no_other_host(hub, root, faults):
    fetch.fetch(fetch.plan(["S0"], root))
    assert {bool(authorization) for _, path, _, authorization in faults.asked if path.startswith("/large/")} == {False}
    assert {a for _, path, _, a in faults.asked if not path.startswith("/large/")} == {"Bearer hf_secret"}
    assert "hf_secret" not in (root / "fetch.json").read_text()


# --- the commit -----------------------------------------------------------------------------------------------


@pytest.fixture
def two(tree, tmp_path, monkeypatch):
    """A hub whose branch main went on after `old`: S0's counts changed, and its patches at the same size."""
    newer = tmp_path / "newer"
    shutil.copytree(tree, newer)
    (newer / "st" / "S0.h5ad").write_bytes(b"newer counts")
    patches = newer / "patches" / "S0.h5"
    patches.write_bytes(patches.read_bytes()[:-1] + b"x")
    with hub_server.serve({"main": newer, "old": tree}) as url:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        yield SimpleNamespace(old=tree, newer=newer)


def test_later_fetches_stay_at_the_first_commit(two, root):
    fetch.fetch(fetch.plan(["S0"], root, revision="old"))
    plan = fetch.plan(IDS, root)  # main went on, and nobody asked for that
    assert plan.commit == hest_hub.commit("old") != hest_hub.commit()
    fetch.fetch(plan)
    assert same(root, two.old, [*sample_paths("S0"), *sample_paths("S1")])


def test_another_commit_when_asked_for_takes_the_whole_tree_along(two, root):
    fetch.fetch(fetch.plan(IDS, root, revision="old"))
    plan = fetch.plan(["S1"], root, revision="main")
    assert plan.missing == len(b"newer counts")  # S0's, though only S1 was named
    fetch.fetch(plan)
    assert same(root, two.newer, [*sample_paths("S0"), *sample_paths("S1")])
    record = files.read_json(root / "fetch.json")
    assert record["revision"] == hest_hub.commit()
    assert {entry["revision"] for entry in record["files"].values()} == {record["revision"]}


def test_maples_selection_at_another_commit_takes_the_table_alone(two, root):
    fetch.fetch(fetch.plan(IDS, root, revision="old"))
    assert fetch.maple_ids(root, SETTINGS, revision="main") == [f"S{i}" for i in range(DONORS)]
    assert same(root, two.old, sample_paths("S0"))
    fetch.fetch(fetch.plan(["S1"], root))  # main is the tree's commit now, and the samples come after
    assert same(root, two.newer, [*sample_paths("S0"), *sample_paths("S1")])


def test_what_grew_at_another_commit_goes_and_what_can_be_taken_up_stays(two, root):
    plan = fetch.plan(IDS, root, revision="old")
    counts = {p.file.path: fetch_plan.part(root, p.file) for p in plan.files if p.file.path.startswith("st/")}
    (root / ".fetch").mkdir(parents=True)
    for grown in counts.values():
        grown.write_bytes(b"abc")
    fetch.maple_ids(root, SETTINGS, revision="main")
    assert all(grown.exists() for grown in counts.values())
    fetch.fetch(fetch.plan(["S0"], root))
    assert not counts["st/S0.h5ad"].exists()
    assert counts["st/S1.h5ad"].exists()


def test_the_lock_stays_for_whoever_opened_it(hub, root):
    fetch.fetch(fetch.plan([], root))
    lock = root / ".fetch" / "lock"
    before = lock.stat().st_ino
    fetch.fetch(fetch.plan(["S0"], root))
    assert lock.stat().st_ino == before


def test_an_unknown_revision_is_named(hub, root):
    with pytest.raises(SealError, match="no revision 'v9'"):
        fetch.plan(IDS, root, revision="v9")


# --- what is there --------------------------------------------------------------------------------------------


def test_a_copy_is_verified_and_used(hub, tree, root, faults):
    shutil.copytree(tree / "st", root / "st")
    shutil.copytree(tree / "patches", root / "patches")
    damaged = root / "patches" / "S1.h5"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    plan = fetch.plan(IDS, root)
    states = {planned.file.path: planned.state for planned in plan.files}
    assert states["patches/S1.h5"] == states["st/S0.h5ad"] == fetch_plan.UNVERIFIED
    assert states["metadata/S0.json"] == fetch_plan.ABSENT
    fetch.fetch(plan)
    assert sorted(faults.fetched(".h5")) == ["patches/S1.h5"]
    assert faults.fetched(".h5ad") == []
    assert same(root, tree, [*sample_paths("S0"), *sample_paths("S1")])


def test_check_reads_everything_again(hub, tree, root, faults):
    fetch.fetch(fetch.plan(IDS, root))
    damaged = root / "st" / "S0.h5ad"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    faults.asked.clear()
    fetch.fetch(fetch.plan(IDS, root))
    assert faults.fetched() == []  # of the right size, and verified earlier
    fetch.fetch(fetch.plan(IDS, root), check=True)
    assert faults.fetched() == ["st/S0.h5ad"]
    assert same(root, tree, ["st/S0.h5ad"])


def test_a_file_that_lost_its_end_is_fetched_again(hub, tree, root, faults):
    fetch.fetch(fetch.plan(IDS, root))
    cut = root / "patches" / "S0.h5"
    cut.write_bytes(cut.read_bytes()[:-1])
    faults.asked.clear()
    fetch.fetch(fetch.plan(IDS, root))
    assert faults.fetched() == ["patches/S0.h5"]
    assert same(root, tree, ["patches/S0.h5"])


@pytest.mark.parametrize("content", [b"", b"x", b"abc" * 1000])
def test_checksums_are_those_of_git_and_of_sha256(tmp_path, content):
    path = tmp_path / "x"
    path.write_bytes(content)
    for checksum in (f"git:{hub_server.blob(content)}", f"sha256:{hashlib.sha256(content).hexdigest()}"):
        file = hest_hub.HubFile("x", len(content), checksum)
        path.write_bytes(content)
        assert fetch_plan.verified(path, file)
        path.write_bytes(content[:-1] + b"y")
        assert not fetch_plan.verified(path, file)


# --- what goes wrong on the way -------------------------------------------------------------------------------


def test_a_cut_connection_is_taken_up_where_it_broke(hub, tree, root, faults):
    faults.cut, faults.cuts = {"patches/S0.h5": 1500, "metadata/S0.json": 20}, 8  # more often than it waits
    fetch.fetch(fetch.plan(["S0"], root), workers=1)
    assert same(root, tree, sample_paths("S0"))
    ranges = [r for _, path, r, _ in faults.asked if path.startswith("/large/") and path.endswith("S0.h5")]
    assert ranges[:3] == [None, "bytes=1500-", "bytes=3000-"]


def test_a_server_that_cannot_go_on_in_the_middle_begins_again(hub, tree, root, faults):
    faults.cut, faults.cuts, faults.no_ranges = {"patches/S0.h5": 5000}, 1, True
    fetch.fetch(fetch.plan(["S0"], root))
    assert same(root, tree, sample_paths("S0"))
    assert len(faults.fetched("S0.h5")) == 2


def test_a_truncated_answer_is_never_taken_for_whole(hub, root, faults):
    faults.short = {"patches/S0.h5": 7000}
    with pytest.raises(SealError, match=r"patches/S0\.h5.*ends after 7000 of") as caught:
        fetch.fetch(fetch.plan(["S0"], root))
    assert "goes on from there" in caught.value.do
    assert not (root / "patches" / "S0.h5").exists()
    faults.short = {}
    plan = fetch.plan(["S0"], root)
    assert next(p.there for p in plan.files if p.file.path == "patches/S0.h5") == 7000
    fetch.fetch(plan)
    assert fetch.plan(["S0"], root).missing == 0


@pytest.mark.parametrize("path", ["patches/S0.h5", "metadata/S0.json"])
def test_an_altered_file_is_refused(hub, tree, root, faults, path):
    faults.altered = {path}
    with pytest.raises(SealError, match=f"{path}.*another checksum"):
        fetch.fetch(fetch.plan(["S0"], root))
    assert len(faults.fetched(path)) == 2
    assert not (root / path).exists()
    assert path not in files.read_json(root / "fetch.json")["files"]
    faults.altered = set()
    fetch.fetch(fetch.plan(["S0"], root))
    assert same(root, tree, sample_paths("S0"))


def test_what_grew_wrong_is_fetched_once_more_from_its_beginning(hub, tree, root):
    plan = fetch.plan(["S0"], root)
    file = next(p.file for p in plan.files if p.file.path == "patches/S0.h5")
    grown = fetch_plan.part(root, file)
    grown.parent.mkdir(parents=True)
    grown.write_bytes(b"not its beginning")
    fetch.fetch(plan)
    assert same(root, tree, sample_paths("S0"))


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_hub_is_asked_again(hub, tree, root, faults, status):
    faults.busy = [status] * 3
    plan = fetch.plan(["S0"], root)
    faults.busy = [status] * 4
    fetch.fetch(plan, workers=1)
    assert same(root, tree, sample_paths("S0"))


def test_a_hub_that_stays_busy_is_named(hub, root, faults):
    plan = fetch.plan(["S0"], root)
    faults.busy = [503] * 100
    with pytest.raises(SealError, match="the hub answered 503"):
        fetch.fetch(plan)
    with pytest.raises(SealError, match="the hub answered 503"):
        fetch.plan(["S0"], root)


def test_a_silent_hub_is_given_up(hub, root, faults, monkeypatch):
    monkeypatch.setattr(hest_hub, "TIMEOUT", 0.05)
    faults.delay = 0.4
    with pytest.raises(SealError, match="cannot be reached"):
        fetch.plan(["S0"], root)


def test_files_of_the_same_content_do_not_meet_on_the_way(tree, root, tmp_path, monkeypatch):
    twins = tmp_path / "hub"
    shutil.copytree(tree, twins)
    for mine, other in zip(sample_paths("S1"), sample_paths("S0"), strict=True):
        shutil.copy(twins / other, twins / mine)
    with hub_server.serve(twins, hub_server.Faults(pause=0.01)) as url:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        fetch.fetch(fetch.plan(IDS, root))
    assert same(root, twins, [*sample_paths("S0"), *sample_paths("S1")])


# --- what is refused ------------------------------------------------------------------------------------------


def test_no_token(hub, root, monkeypatch):
    monkeypatch.setattr(_headers, "get_token", lambda: None)
    with pytest.raises(SealError, match="no valid token") as caught:
        fetch.plan(IDS, root)
    assert "hf auth login" in caught.value.do
    assert hest_hub.ADDRESS in caught.value.do


def test_no_access_says_where_to_ask(hub, root, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(SealError, match="no access") as caught:
        fetch.plan(IDS, root)
    assert "ask for access at https://huggingface.co/datasets/MahmoodLab/hest" in caught.value.do
    assert "hf_other" not in f"{caught.value} {caught.value.__cause__}"


def test_access_that_ends_on_the_way_ends_the_fetch(hub, root, faults, monkeypatch):
    plan = fetch.plan(IDS, root)
    monkeypatch.setattr(fetch, "as_completed", lambda jobs: time.sleep(0.5) or as_completed(jobs))  # a busy machine
    faults.token = "hf_new"
    with pytest.raises(SealError, match="no access"):
        fetch.fetch(plan, workers=2)
    assert len(faults.fetched()) <= 2  # no retries, and the rest is not tried


def test_one_files_error_ends_the_others_at_once(hub, root, faults):
    plan = fetch.plan(["S0"], root)
    faults.altered, faults.pause = {"metadata/S0.json"}, 0.6  # the patches take four pieces, 2.4 s
    began = time.monotonic()
    with pytest.raises(SealError, match=r"metadata/S0\.json"):
        fetch.fetch(plan)
    assert time.monotonic() - began < 2.2


def test_no_network(root, monkeypatch):
    monkeypatch.setattr(hest_hub, "WAITS", (0.01,) * 5)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SealError, match="cannot be reached"):
        fetch.plan(IDS, root)


def test_offline_is_not_tried_again(hub, root, monkeypatch):
    monkeypatch.setattr(hest_hub, "WAITS", (30.0,) * 5)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SealError, match="cannot be reached") as caught:
        fetch.plan(IDS, root)
    assert "HF_HUB_OFFLINE" in caught.value.do


def test_an_unknown_sample_is_named(hub, root):
    with pytest.raises(SealError, match="no sample 'TENX0'"):
        fetch.plan([*IDS, "TENX0"], root)


def test_samples_that_lack_files_are_named_together_and_can_be_skipped(tree, root, tmp_path, monkeypatch):
    lame = tmp_path / "hub"
    shutil.copytree(tree, lame)
    shutil.copy(tree / "st" / "S0.h5ad", lame / "st" / "S2.h5ad")
    (lame / "patches" / "S1.h5").unlink()
    ids = [*IDS, "S2", "S3"]  # of S3 there is nothing
    with hub_server.serve(lame) as url:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        said = r"no patches/S1\.h5; no patches/S2\.h5, metadata/S2\.json; no sample 'S3'"
        with pytest.raises(SealError, match=said) as caught:
            fetch.plan(ids, root)
        assert "python -m seal fetch --skip S1 S2 S3" in caught.value.do
        plan = fetch.plan(ids, root, skip=["S3", "S1", "S2"])
        assert plan.samples == ("S0",)
        fetch.fetch(plan)
    assert same(root, tree, sample_paths("S0"))


def test_a_sample_to_skip_must_be_among_those_to_fetch(hub, root):
    with pytest.raises(SealError, match="--skip names TENX0,"):
        fetch.plan(IDS, root, skip=["S0", "TENX0"])


def test_a_data_set_without_a_table(tmp_path, root, monkeypatch):
    (tmp_path / "hub" / "st").mkdir(parents=True)
    (tmp_path / "hub" / "st" / "S0.h5ad").write_bytes(b"x")
    with hub_server.serve(tmp_path / "hub") as url:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        with pytest.raises(SealError, match="no metadata table"):
            fetch.plan(["S0"], root)


def test_space_is_looked_at_before(hub, tree, root, monkeypatch, faults):
    plan = fetch.plan(IDS, root)
    usage = SimpleNamespace(free=plan.size - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(SealError, match="free for"):
        fetch.fetch(plan)
    assert faults.fetched() == []
    file = next(p.file for p in plan.files if p.file.path == "patches/S0.h5")
    grown = fetch_plan.part(root, file)
    grown.write_bytes((tree / file.path).read_bytes()[:1])  # what came earlier needs no room
    fetch.fetch(plan)
    assert same(root, tree, [file.path])


def test_a_disk_that_fills_up_on_the_way(hub, root, monkeypatch):
    plan = fetch.plan(IDS, root)

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fetch._Fetch, "_append", full)
    with pytest.raises(SealError, match="the disk is full") as caught:
        fetch.fetch(plan)
    assert "SEAL_HEST" in caught.value.do


@pytest.mark.parametrize("place", ["st", "patches/S0.h5"])
def test_what_is_in_the_way_is_named(hub, root, place):
    plan = fetch.plan(IDS, root)
    (root / place).parent.mkdir(parents=True)
    if place == "st":
        (root / place).write_text("a file")
    else:
        (root / place).mkdir()
    with pytest.raises(SealError, match=f"{place} is in the way") as caught:
        fetch.fetch(plan)
    assert "move it away" in caught.value.do


def test_a_disk_too_full_for_a_name_more(hub, root, monkeypatch):
    plan = fetch.plan(IDS, root)

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "touch", full)
    with pytest.raises(SealError, match=r"cannot read or write \S+\.(csv|h5|h5ad|json): the disk is full"):
        fetch.fetch(plan)


def test_a_disk_that_cannot_be_read(hub, root, monkeypatch):
    fetch.fetch(fetch.plan(IDS, root))

    def damaged(path, file):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fetch, "verified", damaged)
    with pytest.raises(SealError, match=r"cannot read or write \S+\.(csv|h5|h5ad|json): the disk fails \(Input"):
        fetch.fetch(fetch.plan(IDS, root), check=True)


@pytest.mark.parametrize("name", ["write_json", "fcntl.flock"])
def test_a_disk_that_fails_apart_from_any_file(hub, root, monkeypatch, name):
    plan = fetch.plan(IDS, root)

    def failing(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(f"seal.data.fetch.{name}", failing)
    with pytest.raises(SealError, match=r"cannot read or write .*: No locks available"):
        fetch.fetch(plan)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(hub, root):
    root.mkdir()
    plan = fetch.plan(IDS, root)
    root.chmod(0o500)
    with pytest.raises(SealError, match="cannot be written to"):
        fetch.fetch(plan)
    root.chmod(0o700)


def test_a_file_in_the_folders_place(hub, root):
    plan = fetch.plan(IDS, root / "below")
    root.write_text("a file")
    with pytest.raises(SealError, match="cannot be written to"):
        fetch.fetch(plan)


def test_workers_must_be_some(hub, root):
    with pytest.raises(SealError, match="0 workers"):
        fetch.fetch(fetch.plan(IDS, root), workers=0)


# --- killed, and two at once ----------------------------------------------------------------------------------


def slow_fetch(root: Path, ids) -> None:
    fetch.fetch(fetch.plan(ids, root), workers=2)


def test_a_killed_fetch_goes_on_where_it_stopped(hub, tree, root, faults):
    faults.pause = 0.1
    process = multiprocessing.get_context("fork").Process(target=slow_fetch, args=(root, IDS))
    process.start()
    big = [path for path in in_folder(tree) if path.startswith(("st/", "patches/"))]

    def grown() -> int:
        return sum(path.stat().st_size for path in (root / ".fetch").glob("*.part"))

    until = time.monotonic() + 20
    while grown() < 12000 and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert grown() >= 12000
    for path in big:  # whatever is in its place is whole
        assert not (root / path).exists() or same(root, tree, [path])
    faults.pause = 0.0
    plan = fetch.plan(IDS, root)
    assert plan.missing <= plan.size - 12000
    faults.asked.clear()
    fetch.fetch(plan)
    assert any(wanted for _, path, wanted, _ in faults.asked if path.startswith("/large/"))
    assert same(root, tree, [*sample_paths("S0"), *sample_paths("S1")])


def test_two_fetches_at_once_are_one_too_many(hub, tree, root, faults):
    faults.pause = 0.02
    plan = fetch.plan(IDS, root)
    first = threading.Thread(target=fetch.fetch, args=(plan,))
    first.start()
    until = time.monotonic() + 10
    while not (root / "fetch.json").exists() and time.monotonic() < until:
        time.sleep(0.01)
    with pytest.raises(SealError, match="another fetch is at work"):
        fetch.fetch(plan)
    first.join()
    assert same(root, tree, [*sample_paths("S0"), *sample_paths("S1")])
