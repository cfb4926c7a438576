"""HEST-1k from a stand-in hub to disk."""

import errno
import multiprocessing
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import anndata
import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import _headers, _http
from scipy.sparse import csr_matrix

from seal import files, profiles
from seal.data import fetch, sample_files
from seal.data.samples import read_samples
from seal.data.sources import hest
from seal.errors import SealError
from tests import hub_server
from tests.seal.data.maple.conftest import table

IDS = ("S0", "S1")
SETTINGS = profiles.SelectionSettings(test_organs=1, test_spots=2000)
TABLES = ["HEST_v1_0_2.csv", "HEST_v1_1_0.csv"]
OURS = ("fetch.json", ".fetch.json.lock")
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
        data.obsm["spatial"] = data.obs[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy()
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
    """The stand-in in place of the hub."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with hub_server.serve(tree, faults) as url:
        yield url


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "hest"


def same(root: Path, tree: Path, paths) -> bool:
    return all((root / path).read_bytes() == (tree / path).read_bytes() for path in paths)


def sample_paths(id: str, slides: bool = False) -> list[str]:
    paths = [f"st/{id}.h5ad", f"patches/{id}.h5", f"metadata/{id}.json"]
    return [*paths, f"wsis/{id}.tif"] if slides else paths


def flip_a_byte(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))


def in_folder(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


# --- the way --------------------------------------------------------------------------------------------------


def test_what_is_planned_is_fetched_and_read(hub, tree, root, faults):
    plan = fetch.plan(IDS, root)
    wanted = {*TABLES, *sample_paths("S0"), *sample_paths("S1")}
    assert set(plan.paths) == plan.absent() == wanted
    assert plan.gb(plan.paths) == sum((tree / path).stat().st_size for path in wanted) / 1e9
    assert not root.exists()  # a plan writes nothing
    fetch.fetch(plan)
    assert in_folder(root) == {*wanted, *OURS}
    assert same(root, tree, wanted)
    assert faults.fetched() == sorted(wanted)  # each once
    sample, _ = read_samples(root, hest.select_rows(profiles.get("maple", selection=SETTINGS), root))
    assert sample_files.read_counts(sample).n_obs == 4
    assert sample_files.patch_barcodes(sample) == [f"spot{i}" for i in range(4)]
    again = fetch.plan(IDS, root)
    assert again.absent() == set()
    assert "0 GB to fetch" in str(again)
    faults.asked.clear()
    fetch.fetch(again)
    assert faults.asked == []


def test_one_sample_with_its_slide(hub, tree, root):
    fetch.fetch(fetch.plan(["S1", "S1"], root, slides=True), workers=1)
    assert in_folder(root) == {*TABLES, *OURS, *sample_paths("S1", slides=True)}


def test_maples_samples_are_selected_from_the_newest_table(hub, root):
    assert fetch.maple_ids(root, SETTINGS) == [f"S{i}" for i in range(DONORS)]
    assert in_folder(root) == {*TABLES, *OURS}


def test_a_table_of_ones_own_is_not_mistaken_for_hests(hub, root):
    root.mkdir()
    (root / "metadata.csv").write_text("id\nX\n")
    with pytest.raises(SealError, match=r"metadata\.csv is not HEST-1k's table"):
        fetch.maple_ids(root, SETTINGS)


def test_the_token_reaches_the_hub_and_no_other_host(hub, root, faults, capfd):
    fetch.fetch(fetch.plan(["S0"], root))
    assert {bool(authorization) for _, path, authorization in faults.asked if path.startswith("/large/")} == {False}
    assert {a for _, path, a in faults.asked if not path.startswith("/large/")} == {"Bearer hf_secret"}
    assert "hf_secret" not in (root / "fetch.json").read_text() + "".join(capfd.readouterr())


def test_a_hub_that_says_when_to_come_again_is_asked_then(hub, tree, root, faults, monkeypatch):
    slept = []
    monkeypatch.setattr(_http, "time", SimpleNamespace(sleep=slept.append))
    faults.limited = 2
    plan = fetch.plan(["S0"], root)
    assert slept == [8.0, 8.0], "7 seconds, and one of the client's own"
    faults.limited = 2
    fetch.fetch(plan)
    assert slept == [8.0] * 4
    assert same(root, tree, sample_paths("S0"))


def test_two_processes_fetch_into_one_folder(tree, root, faults, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    faults.slow = 0.2
    with hub_server.serve(tree, faults) as url:
        context = multiprocessing.get_context("spawn")
        both = [context.Process(target=_fetch_there, args=(url, root, name)) for name in IDS]
        for process in both:
            process.start()
        for process in both:
            process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert same(root, tree, [*sample_paths("S0"), *sample_paths("S1")])
    assert not (root / fetch.PARTS).exists()


def _fetch_there(url: str, root: Path, name: str) -> None:
    hub_server.send_client_to(pytest.MonkeyPatch(), url)
    fetch.fetch(fetch.plan([name], root))


# --- the commit -----------------------------------------------------------------------------------------------


@pytest.fixture
def two(tree, tmp_path):
    """A hub whose branch main went on after `old`: S0's counts changed, and its patches at the same size."""
    newer = tmp_path / "newer"
    shutil.copytree(tree, newer)
    (newer / "st" / "S0.h5ad").write_bytes(b"newer counts")
    flip_a_byte(newer / "patches" / "S0.h5")
    faults = hub_server.Faults()
    with hub_server.serve({"main": newer, "old": tree}, faults):
        commits = {"old": hub_server.Tree(tree).commit, "main": hub_server.Tree(newer).commit}
        yield SimpleNamespace(old=tree, newer=newer, commits=commits, faults=faults)


def test_later_fetches_stay_at_the_first_commit(two, root):
    fetch.fetch(fetch.plan(["S0"], root, revision="old"))
    plan = fetch.plan(IDS, root)  # main went on, and nobody asked for that
    assert plan.commit == two.commits["old"]
    fetch.fetch(plan)
    assert same(root, two.old, [*sample_paths("S0"), *sample_paths("S1")])


def test_another_commit_when_asked_for_takes_the_whole_tree_along(two, root):
    fetch.fetch(fetch.plan(IDS, root, revision="old"))
    two.faults.asked.clear()
    fetch.fetch(fetch.plan(["S1"], root, revision="main"))
    assert two.faults.fetched() == ["patches/S0.h5", "st/S0.h5ad"]  # S0's, though only S1 was named
    assert same(root, two.newer, [*sample_paths("S0"), *sample_paths("S1")])
    assert files.read_json(root / "fetch.json")["revision"] == two.commits["main"]


def test_killed_on_the_way_to_another_commit_a_tree_is_still_of_one(two, root, monkeypatch):
    fetch.fetch(fetch.plan(IDS, root, revision="old"))
    with monkeypatch.context() as patch:
        patch.setattr(fetch, "_settle", lambda plan: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fetch.fetch(fetch.plan(["S1"], root, revision="main"))
    fetch.fetch(fetch.plan(["S1"], root))  # of no commit now, so it is verified: the newest is taken
    assert same(root, two.newer, [*sample_paths("S0"), *sample_paths("S1")])


def test_what_came_of_another_commit_is_not_taken_for_this_one(two, root, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(fetch, "_settle", lambda plan: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fetch.fetch(fetch.plan(["S0"], root, revision="old"))
    fetch.fetch(fetch.plan(["S1"], root, revision="main"))
    fetch.fetch(fetch.plan(["S0"], root))
    assert same(root, two.newer, [*sample_paths("S0"), *sample_paths("S1")])


def test_an_unknown_revision_is_named(hub, root):
    with pytest.raises(SealError, match="revision v9: the hub answered 404"):
        fetch.plan(IDS, root, revision="v9")


# --- what is there --------------------------------------------------------------------------------------------


def test_a_copy_is_verified_and_used(hub, tree, root, faults):
    shutil.copytree(tree / "st", root / "st")
    shutil.copytree(tree / "patches", root / "patches")
    flip_a_byte(root / "patches" / "S1.h5")
    fetch.fetch(fetch.plan(IDS, root))
    assert faults.fetched() == [*TABLES, "metadata/S0.json", "metadata/S1.json", "patches/S1.h5"]
    assert same(root, tree, [*sample_paths("S0"), *sample_paths("S1")])


@pytest.mark.parametrize("path", ["st/S0.h5ad", "metadata/S0.json"])  # one known by SHA-256, one by git's hash
def test_check_reads_everything_again(hub, tree, root, faults, path):
    fetch.fetch(fetch.plan(IDS, root))
    flip_a_byte(root / path)
    faults.asked.clear()
    fetch.fetch(fetch.plan(IDS, root))
    assert faults.fetched() == []  # of the right size, and verified earlier
    fetch.fetch(fetch.plan(IDS, root), check=True)
    assert faults.fetched() == [path]
    assert same(root, tree, [path])


def test_a_file_that_lost_its_end_is_fetched_again(hub, tree, root, faults):
    fetch.fetch(fetch.plan(IDS, root))
    cut = root / "patches" / "S0.h5"
    cut.write_bytes(cut.read_bytes()[:-1])
    faults.asked.clear()
    fetch.fetch(fetch.plan(IDS, root))
    assert faults.fetched() == ["patches/S0.h5"]
    assert same(root, tree, ["patches/S0.h5"])


# --- what goes wrong on the way -------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["patches/S0.h5", "metadata/S0.json"])
def test_an_altered_file_is_refused(hub, tree, root, faults, path):
    faults.altered = {path}
    with pytest.raises(SealError, match=f"{path}.*another checksum"):
        fetch.fetch(fetch.plan(["S0"], root))
    assert faults.fetched().count(path) == 2
    assert not (root / path).exists()
    faults.altered = set()
    faults.asked.clear()
    fetch.fetch(fetch.plan(["S0"], root))
    assert faults.fetched() == [path]
    assert same(root, tree, sample_paths("S0"))


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_hub_is_named(hub, root, faults, status):
    plan = fetch.plan(["S0"], root)
    faults.busy = status
    with pytest.raises(SealError, match=f"the hub answered {status}"):
        fetch.fetch(plan)
    faults.busy, faults.refused = None, {fetch.REPOSITORY: (status, "")}
    with pytest.raises(SealError, match=f"the hub answered {status}"):
        fetch.plan(["S0"], root)


def test_a_silent_hub_is_given_up(hub, root, faults, monkeypatch):
    monkeypatch.setattr(fetch, "TIMEOUT", 0.05)
    faults.delay = 0.4
    with pytest.raises(SealError, match="cannot be reached"):
        fetch.plan(["S0"], root)


def test_files_of_the_same_content_do_not_meet_on_the_way(tree, root, tmp_path):
    twins = tmp_path / "hub"
    shutil.copytree(tree, twins)
    for mine, other in zip(sample_paths("S1"), sample_paths("S0"), strict=True):
        shutil.copy(twins / other, twins / mine)
    with hub_server.serve(twins):
        fetch.fetch(fetch.plan(IDS, root))
    assert same(root, twins, [*sample_paths("S0"), *sample_paths("S1")])


# --- what is refused ------------------------------------------------------------------------------------------


def test_no_token(hub, root, monkeypatch):
    monkeypatch.setattr(_headers, "get_token", lambda: None)
    with pytest.raises(SealError, match="no valid token") as caught:
        fetch.plan(IDS, root)
    assert "hf auth login" in caught.value.do
    assert fetch.ADDRESS in caught.value.do


def test_no_access_says_where_to_ask(hub, root, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(SealError, match="no access") as caught:
        fetch.plan(IDS, root)
    assert "ask for access at https://huggingface.co/datasets/MahmoodLab/hest" in caught.value.do
    assert "hf_other" not in f"{caught.value} {caught.value.__cause__}"


def test_access_that_ends_on_the_way_ends_the_fetch(hub, root, faults):
    plan = fetch.plan(IDS, root)
    faults.token = "hf_new"
    with pytest.raises(SealError, match="no access"):
        fetch.fetch(plan, workers=2)
    assert faults.fetched() == []


def test_no_network(root, monkeypatch):
    hub_server.send_client_to(monkeypatch, "http://127.0.0.1:9")
    with pytest.raises(SealError, match="cannot be reached"):
        fetch.plan(IDS, root)


def test_offline(hub, root, monkeypatch):
    plan = fetch.plan(IDS, root)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for ask in (lambda: fetch.plan(IDS, root), lambda: fetch.fetch(plan)):
        with pytest.raises(SealError, match="cannot be reached") as caught:
            ask()
        assert "HF_HUB_OFFLINE" in caught.value.do


def test_samples_that_lack_files_are_named_together_and_can_be_skipped(tree, root, tmp_path):
    lame = tmp_path / "hub"
    shutil.copytree(tree, lame)
    shutil.copy(tree / "st" / "S0.h5ad", lame / "st" / "S2.h5ad")
    (lame / "patches" / "S1.h5").unlink()
    ids = [*IDS, "S2", "S3"]  # of S3 there is nothing
    with hub_server.serve(lame):
        said = r"lacks patches/S1\.h5, patches/S2\.h5, metadata/S2\.json, st/S3\.h5ad, patches/S3\.h5, metadata/S3"
        with pytest.raises(SealError, match=said) as caught:
            fetch.plan(ids, root)
        assert "python -m seal fetch --skip S1 S2 S3" in caught.value.do
        plan = fetch.plan(ids, root, skip=["S3", "S1", "S2"])
        assert plan.samples == ("S0",)
        fetch.fetch(plan)
    assert same(root, tree, sample_paths("S0"))


@pytest.mark.parametrize(("skip", "advice"), [("S00", "did you mean 'S0'?"), ("TENX1", "leave it out")])
def test_a_sample_to_skip_that_is_not_fetched_is_named(hub, root, faults, skip, advice):
    with pytest.raises(SealError, match=f"--skip {skip}: not among the 2 samples") as caught:
        fetch.plan(IDS, root, skip=["S1", skip])
    assert advice in caught.value.do
    assert faults.asked == []


def test_room_is_looked_at_before(hub, root, monkeypatch, faults):
    plan = fetch.plan(IDS, root)
    usage = SimpleNamespace(free=sum(plan.sizes[path] for path in plan.paths) - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(SealError, match="GB free for"):
        fetch.fetch(plan)
    assert faults.fetched() == []
    usage.free += 1
    fetch.fetch(plan)


def test_a_disk_that_fills_up_on_the_way(hub, root, monkeypatch):
    plan = fetch.plan(IDS, root)

    def full(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub.file_download, "http_get", full)
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
    with pytest.raises(SealError, match=f"{place}"):
        fetch.fetch(plan)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(hub, root):
    root.mkdir()
    plan = fetch.plan(IDS, root)
    root.chmod(0o500)
    with pytest.raises(SealError, match="Permission denied"):
        fetch.fetch(plan)
    root.chmod(0o700)


def test_a_file_in_the_folders_place(hub, root):
    plan = fetch.plan(IDS, root / "below")
    root.write_text("a file")
    with pytest.raises(SealError, match="Not a directory"):
        fetch.fetch(plan)


# --- killed, and two at once ----------------------------------------------------------------------------------


def slow_fetch(root: Path, ids) -> None:
    fetch.fetch(fetch.plan(ids, root), workers=1)


def test_a_killed_fetch_keeps_the_files_that_came_whole(hub, tree, root, faults):
    faults.slow = 0.5
    process = multiprocessing.get_context("fork").Process(target=slow_fetch, args=(root, IDS))
    process.start()
    wanted = {*TABLES, *sample_paths("S0"), *sample_paths("S1")}

    def came() -> set[str]:
        return {path for path in wanted if (root / ".fetch" / path).is_file()}

    until = time.monotonic() + 20
    while not any(path.startswith("patches/") for path in came()) and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    whole = came()
    assert whole
    assert whole < wanted
    assert in_folder(root) & wanted == set()  # what was not verified is in no sample's place
    faults.slow = 0.0
    faults.asked.clear()
    fetch.fetch(fetch.plan(IDS, root))
    assert set(faults.fetched()) == wanted - whole
    assert in_folder(root) == {*wanted, *OURS}
    assert same(root, tree, wanted)


def test_of_two_fetches_at_once_one_waits(hub, tree, root, faults):
    faults.slow = 0.1
    plan = fetch.plan(IDS, root)
    threads = [threading.Thread(target=fetch.fetch, args=(plan,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(faults.fetched()) == len(plan.paths)  # each file once
    assert same(root, tree, plan.paths)
