"""How far counting alone lets a gene's expression be predicted, without knowing the truth."""

import numpy as np

from seal.data.expression import normalise, totals
from seal.data.pairs import Pairs
from seal.evaluate.metrics import pearson
from seal.evaluate.patch import parts

DRAWS, SEED = 5, 0  # a reliability is the mean of so many thinnings


def reliability(counts, columns: np.ndarray, target_sum: float) -> np.ndarray:
    """Reliability of some genes' normalised log expression over spots: the share of its variance that is not counting.

    2 r / (1 + r),  r the correlation of two halves of the counts, each normalised as the whole is

    A fair coin deals each transcript to a half; halves of Poisson counts are independent. But for chance, no
    prediction's correlation with what was measured exceeds the root of the reliability, its ceiling. What a spot's
    depth does to the logarithm counts as reliable.

    Parameters
    ----------
    counts
        Whole numbers of all genes, scipy CSR [spots, genes]; `columns` are the genes that are asked for.

    Returns
    -------
    At least 0; NaN for a gene that is constant in a half, [columns].

    Source: Spearman 1910 and Brown 1910; thinning is our choice.
    """
    rng, drawn = np.random.default_rng(SEED), []
    for _ in range(DRAWS):
        half, rest = counts.copy(), counts.copy()
        half.data = rng.binomial(counts.data.astype(np.int64), 0.5).astype(counts.dtype)
        rest.data = counts.data - half.data
        both = (normalise(h[:, columns], target_sum, np.maximum(totals(h), 1)).toarray() for h in (half, rest))
        drawn.append(pearson(*both))
    r = np.clip(np.mean(drawn, axis=0), 0, None)
    return 2 * r / (1 + r)


def table(pairs: Pairs):
    """One row a fold, test donor and test gene of its organ, over the very spots of the donor's score.

    Returns
    -------
    DataFrame with gene, organ, fold, donor, spots, counts (of the gene), reliability, ceiling.
    """
    import pandas as pd
    from scipy.sparse import vstack

    frames, counts = [], vstack([pairs.counts(section) for section in pairs.sections], format="csr")
    for fold in pairs.folds():
        names = np.array(pairs.panel(fold).test_genes)
        for part in parts(pairs, fold):
            genes, own = names[part.columns], counts[fold.test[part.rows]]
            columns = np.array([pairs.genes_counted.index(gene) for gene in genes])
            found = reliability(own, columns, pairs.profile.panel.target_sum)
            frame = pd.DataFrame({"gene": genes, "organ": part.organ, "fold": fold.name, "donor": part.donor})
            frame = frame.assign(spots=len(part.rows), counts=totals(own[:, columns].T))
            frames.append(frame.assign(reliability=found, ceiling=np.sqrt(found)))
    return pd.concat(frames, ignore_index=True)
