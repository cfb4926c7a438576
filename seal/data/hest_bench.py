"""HEST-Bench in its own layout, a folder a task, as the data set MahmoodLab/hest-bench has it.

One task::

    splits/train_K.csv, test_K.csv   sample_id, patches_path, expr_path (below the task's folder); K = 0, 1, ...
    var_50genes.json                 {"genes": [...]}, what is predicted
    patches/SAMPLE.h5                img, uint8 [n, 224, 224, 3] at 0.5 um/px; barcode [n, 1]; coords [n, 2], px
    adata/SAMPLE.h5ad                raw counts of spots, found by the patches' barcodes

Source: mahmoodlab/HEST, src/hest/bench/benchmark.py and st_dataset.py (afd42c3).
"""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seal import paths
from seal.data import sample_files
from seal.data.maple.rules import bench_tasks
from seal.data.samples import find_hest_table, read_table
from seal.errors import SealError, explain_unreadable
from seal.files import contents, digest, read_json
from seal.profiles import Profile

BESIDE = ("HCC",)  # on the hub, outside the published average
AVERAGED = tuple(task for task in bench_tasks() if task not in BESIDE)
GENES = "var_50genes.json"
SIDES = ("train", "test")
COLUMNS = ("sample_id", "patches_path", "expr_path")
FETCH = "hf download MahmoodLab/hest-bench --repo-type dataset --exclude 'fm_v1/*' --local-dir"
AGAIN = "fetch the task again, or move its folder away to go on without it"


@dataclass(frozen=True)
class BenchTask:
    """One task: its genes, its folds, and where its samples lie."""

    name: str
    genes: tuple[str, ...]
    splits: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]  # fold -> samples of training, of the test
    files: Mapping[str, tuple[Path, Path]]  # sample -> patches, counts
    donors: Mapping[str, str]  # sample -> donor, where a table names one
    simulated: bool

    def places(self, sample: str) -> tuple[list[str], np.ndarray]:
        """Barcodes of a sample's patches, and their upper left corners (px of the slide), [n, 2]."""
        with sample_files.open_patches(self.files[sample][0]) as (file, barcodes):
            return barcodes, file["coords"][:].reshape(len(barcodes), -1)[:, :2]

    def images(self, sample: str, size: int) -> Iterator[np.ndarray]:
        """A sample's patches in pieces of up to `size`, uint8 [B, 224, 224, 3]."""
        with sample_files.open_patches(self.files[sample][0]) as (file, barcodes):
            for start in range(0, len(barcodes), size):
                try:
                    piece = file["img"][start : start + size]
                except OSError as error:
                    raise _unreadable(self.files[sample][0], error) from error
                yield piece

    def expression(self, sample: str) -> np.ndarray:
        """What is predicted: log1p of the raw counts of the task's genes, in the order of the patches, [n, genes].

        Raises
        ------
        SealError
            The file cannot be read, lacks a gene or a patch's barcode, or holds what is no count.
        """
        import anndata

        path, barcodes = self.files[sample][1], self.places(sample)[0]
        try:
            data = anndata.read_h5ad(path)
        except Exception as error:
            raise _unreadable(path, error) from error
        rows = _positions(data.obs_names, barcodes, f"{path} and the barcodes of its patches")
        counts = data.X[rows][:, _positions(data.var_names, self.genes, f"{path} and the genes of {GENES}")]
        counts = np.asarray(counts.toarray() if hasattr(counts, "toarray") else counts, dtype=np.float64)
        if not np.isfinite(counts).all() or (counts < 0).any():
            raise SealError(f"{path} holds NaN, infinity or numbers below 0", expected="raw counts", do=AGAIN)
        return np.log1p(counts)


def _unreadable(path: Path, error: Exception) -> SealError:
    why, do = explain_unreadable(path, error)
    return SealError(f"{path} cannot be read ({why})", expected="a whole file of HEST-Bench", do=do)


def _positions(known: Sequence[str], wanted: Sequence[str], what: str) -> np.ndarray:
    """Where each of some names stands, each of which must be there once."""
    import pandas as pd

    known = pd.Index(known).astype(str)
    times = known.value_counts().reindex(wanted, fill_value=0)
    if len(bad := times[times != 1]):
        what = f"{what}: {len(bad)} of {len(wanted)} are not there once, first {bad.index[0]} ({bad.iloc[0]} times)"
        raise SealError(what, expected="each of them once", do=AGAIN)
    return known.get_indexer_for(wanted)


def find(profile: Profile) -> Path | None:
    """The folder of a profile's tasks: what its source simulates, if it offers ``prepare_bench``, else HEST-Bench.

    That lies where SEAL_HEST_BENCH says, or in data/downloads/hest-bench; None where it, being gated, is not there.
    """
    offered = getattr(importlib.import_module(profile.source), "prepare_bench", None)
    own = paths.given("SEAL_HEST_BENCH") or paths.downloads() / "hest-bench"
    root = offered(profile) if offered else own
    return root if root.is_dir() else None


def digest_of(tasks: Sequence[BenchTask]) -> str:
    """Digest of all that some tasks hold: genes, splits, donors and files."""
    files = [path for task in tasks for pair in task.files.values() for path in pair]
    return digest([*([t.name, t.genes, t.splits, t.donors] for t in tasks), *contents(files)])


def read_tasks(root: Path) -> list[BenchTask]:
    """Read the tasks that a folder holds, in the benchmark's order.

    Raises
    ------
    SealError
        There is none; a split or the genes are missing or unreadable, a sample lies on both sides of a split, or a file
        is not there.
    """
    found = [_read_task(Path(root) / name) for name in bench_tasks() if (Path(root) / name).is_dir()]
    if not found:
        do = f"ask for access on the hub, then: {FETCH} {root}; or set SEAL_HEST_BENCH to a copy"
        raise SealError(f"{root} holds no task of HEST-Bench", expected=f"folders {', '.join(bench_tasks())}", do=do)
    return found


def _read_task(folder: Path) -> BenchTask:
    names = [{p.stem.partition("_")[2] for p in (folder / "splits").glob(f"{side}_*.csv")} for side in SIDES]
    if not names[0] or names[0] != names[1]:
        what = f"{folder}/splits holds training of folds {sorted(names[0])} and tests of {sorted(names[1])}"
        raise SealError(what, expected="train_K.csv and test_K.csv, a pair a fold", do=AGAIN)
    files, splits = {}, {}
    for name in sorted(names[0], key=lambda text: (len(text), text)):
        splits[name] = train, test = tuple(_read_side(folder, f"{side}_{name}.csv", files) for side in SIDES)
        if both := sorted(set(train) & set(test)):
            what = f"{folder.name}, fold {name}: sample {', '.join(both)} is in training and test"
            raise SealError(what, expected="samples on one side of a split", do=AGAIN)
    genes = read_json(folder / GENES)
    if not isinstance(genes, dict) or not genes.get("genes"):
        raise SealError(f"{folder / GENES} names no genes", expected='{"genes": [...]}', do=AGAIN)
    simulated = any(_is_simulated(patches) for patches, _ in files.values())
    return BenchTask(folder.name, tuple(genes["genes"]), splits, files, _read_donors(folder), simulated)


def _read_side(folder: Path, name: str, files: dict[str, tuple[Path, Path]]) -> tuple[str, ...]:
    """The samples of one side of a split; their files go into `files`."""
    import pandas as pd

    table = pd.read_csv(folder / "splits" / name, dtype=str)
    if table.empty or not set(COLUMNS) <= set(table):
        what = f"{folder}/splits/{name} has {len(table)} rows and the columns {', '.join(table)}"
        raise SealError(what, expected=f"rows, and the columns {', '.join(COLUMNS)}", do=AGAIN)
    for row in table.itertuples():
        files[row.sample_id] = folder / row.patches_path, folder / row.expr_path
        if absent := [path for path in files[row.sample_id] if not path.is_file()]:
            raise SealError(f"{absent[0]} is missing", expected=f"the file that splits/{name} names", do=AGAIN)
    return tuple(table["sample_id"])


def _is_simulated(patches: Path) -> bool:
    """Whether patches say of themselves that they are simulated, as the atlas's do, wherever they are copied to."""
    with sample_files.open_patches(patches) as (file, _):
        return bool(file.attrs.get("simulated", False))


def _read_donors(folder: Path) -> dict[str, str]:
    """Donors that a metadata table in or beside the task's folder names; a name counts within its study."""
    for place in (folder, folder.parent):
        if (place / "metadata.csv").is_file() or find_hest_table(place) is not None:
            table = read_table(place)
            named = table[~table["donor"].str.startswith("study: ")]
            return dict(zip(named["id"], named["dataset_title"] + ", " + named["donor"], strict=True))
    return {}
