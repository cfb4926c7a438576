"""From samples in the HEST-1k layout to pairs (`seal.data.pairs`), whole or not at all."""

import importlib
from dataclasses import asdict
from pathlib import Path

import numpy as np

from seal import dependencies, paths
from seal.data import hest, sample_files, simulated_truth
from seal.data import panel as panels
from seal.data.expression import clean_genes, neighbours, normalise, spot_context
from seal.data.folds import make_folds
from seal.data.pairs import Pairs, Section, read
from seal.errors import SealError
from seal.files import atomic, digest, write_json
from seal.profiles import Profile, as_dict


def assemble(profile: Profile) -> Pairs:
    """Make the profile's pairs from its source, or read them if they are there and current.

    Returns
    -------
    Pairs. The folder appears whole or not at all.
    """
    source = importlib.import_module(f"seal.data.{profile.source}")
    samples = hest.samples(source.prepare(profile))
    key = _key(profile, samples)
    folder = paths.pairs(profile.name)
    if (folder / "pairs.json").is_file():
        pairs = read(profile)
        if pairs.key == key:
            return pairs
    with atomic(folder) as temporary:
        temporary.mkdir()
        _write(temporary, profile, samples, key)
    return read(profile)


def _key(profile: Profile, samples) -> str:
    """Everything that the pairs depend on: the samples' files, the settings, the code."""
    files = [p for s in samples for p in (s.st_path, s.patches_path, s.wsi_path) if p is not None and p.is_file()]
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    settings = {k: as_dict(profile)[k] for k in ("source", "image_size", "um_per_px", "panel")}
    split = profile.evaluation.split, profile.evaluation.folds
    code = dependencies.code_digest(["seal.data.assemble"])
    return digest([[asdict(s) for s in samples], stats, settings, split, code])


def _write(folder: Path, profile: Profile, samples, key: str) -> None:
    settings = profile.panel
    # Samples with an image first: then row i of the counts belongs to patch i, and what follows is
    # expression alone, which only stage 1 uses.
    samples = sorted(samples, key=lambda sample: (not sample.has_image, sample.id))
    tables = []
    for sample in samples:
        data = sample_files.read_counts(sample)
        keep = np.asarray(data.X.sum(axis=1)).ravel() >= settings.min_spot_counts
        if sample.has_image:
            keep &= data.obs_names.isin(sample_files.patch_barcodes(sample))
        if "in_tissue" in data.obs:
            keep &= data.obs["in_tissue"].to_numpy().astype(bool)
        if not keep.any():
            raise SealError(
                f"sample {sample.id} has no spot with counts, tissue and patch",
                expected="at least one",
                do=f"check {sample.st_path} and its patches, or take the sample out of the metadata table",
            )
        tables.append(data[keep].copy())
    sections = _sections(samples, [table.n_obs for table in tables])
    n_pairs = sum(s.stop - s.start for s in sections if s.has_image)
    _write_patches(folder, profile, samples, tables, n_pairs)
    _write_spots(folder, sections, tables)
    counts, genes = _union(tables)
    _write_counts(folder, counts, genes)
    smooth = normalise(_context(sections, tables, counts, settings.own_weight), settings.target_sum)
    own = normalise(counts, settings.target_sum)
    truth = simulated_truth.gather(samples, tables)
    tables.clear()  # choosing genes below needs the memory
    spots = {
        name: np.repeat([getattr(s, name) for s in sections], [s.stop - s.start for s in sections])
        for name in ("donor", "organ")
    }
    for fold in make_folds(sections, profile.evaluation):
        donors, organs = spots["donor"][fold.omics], spots["organ"][fold.omics]
        scored = _scored(donors, organs, spots["organ"][fold.test])
        panel = panels.select(counts[fold.omics], smooth[fold.omics], genes, donors, scored, settings)
        home = folder / "folds" / fold.name
        _write_fold(home, panel, genes, smooth, own)
        for name, shares in truth.items():
            np.save(home / f"{name}.npy", shares.log_expression(panel.test_genes, settings.target_sum))
    write_json(
        folder / "pairs.json",
        {
            "key": key,
            "n_pairs": n_pairs,
            "n_spots": sections[-1].stop,
            "truth": bool(truth),
            "sections": [asdict(section) for section in sections],
        },
    )


def _scored(donors: np.ndarray, organs: np.ndarray, tested: np.ndarray) -> dict[str, list[str]]:
    """The training donors that choose each test organ's genes: all of them for an organ that no other donor has.

    Parameters
    ----------
    donors, organs
        Of the training spots.
    tested
        Organs of the test spots.
    """
    own = {organ: sorted(set(donors[organs == organ])) for organ in sorted(set(tested))}
    return {organ: names or sorted(set(donors)) for organ, names in own.items()}


def _sections(samples, lengths: list[int]) -> tuple[Section, ...]:
    stops = np.cumsum(lengths).tolist()
    return tuple(
        Section(
            sample=s.id,
            donor=s.donor,
            organ=s.organ,
            disease_state=s.disease_state,
            technology=s.technology,
            grid=s.grid,
            um_per_px=s.um_per_px,
            dataset=s.dataset,
            licence=s.licence,
            has_image=s.has_image,
            start=stop - length,
            stop=stop,
        )
        for s, length, stop in zip(samples, lengths, stops, strict=True)
    )


def _write_patches(folder: Path, profile: Profile, samples, tables, n_pairs: int) -> None:
    from tqdm import tqdm

    size = profile.image_size
    store = np.lib.format.open_memmap(folder / "patches.npy", mode="w+", dtype=np.uint8, shape=(n_pairs, size, size, 3))
    row = 0
    with tqdm(total=n_pairs, desc="patches", unit="patch") as bar:
        for sample, table in zip(samples, tables, strict=True):
            if not sample.has_image:
                continue
            for chunk in sample_files.read_patches(sample, table.obs_names.tolist(), size, profile.um_per_px):
                store[row : row + len(chunk)] = chunk
                row += len(chunk)
                bar.update(len(chunk))
    store.flush()


def _write_spots(folder: Path, sections: tuple[Section, ...], tables) -> None:
    import pandas as pd

    names = {"pxl_col_in_fullres": "x", "pxl_row_in_fullres": "y"}
    columns = ["array_row", "array_col", "x", "y", "label"]
    frames = []
    for section, table in zip(sections, tables, strict=True):
        frame = table.obs.rename(columns=names).reindex(columns=columns)
        frame["label"] = frame["label"].astype("object").where(frame["label"].notna(), None)
        frame.insert(0, "barcode", table.obs_names.to_numpy())
        for name in ("organ", "donor", "sample"):
            frame.insert(0, name, getattr(section, name))
        frames.append(frame.assign(has_image=section.has_image))
    pd.concat(frames, ignore_index=True).to_parquet(folder / "spots.parquet")


def _union(tables):
    """Stack the sections' counts over the union of their genes; a gene a section lacks counts zero there."""
    import anndata

    cleaned = []
    for table in tables:
        genes, positions = clean_genes(table.var_names)
        part = anndata.AnnData(table.X.tocsr()[:, positions])
        part.var_names = genes
        part.obs_names = [str(i) for i in range(part.n_obs)]
        cleaned.append(part)
    stacked = anndata.concat(cleaned, join="outer", fill_value=0, index_unique="-")
    order = np.argsort(stacked.var_names.to_numpy())
    return stacked.X.tocsr()[:, order], stacked.var_names.to_numpy()[order].tolist()


def _write_counts(folder: Path, counts, genes: list[str]) -> None:
    from scipy.sparse import save_npz

    save_npz(folder / "counts.npz", counts, compressed=False)  # a quarter of the size would take 20 times as long
    write_json(folder / "genes.json", genes)


def _context(sections: tuple[Section, ...], tables, counts, own_weight: float):
    """Spot context within each section, stacked over all of them."""
    from scipy.sparse import vstack

    mixed = []
    for section, table in zip(sections, tables, strict=True):
        grid = table.obs["array_row"].to_numpy(), table.obs["array_col"].to_numpy()
        adjacency = neighbours(*grid, section.grid)
        mixed.append(spot_context(counts[section.start : section.stop], adjacency, own_weight))
    return vstack(mixed, format="csr")


def _write_fold(folder: Path, panel: panels.Panel, genes: list[str], smooth, own) -> None:
    """Write a fold's panel and its columns of the context and of the spots' own expression."""
    where = {gene: column for column, gene in enumerate(genes)}
    columns = np.array([where[gene] for gene in panel.genes])
    folder.mkdir(parents=True)
    panel.save(folder / "panel.json")
    np.save(folder / "context.npy", smooth[:, columns].toarray())
    np.save(folder / "measured.npy", own[:, columns[panel.test_columns]].toarray())
