"""How much of a gene's variance a picture can show, how much is true but hidden, and how much is counting."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

TARGET = 1e4  # counts a spot, as everywhere


def split_variance(sections: "Sequence[AnnData]") -> "pd.DataFrame":
    """Split each gene's variance over the spots of a section.

    With y = log(1 + 1e4 x / total) measured, o and c the same of the oracle's and the ceiling's expected shares:
    visible = r(o, y)^2, hidden = max(r(c, y)^2 - r(o, y)^2, 0), counting = the rest. r^2 is the share of y's
    variance that a line through o (c) explains; an oracle that beats the ceiling by chance leaves nothing hidden.
    Sections weigh by their spots times their variance of y, so the parts are shares of the variance within sections.

    Parameters
    ----------
    sections
        Simulated sections of the same genes, with layers oracle and ceiling.

    Returns
    -------
    DataFrame, a row a gene: gene, variance (mean within a section), visible, hidden, counting (sum 1), oracle_pcc and
    ceiling_pcc (mean over the sections where the gene varies). A gene that never varies has NaN.

    Source: our choice.
    """
    import pandas as pd

    found = [_section(table) for table in sections]
    weight, oracle, ceiling = (np.stack(column) for column in zip(*found, strict=True))
    spots = np.array([table.n_obs for table in sections])[:, None]
    varies = weight > 0
    total = (spots * weight).sum(axis=0)
    with np.errstate(invalid="ignore"):
        visible, known = (
            (spots * weight * np.where(varies, r, 0) ** 2).sum(axis=0) / total
            for r in (oracle, np.where(np.abs(ceiling) > np.abs(oracle), ceiling, oracle))
        )
        pcc = [np.where(varies, r, 0).sum(axis=0) / varies.sum(axis=0) for r in (oracle, ceiling)]
    return pd.DataFrame(
        {
            "gene": sections[0].var_names.to_numpy(),
            "variance": (spots * weight).sum(axis=0) / spots.sum(),
            "visible": visible,
            "hidden": known - visible,
            "counting": 1 - known,
            "oracle_pcc": pcc[0],
            "ceiling_pcc": pcc[1],
        }
    )


def _section(table: "AnnData") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Variance of the measurement, and its correlation with the oracle and with the ceiling, [genes] each."""
    counts = table.X.toarray().astype(float)
    y = np.log1p(TARGET * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    centred = y - y.mean(axis=0)
    variance = (centred**2).mean(axis=0)
    correlations = []
    for name in ("oracle", "ceiling"):
        x = np.log1p(TARGET * np.asarray(table.layers[name], dtype=float))
        x -= x.mean(axis=0)
        scale = np.sqrt((x**2).mean(axis=0) * variance)
        correlations.append((x * centred).mean(axis=0) / np.where(scale > 0, scale, 1))
    return variance, *correlations


def summarise_variance(found: "pd.DataFrame", genes: Sequence[str]) -> "pd.DataFrame":
    """Shares of the variance within sections, means over all genes and over the given ones: one row each."""
    import pandas as pd

    columns = ["visible", "hidden", "counting"]
    scored = found[found["gene"].isin(list(genes))]
    rows = {f"all {len(found)} genes": found, f"{len(scored)} chosen genes": scored}
    return pd.DataFrame({name: rows_[columns].mean() for name, rows_ in rows.items()}).T.round(3)
