"""The gene panel from sums over one streamed pass, against scanpy on the stacked matrix: time, peak memory, same panel.

Sections as spots are counted: a spot's depth and a region's programme scale each gene's rate, and a tenth or more of
the counts are not zero. A few sections are drawn, their spots' context mixed (outside the clock); every section that
is streamed takes spots from one of them at random, as many as it holds. Timed are normalisation, sums and selection.

The plain way normalises and stacks the same sections and asks scanpy, and takes an organ's test genes from the
stacked columns; it has `--plain` of the sections only, as many as its memory allows. The panels must be equal, gene
for gene (scanpy's single precision could let two genes change places whose dispersions differ by some 1e-6). Then all
of `--spots` are streamed, within `--limit` 10^9 bytes. Each runs in a process of its own, which has done the same for
two sections before, so that what is imported and compiled does not count in its seconds; peaks hold all of it.

    python benchmarks/panel.py [--spots 1000000] [--plain 10] [--genes 20000] [--limit 4] [--tiny]
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache

import numpy as np

DRAWN, SIDE, DONORS = 4, 50, 40  # sections drawn; spots a side of a section; donors, section by section in turn
SCORED = {"Breast": [f"D{i}" for i in range(0, DONORS, 3)], "Lung": [f"D{i}" for i in range(1, DONORS, 3)]}


@cache
def drawn(genes: int, side: int) -> list:
    """Raw counts and context of a few simulated sections, scipy CSR [side^2, genes] each."""
    from scipy.sparse import csr_array, vstack

    from seal.data.expression import spot_context
    from seal.data.grid import neighbours

    draw = np.random.default_rng(0)
    rates = draw.lognormal(-3.4, 1.9, genes)
    row, k = np.divmod(np.arange(side * side), side)
    adjacency = neighbours(row, 2 * k + row % 2, "visium")
    sections = []
    for _ in range(DRAWN):
        programmes = draw.lognormal(0, 0.5, (2, genes))  # of two regions, the upper and the lower half
        depth = draw.lognormal(0, 0.4, side * side)
        lines = np.split(np.arange(side * side), side)  # a line of spots at a time is dense
        means = (rates * programmes[int(row[line[0]] < side / 2)] * depth[line, None] for line in lines)
        counts = vstack([csr_array(draw.poisson(mean).astype(np.float32)) for mean in means], format="csr")
        sections.append((counts, spot_context(counts, adjacency, 0.5)))
    return sections


def streamed(sections: int, genes: int, side: int) -> Iterator[tuple[str, object, object]]:
    """Donor, raw counts and normalised log expression of one section after the other."""
    from seal.data.expression import normalise

    known = drawn(genes, side)
    for section in range(sections):
        spots = np.random.default_rng([1, section]).integers(0, side * side, side * side)
        counts, context = known[section % DRAWN]
        yield f"D{section % DONORS}", counts[spots], normalise(context[spots], 1e4)


def settings(genes: int):
    """The panel of the paper, or a tenth of the genes."""
    from seal.profiles import PanelSettings

    return PanelSettings(genes=min(2000, genes // 10))


def scored(sections: int) -> dict[str, list[str]]:
    """The donors that choose each organ's test genes, of those that these sections have."""
    have = {f"D{i % DONORS}" for i in range(sections)}
    return {organ: [donor for donor in donors if donor in have] for organ, donors in SCORED.items()}


def from_sums(sections: int, genes: int, side: int):
    """The panel as `seal` chooses it."""
    from tqdm import tqdm

    from seal.data import panel

    by_donor: dict[str, panel.Moments] = {}
    listed = np.ones(genes, dtype=bool)
    for donor, counts, log in tqdm(streamed(sections, genes, side), total=sections, desc="sections", unit="section"):
        part = panel.sum_spots(counts, log, listed)
        by_donor[donor] = panel.add_moments([by_donor[donor], part]) if donor in by_donor else part
    names = [f"G{i:05d}" for i in range(genes)]
    return panel.select(by_donor.__getitem__, by_donor, names, scored(sections), settings(genes))


def from_stack(sections: int, genes: int, side: int):
    """The panel from stacked matrices: scanpy, then the variances of its columns within each donor."""
    import anndata
    import pandas as pd
    import scanpy as sc
    from scipy.sparse import csr_matrix, vstack

    from seal.data.panel import Panel

    chosen = settings(genes)
    parts = list(streamed(sections, genes, side))
    donors = np.repeat([donor for donor, _, _ in parts], side * side)
    enough = sum(np.asarray(counts.sum(axis=0)) for _, counts, _ in parts) >= chosen.min_gene_counts
    names = np.array([f"G{i:05d}" for i in range(genes)])[enough]
    data = anndata.AnnData(csr_matrix(vstack([log[:, enough] for *_, log in parts])), var=pd.DataFrame(index=names))
    del parts
    ranked = sc.pp.highly_variable_genes(data, flavor="seurat", n_top_genes=chosen.genes, inplace=False)
    ranked = ranked[ranked["highly_variable"]].assign(gene=names[ranked["highly_variable"]])
    ranked = ranked.sort_values(["dispersions_norm", "gene"], ascending=[False, True])[: chosen.genes]
    values = data[:, ranked["gene"]].X.astype(np.float64)
    test = {}
    for organ, own in scored(sections).items():
        within = [np.square(part).mean(axis=0) - np.square(part.mean(axis=0)) for part in dense(values, donors, own)]
        detected = np.asarray((values[np.isin(donors, own)] > 0).mean(axis=0)).ravel()
        variance = np.where(detected >= 0.1, np.mean(within, axis=0), 0)
        order = sorted(range(chosen.genes), key=lambda i: (-variance[i], ranked["gene"].iloc[i]))
        test[organ] = tuple(ranked["gene"].iloc[i] for i in order[: chosen.test_genes] if variance[i] > 0)
    return Panel(tuple(ranked["gene"]), test, tuple(sorted(set(donors.tolist()))))


def dense(values, donors: np.ndarray, own: list[str]) -> Iterator[np.ndarray]:
    """The rows of one donor after the other."""
    return (values[donors == donor].toarray() for donor in own)


def child(way: str, sections: int, genes: int, side: int) -> None:
    """One way, in this process: seconds, peak memory and the panel."""
    from memory import peak_gb

    choose = {"sums": from_sums, "stack": from_stack}[way]
    share = float(np.mean([counts.nnz for counts, _ in drawn(genes, side)]) / (side * side * genes))
    choose(2, genes, side)
    start = time.perf_counter()
    panel = choose(sections, genes, side)
    line = {"seconds": time.perf_counter() - start, "peak_gb": peak_gb(), "spots": sections * side * side}
    print(json.dumps(line | {"nonzero_counts": share, "panel": [panel.genes, panel.test, panel.donors]}))


def apart(way: str, sections: int, genes: int, side: int) -> dict:
    """The same in a process of its own."""
    what = ["--child", way, "--plain", str(sections), "--genes", str(genes), "--side", str(side)]
    done = subprocess.run([sys.executable, __file__, *what], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spots", type=int, default=1_000_000, help="of the whole stream")
    parser.add_argument("--plain", type=int, default=10, help="sections that the plain way stacks")
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--side", type=int, default=SIDE, help=argparse.SUPPRESS)
    parser.add_argument(
        "--limit", type=float, default=4.0, help="peak memory that the whole stream may take, 10^9 bytes"
    )
    parser.add_argument("--tiny", action="store_true", help="some hundred spots, to see that it runs")
    parser.add_argument("--child", choices=("sums", "stack"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    spots, sections, genes, side = arguments.spots, arguments.plain, arguments.genes, arguments.side
    if arguments.child:
        child(arguments.child, sections, genes, side)
        return
    if arguments.tiny:
        spots, sections, genes, side = 1200, 6, 500, 10
    if sections < 4:
        parser.error("needs --plain 4 or more: two donors of an organ")

    from common import report

    plain, part = apart("stack", sections, genes, side), apart("sums", sections, genes, side)
    whole = apart("sums", -(-spots // (side * side)), genes, side)
    same = plain.pop("panel") == part.pop("panel")
    del whole["panel"]
    assert same, "the two ways choose different panels"
    report(
        "gene panel: sums over one streamed pass against scanpy on the stacked matrix",
        genes=genes,
        panel_genes=settings(genes).genes,
        stacked=plain,
        streamed=part,
        same_panel=same,
        ratio=plain["seconds"] / part["seconds"],
        memory_ratio=plain["peak_gb"] / part["peak_gb"],
        whole_stream=whole,
        memory_growth_gb=whole["peak_gb"] - part["peak_gb"],
        limit_gb=arguments.limit,
        within_limit=whole["peak_gb"] <= arguments.limit,
    )


if __name__ == "__main__":
    main()
