"""The assembly in memory, all at once: the plain twin of `seal.data.assemble`, for a few small samples."""

import anndata
import numpy as np
from scipy.sparse import csr_array, csr_matrix, vstack

from seal.data import sample_files
from seal.data.expression import normalise, spot_context
from seal.data.folds import left_out
from seal.data.genes import clean_genes
from seal.data.grid import neighbours


def assembled(samples, profile, sections):
    """Everything that the pairs hold, as arrays; `sections` say how the samples are dealt into folds."""
    samples = sorted(samples, key=lambda sample: (not sample.has_image, sample.id))
    tables = [_kept(sample) for sample in samples]
    parts = []
    for table in tables:
        genes, summed = clean_genes(table.var_names)
        part = anndata.AnnData(csr_matrix(table.X.tocsr() @ summed))
        part.var_names, part.obs_names = genes, [f"{id(table)}-{i}" for i in range(part.n_obs)]
        parts.append(part)
    stacked = anndata.concat(parts, join="outer", fill_value=0)
    order = np.argsort(stacked.var_names.to_numpy())
    counts, genes = csr_array(stacked.X.tocsr()[:, order]), stacked.var_names[order].tolist()
    own = normalise(counts, profile.panel.target_sum)
    smooth, row = [], 0
    for sample, table in zip(samples, tables, strict=True):
        adjacency = neighbours(table.obs["array_row"].to_numpy(), table.obs["array_col"].to_numpy(), sample.grid)
        smooth.append(spot_context(counts[row : row + table.n_obs], adjacency, profile.panel.own_weight))
        row += table.n_obs
    smooth = normalise(vstack(smooth, format="csr"), profile.panel.target_sum)
    shown = [(s, t) for s, t in zip(samples, tables, strict=True) if s.has_image]
    patches = [
        chunk
        for s, t in shown
        for chunk in sample_files.read_patches(s, t.obs_names.tolist(), profile.image_size, profile.um_per_px)
    ]
    return {
        "patches": np.concatenate(patches),
        "counts": counts.toarray(),
        "genes": genes,
        "barcodes": [name for table in tables for name in table.obs_names],
        "own": own.toarray(),
        "smooth": smooth.toarray(),
        "folds": list(left_out(sections, profile.evaluation)),
    }


def _kept(sample):
    data = sample_files.read_counts(sample)
    keep = np.asarray((data.X @ clean_genes(data.var_names)[1]).sum(axis=1)).ravel() >= 1
    if sample.has_image:
        keep &= data.obs_names.isin(sample_files.patch_barcodes(sample))
    if "in_tissue" in data.obs:
        keep &= data.obs["in_tissue"].to_numpy().astype(bool)
    return data[keep].copy()
