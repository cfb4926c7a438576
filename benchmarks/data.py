"""The store of pairs: random patch reads against HEST-1k's h5 files, building it against the disk, and its memory.

reads     a random batch of 128 patches of 224 px: from patches.npy; from h5 as HEST-1k has it (img, chunks of one
          patch, not compressed) the way HEST's dataset class gives a patch (the file opened for it; image, barcode
          and place read); with the file opened for it and the image alone read; from files kept open, a read for
          each patch; and from files kept open, one read of all rows for a batch and file. The last is slow beyond
          reason where rows do not follow each other (h5py over HDF5 2.0): compare with the others. The same patches
          each way; files in the page cache ("warm") and dropped from it ("cold").
building  `assemble` from such h5 files, some spots of which are outside tissue, against writing as many bytes in one
          go to the same disk, with fsync; in turn, medians. With as few genes as a panel needs ("patches": that is
          the store from h5) and with as many as a sample of HEST-1k counts ("whole": most of the work is then spot
          context and the sums of genes). Each in a process of its own, after the same pause and once more at once:
          a virtual machine gives freed memory back to its host within seconds, and the page cache that has to be
          fetched again then decides how fast any file is written.
memory    peak of `assemble` with ten times as many samples, each way in a process of its own.

    python benchmarks/data.py [--only reads building memory] [--small]
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

PX = 224


@dataclass(frozen=True)
class Size:
    """How large the made-up samples are."""

    files: int = 4  # reads: h5 files
    patches: int = 1500  # in each
    batch: int = 128
    repeats: int = 7
    samples: int = 8  # building
    spots: int = 3000  # in each
    genes: tuple[int, int] = (300, 17_000)
    turns: int = 3
    pause: float = 15  # seconds
    few: int = 10  # memory: samples, and ten times as many
    memory_spots: int = 1000
    memory_genes: int = 9000


SMALL = Size(2, 60, 16, 2, 2, 20, (40, 60), 1, 0, 2, 20, 40)


def write_h5(path: Path, images: np.ndarray, barcodes: list[str]) -> None:
    """A file of patches as HEST-1k has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("img", data=images, chunks=(1, *images.shape[1:]))
        file["coords"] = np.zeros((len(images), 2), dtype=np.int64)
        file["barcode"] = np.array(barcodes, dtype="S")[:, None]


def random_images(n: int, px: int, seed: int) -> np.ndarray:
    """Noise, which no disk can make smaller."""
    return np.random.default_rng(seed).integers(0, 256, (n, px, px, 3), dtype=np.uint8)


# ---- reads -----------------------------------------------------------------------------------------------------


def open_each(paths: list[Path], rows: np.ndarray, patches: int) -> np.ndarray:
    """Each patch from a file that is opened for it."""
    out = np.empty((len(rows), PX, PX, 3), dtype=np.uint8)
    for i, row in enumerate(rows.tolist()):
        with h5py.File(paths[row // patches], "r") as file:
            out[i] = file["img"][row % patches]
    return out


def as_the_dataset_class(paths: list[Path], rows: np.ndarray, patches: int) -> np.ndarray:
    """As HEST's own dataset class gives a patch: the file opened for it, image, barcode and place read."""
    out = np.empty((len(rows), PX, PX, 3), dtype=np.uint8)
    for i, row in enumerate(rows.tolist()):
        at = slice(row % patches, row % patches + 1)
        with h5py.File(paths[row // patches], "r") as file:
            out[i] = file["img"][at][0]
            file["barcode"][at].flatten().tolist()
            file["coords"][at]
    return out


def single_reads(files: list[h5py.File], rows: np.ndarray, patches: int) -> np.ndarray:
    """Each patch by itself from files that stay open."""
    out = np.empty((len(rows), PX, PX, 3), dtype=np.uint8)
    for i, row in enumerate(rows.tolist()):
        out[i] = files[row // patches]["img"][row % patches]
    return out


def batch_reads(files: list[h5py.File], rows: np.ndarray, patches: int) -> np.ndarray:
    """One read a batch and file; h5py wants increasing rows."""
    out = np.empty((len(rows), PX, PX, 3), dtype=np.uint8)
    for number, file in enumerate(files):
        mine = np.flatnonzero(rows // patches == number)
        if len(mine):
            wanted, where = np.unique(rows[mine] % patches, return_inverse=True)
            out[mine] = file["img"][wanted][where]
    return out


def reads(size: Size, folder: Path) -> dict:
    """Patches a second each way, warm and cold."""
    from common import seconds
    from watch import forget

    from seal.data.store import RowFile

    paths = [folder / f"{i}.h5" for i in range(size.files)]
    store = np.lib.format.open_memmap(folder / "patches.npy", "w+", np.uint8, (size.files * size.patches, PX, PX, 3))
    for i, path in enumerate(paths):
        images = random_images(size.patches, PX, i)
        write_h5(path, images, [str(row) for row in range(size.patches)])
        store[i * size.patches : (i + 1) * size.patches] = images
    store.flush()
    del store, images
    draw, found = np.random.default_rng(0), {}
    files = [h5py.File(path, "r") for path in paths]
    reader = RowFile(folder / "patches.npy", np.uint8, (PX, PX, 3))
    ways = {
        "store": reader.read,
        "h5_as_hests_dataset": lambda rows: as_the_dataset_class(paths, rows, size.patches),
        "h5_opened_each_time": lambda rows: open_each(paths, rows, size.patches),
        "h5_kept_open_single": lambda rows: single_reads(files, rows, size.patches),
        "h5_kept_open_batch": lambda rows: batch_reads(files, rows, size.patches),
    }
    for state in ("warm", "cold"):
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for path in (reader.path, *paths):
            path.read_bytes()
        for _ in range(size.repeats):  # new rows each time: HDF5's own cache must not hold them
            rows = draw.choice(len(reader), size.batch, replace=False)
            expected = reader.read(rows)
            for name, way in ways.items():
                if state == "cold":
                    for path in (reader.path, *paths):
                        forget(path)
                got = []
                taken[name].append(seconds(lambda way=way, rows=rows, got=got: got.append(way(rows))))
                if not np.array_equal(got[0], expected):
                    sys.exit(f"{name} read other patches")
        rate = {name: size.batch / statistics.median(values) for name, values in taken.items()}
        ratio = {name: rate["store"] / rate[name] for name in ways if name != "store"}
        found[state] = {"patches_per_s": rate, "ratio": ratio}
    for file in files:
        file.close()
    about = {"batch": size.batch, "px": PX, "patches": len(reader), "h5_files": size.files, "h5_chunk": [1, PX, PX, 3]}
    return about | {"h5_compression": None, "same_patches": True, **found}


# ---- samples ---------------------------------------------------------------------------------------------------


def make_samples(root: Path, samples: int, spots: int, genes: int, px: int) -> None:
    """A tree in HEST-1k's layout; counts of one sample again and again, patches of their own."""
    import anndata
    import pandas as pd
    from scipy.sparse import csr_matrix

    draw = np.random.default_rng(0)
    rates = draw.lognormal(0, 1.9, genes)  # at 9,000 counts a spot a fifth of 17,000 genes is seen, as in HEST-1k
    depth = draw.gamma(2.0, 4500.0 / rates.sum(), (spots, 1))
    counts = csr_matrix(draw.poisson(depth * rates).astype(np.float32))
    place = np.arange(spots)
    obs = pd.DataFrame({"array_row": place // 30, "array_col": 2 * (place % 30) + place // 30 % 2})
    obs = obs.assign(in_tissue=(place % 10 > 0).astype(int))  # gaps, as real samples have them
    obs = obs.assign(pxl_row_in_fullres=3**0.5 / 2 * 100 * obs["array_row"], pxl_col_in_fullres=50.0 * obs["array_col"])
    obs.index = [f"spot{i}" for i in place]
    data = anndata.AnnData(counts, obs=obs, var=pd.DataFrame(index=[f"GENE{i}" for i in range(genes)]))
    (root / "st").mkdir(parents=True)
    rows = []
    for i in range(samples):
        name = f"S{i:03d}"
        data.write_h5ad(root / "st" / f"{name}.h5ad")
        write_h5(root / "patches" / f"{name}.h5", random_images(spots, px, i), list(obs.index))
        about = {"id": name, "organ": "Lung", "disease_state": "Cancer", "species": "Homo sapiens", "patient": f"P{i}"}
        rows.append(about | {"st_technology": "Visium", "dataset_title": "made up", "license": "none"})
    pd.DataFrame(rows).to_csv(root / "metadata.csv", index=False)


def profile(px: int, how: str):
    """The maple profile's way, two folds over the donors."""
    from seal import profiles

    return profiles.get(
        "maple",
        image_size=px,
        um_per_px=112 / px,
        panel=profiles.PanelSettings(genes=200, test_genes=20),
        evaluation=profiles.EvaluationSettings(folds=2),
        compute=profiles.ComputeSettings(assembly=how),
    )


def assembled(px: int, how: str) -> dict:
    """Assemble in SEAL_HOME from SEAL_HEST: seconds and bytes."""
    from common import seconds

    from seal import paths
    from seal.data.assemble import assemble

    shutil.rmtree(paths.pairs("maple"), ignore_errors=True)
    taken = seconds(lambda: assemble(profile(px, how)))
    size = sum(path.stat().st_size for path in paths.pairs("maple").rglob("*") if path.is_file())
    return {"seconds": taken, "bytes": size}


def written(size: int) -> dict:
    """Write a file in SEAL_HOME from its beginning to its end, fsync included: seconds and bytes."""
    from common import seconds

    path, piece = Path(os.environ["SEAL_HOME"]) / "file", random_images(64, PX, 0).tobytes()

    def write() -> None:
        with path.open("wb", buffering=0) as file:
            for start in range(0, size, len(piece)):
                file.write(piece[: min(len(piece), size - start)])
            os.fsync(file.fileno())

    taken = seconds(write)
    path.unlink()
    return {"seconds": taken, "bytes": size}


def child(arguments: argparse.Namespace) -> None:
    """Do it as often as asked for, and print what came out and the peak memory."""
    from memory import peak_gb

    def once() -> dict:
        return written(arguments.bytes) if arguments.child == "disk" else assembled(arguments.px, arguments.child)

    print(json.dumps({"runs": [once() for _ in range(arguments.runs)], "peak_gb": peak_gb()}))


def in_a_process(folder: Path, root: Path, how: str, *options: str) -> dict:
    """What `child` prints, from a process and a home of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as home:
        environment = os.environ | {"SEAL_HOME": home, "SEAL_HEST": str(root), "TQDM_DISABLE": "1"}
        environment.pop("SEAL_DASK", None)
        command = [sys.executable, __file__, "--child", how, *options]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        return json.loads(done.stdout.splitlines()[-1])


# ---- building and its memory -----------------------------------------------------------------------------------


def building(size: Size, folder: Path) -> dict:
    """MB/s of the assembly in threads and processes, and of the disk, in turn; medians."""
    found = {}
    for name, genes in zip(("patches", "whole"), size.genes, strict=True):
        root = folder / name
        make_samples(root, size.samples, size.spots, genes, PX)
        found[name] = {"genes": genes} | rates(size, folder, root)
        shutil.rmtree(root)
    return {"samples": size.samples, "spots": size.spots, "pause_s": size.pause} | found


def rates(size: Size, folder: Path, root: Path) -> dict:
    """MB/s of the ways, after a pause and at once, and their ratios to the disk's."""
    moments = ("after_pause", "at_once")
    taken: dict[str, dict[str, list[float]]] = {m: {"disk": [], "threads": [], "processes": []} for m in moments}
    amount = str(size.samples * size.spots * PX * PX * 3)
    for _ in range(size.turns):
        for how in ("disk", "threads", "processes"):
            for path in root.rglob("*.h5*"):  # the sources lie in the page cache
                path.read_bytes()
            time.sleep(size.pause)
            runs = in_a_process(folder, root, how, "--px", str(PX), "--bytes", amount, "--runs", "2")["runs"]
            for moment, run in zip(moments, runs, strict=True):
                taken[moment][how].append(run["bytes"] / run["seconds"] / 1e6)
    middle = {m: {how: statistics.median(values) for how, values in ways.items()} for m, ways in taken.items()}
    ratio = {m: {how: ways[how] / ways["disk"] for how in ("threads", "processes")} for m, ways in middle.items()}
    return {"mb_per_s": middle, "mb_per_s_each_turn": taken, "ratio": ratio}


def memory(size: Size, folder: Path) -> dict:
    """Peak memory with some samples and with ten times as many."""
    found = {}
    for number in (size.few, 10 * size.few):
        make_samples(folder / f"hest{number}", number, size.memory_spots, size.memory_genes, 28)
        found[str(number)] = in_a_process(folder, folder / f"hest{number}", "threads", "--px", "28")["peak_gb"]
    few, many = found.values()
    return {
        "spots": size.memory_spots,
        "genes": size.memory_genes,
        "px": 28,
        "peak_gb_by_samples": found,
        "ratio": many / few,
    }


def main() -> None:
    """Measure, and print one JSON line for each."""
    ways = {"reads": reads, "building": building, "memory": memory}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(ways), default=list(ways))
    parser.add_argument("--folder", type=Path, help="on the disk to measure; the system's temporary folder by default")
    parser.add_argument("--small", action="store_true", help="a quick check that it works")
    parser.add_argument("--child", choices=["disk", "threads", "processes"], help=argparse.SUPPRESS)
    parser.add_argument("--px", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--bytes", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--runs", type=int, default=1, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    if arguments.child:
        child(arguments)
        return
    from common import report

    for name in arguments.only:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            found = ways[name](SMALL if arguments.small else Size(), Path(folder))
        report(f"data: {name}", **found)


if __name__ == "__main__":
    main()
