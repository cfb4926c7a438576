import numpy as np
import pytest

from seal.errors import SealError
from seal_atlas import tables
from seal_atlas.counting import transcripts
from seal_atlas.counting.transcripts import SpotTruth

KINDS, PROGRAMMES = list(tables.cell_types()), list(tables.programmes())
GENES = list(transcripts.gene_names())


def truth(rng, n=300, cells=("tumour", "fibroblast", "t_cell", "macrophage", "endothelial")):
    """Spots with random RNA of a few cell types and random activity."""
    rna = np.zeros((n, len(KINDS)))
    rna[:, [KINDS.index(c) for c in cells]] = rng.gamma(1.0, 3.0, (n, len(cells)))
    return SpotTruth(rna, rng.uniform(0.05, 0.6, (n, len(PROGRAMMES))))


def own(programme, without=()):
    """Genes of a programme that no other has."""
    shares = transcripts.programme_shares()
    others = sum((values > 0).astype(int) for name, values in shares.items() if name != programme)
    return np.flatnonzero((shares[programme] > 0) & (others == 0))


def share_of(counts, genes):
    return counts[:, genes].sum(axis=1) / np.maximum(counts.sum(axis=1), 1)


# --- the tables


def test_genes_are_symbols_and_every_cell_type_has_markers():
    assert len(set(GENES)) == len(GENES)
    assert 1000 < len(GENES) < 2000
    assert all(gene == gene.upper() or "ORF" in gene.upper() for gene in GENES)
    for kind in KINDS:
        if kind != "tumour":
            assert (transcripts.programme_shares()[kind] > 0).sum() >= 8, kind
    for programme in PROGRAMMES:
        assert (transcripts.programme_shares()[programme] > 0).sum() >= 20


def test_pathway_genes_lie_in_the_hallmark_sets(shared):
    path = shared / "genesets" / "h.all.v7.0.symbols.gmt"
    sets = {line.split("\t")[0]: set(line.strip().split("\t")[2:]) for line in path.read_text().splitlines()}
    for name, programme in tables.programmes().items():
        allowed = set().union(*(sets[hallmark] for hallmark in programme.hallmark.split()))
        genes = {GENES[i] for i in np.flatnonzero(transcripts.programme_shares()[name])}
        assert len(genes & allowed) >= 0.95 * len(genes), name


@pytest.mark.parametrize("organ", ["Breast", "Heart", "Kidney", "Thyroid"])
def test_profiles_are_shares(organ):
    profiles = transcripts.cell_type_profiles(organ)
    assert profiles.shape == (len(KINDS), len(GENES))
    np.testing.assert_allclose(profiles.sum(axis=1), 1)
    assert (profiles > 0).all()  # no gene is ever quite silent


@pytest.mark.parametrize(
    ("line", "what"),
    [("EPCAM,luminal,10", "luminal"), ("EPCAM,hepatocyte,0", "EPCAM"), ("EPCAM,hepatocyte,much", "much")],
)
def test_a_bad_line_of_the_gene_table_is_named(tmp_path, line, what):
    path = tmp_path / "genes.csv"
    path.write_text(f"gene,programme,weight\nALB,hepatocyte,10\n{line}\n")
    with pytest.raises(SealError, match=rf"genes\.csv, line 3: '{what}'"):
        transcripts.gene_names(path)


def test_scalars_are_each_there_once(tmp_path):
    text = (tables.FOLDER / "expression.csv").read_text()
    path = tmp_path / "expression.csv"
    path.write_text("\n".join(line for line in text.splitlines() if not line.startswith("ambient")))
    with pytest.raises(SealError, match="lacks ambient"):
        transcripts.expression_parameters(path)
    path.write_text(text + "\nambient, .2, share, again\n")
    with pytest.raises(SealError, match="'ambient'"):
        transcripts.expression_parameters(path)


# --- composition and activity to counts


def test_markers_follow_their_cells():
    rng = np.random.default_rng(0)
    spots = truth(rng)
    counts = transcripts.simulate_counts(rng, spots, "Breast", "Cancer", "D1", "A").counts
    fraction = spots.rna / spots.rna.sum(axis=1, keepdims=True)
    for cell in ("fibroblast", "t_cell", "macrophage", "endothelial"):
        markers = share_of(counts, own(cell))
        right = np.corrcoef(fraction[:, KINDS.index(cell)], markers)[0, 1]
        wrong = np.corrcoef(np.roll(fraction[:, KINDS.index(cell)], 150), markers)[0, 1]
        assert right > 0.6, cell
        assert abs(wrong) < 0.25, cell


def test_a_tumours_genes_are_its_organs():
    rna = np.zeros((50, len(KINDS)))
    rna[:, KINDS.index("tumour")] = 5.0
    spots = SpotTruth(rna, np.full((50, len(PROGRAMMES)), 0.2))
    share = {o: transcripts.expected_shares(spots, o).mean(axis=0) for o in ("Kidney", "Skin")}
    for organ, other in (("Kidney", "Skin"), ("Skin", "Kidney")):
        genes = own(f"tumour_{organ}")
        assert share[organ][genes].sum() > 5 * share[other][genes].sum()


@pytest.mark.parametrize("programme", ["hypoxia", "p53", "myc"])
def test_a_programme_drives_its_genes_alone(programme):
    low, high = (SpotTruth(truth(np.random.default_rng(2)).rna, np.full((300, len(PROGRAMMES)), 0.1)) for _ in range(2))
    high.activity[:, PROGRAMMES.index(programme)] = 0.9
    before, after = (transcripts.expected_shares(t, "Breast").mean(axis=0) for t in (low, high))
    ratio = after / before
    mine = transcripts.programme_shares()[programme] > 0
    assert np.median(ratio[mine]) > 1.5
    assert ((ratio[~mine] > 0.8) & (ratio[~mine] <= 1.0)).all()  # shares sum to 1: the others give way a little


def test_the_oracle_sees_seen_programmes_and_no_others():
    rng = np.random.default_rng(3)
    spots = truth(rng)
    for name, programme in tables.programmes().items():
        moved = SpotTruth(spots.rna, spots.activity.copy())
        moved.activity[:, PROGRAMMES.index(name)] += 0.3
        pair = [
            transcripts.simulate_counts(np.random.default_rng(0), t, "Breast", "Cancer", "D", "A")
            for t in (spots, moved)
        ]
        assert np.array_equal(pair[0].oracle, pair[1].oracle) == (not programme.seen), name
        assert not np.array_equal(pair[0].ceiling, pair[1].ceiling), name


def test_shares_sum_to_one_and_the_oracle_stays_below_the_ceiling():
    rng = np.random.default_rng(4)
    made = transcripts.simulate_counts(rng, truth(rng, 600), "Bowel", "Cancer", "D", "B")
    total = made.counts.sum(axis=1, keepdims=True)
    measured = np.log1p(1e4 * made.counts / total)
    top = np.argsort(measured.var(axis=0) * (made.counts > 0).mean(axis=0))[-60:]
    scores = []
    for layer in (made.oracle, made.ceiling):
        np.testing.assert_allclose(layer.sum(axis=1), 1, rtol=1e-4)
        x = np.log1p(1e4 * layer)
        scores.append(np.mean([np.corrcoef(x[:, g], measured[:, g])[0, 1] for g in top]))
    assert 0.2 < scores[0] < scores[1] < 0.95


def test_a_spot_without_cells_has_the_sections_ambient_rna():
    spots = truth(np.random.default_rng(5))
    spots.rna[0] = 0
    share = transcripts.expected_shares(spots, "Breast")
    without = transcripts.expected_shares(SpotTruth(spots.rna[1:], spots.activity[1:]), "Breast")
    assert np.corrcoef(share[0], without.mean(axis=0))[0, 1] > 0.99
    made = transcripts.simulate_counts(np.random.default_rng(6), spots, "Breast", "Cancer", "D", "A")
    assert 0 < made.counts[0].sum() < np.median(made.counts[1:].sum(axis=1))


def test_a_section_without_cells_is_an_error():
    spots = SpotTruth(np.zeros((4, len(KINDS))), np.full((4, len(PROGRAMMES)), 0.1))
    with pytest.raises(SealError, match="no spot of the section has a cell"):
        transcripts.simulate_counts(np.random.default_rng(0), spots, "Breast", "Cancer", "D", "A")


# --- the law of the counts


def test_counts_are_negative_binomial(monkeypatch):
    still = {**transcripts.expression_parameters(), "library_sd": 0.0}
    monkeypatch.setattr(transcripts, "expression_parameters", lambda: still)
    share = np.tile(np.linspace(1, 60, 200) / np.linspace(1, 60, 200).sum(), (6000, 1))
    counts = transcripts.draw_counts(np.random.default_rng(0), share, np.ones(6000), 1.0)
    mean, variance = counts.mean(axis=0), counts.var(axis=0)
    np.testing.assert_allclose(mean, still["median_counts"] * share[0], rtol=0.06)
    high = mean > 15
    dispersion = (variance[high] - mean[high]) / mean[high] ** 2
    assert np.median(dispersion) == pytest.approx(still["dispersion"], rel=0.1)


def test_donors_and_sites_have_effects_of_their_own():
    same, again = transcripts.donor_and_site_effects("D1", "A"), transcripts.donor_and_site_effects("D1", "A")
    np.testing.assert_array_equal(same, again)
    donor = np.log(transcripts.donor_and_site_effects("D2", "A") / same)
    site = np.log(transcripts.donor_and_site_effects("D1", "B") / same)
    p = transcripts.expression_parameters()
    assert donor.std() == pytest.approx(p["donor_sd"] * 2**0.5, rel=0.1)
    assert site.std() == pytest.approx(p["site_sd"] * 2**0.5, rel=0.1)
    assert abs(np.corrcoef(donor, site)[0, 1]) < 0.6  # they share the effect of D1 at A alone


def test_the_same_seed_draws_the_same_counts():
    drawn = [
        transcripts.simulate_counts(
            np.random.default_rng(s), truth(np.random.default_rng(1)), "Lung", "Cancer", "D", "A"
        ).counts
        for s in (1, 1, 2)
    ]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()


# --- what the ceiling knows and the oracle does not


def test_a_gene_twice_in_a_programme_is_named(tmp_path):
    path = tmp_path / "genes.csv"
    path.write_text("gene,programme,weight\nALB,hepatocyte,10\nALB,hepatocyte,3\n")
    with pytest.raises(SealError, match=r"genes\.csv, line 3: 'ALB'"):
        transcripts.gene_names(path)


def test_a_programme_acts_in_its_own_cells_alone():
    column = PROGRAMMES.index("androgen_response")
    genes = transcripts.programme_shares()["androgen_response"] > 0
    ratio = {}
    for cell in ("prostate_luminal", "fibroblast"):
        rna = np.zeros((4, len(KINDS)))
        rna[:, KINDS.index(cell)] = 5.0
        low, high = (SpotTruth(rna, np.full((4, len(PROGRAMMES)), 0.1)) for _ in range(2))
        high.activity[:, column] = 0.9
        shares = [transcripts.expected_shares(t, "Prostate")[0][genes].sum() for t in (low, high)]
        ratio[cell] = shares[1] / shares[0]
    assert ratio["prostate_luminal"] > 1.2
    assert ratio["fibroblast"] == pytest.approx(1)


def test_a_donors_effect_moves_the_ceiling_and_the_counts_but_not_the_oracle():
    spots = truth(np.random.default_rng(7))
    first, other = (
        transcripts.simulate_counts(np.random.default_rng(0), spots, "Breast", "Cancer", donor, "A")
        for donor in ("D1", "D2")
    )
    np.testing.assert_array_equal(first.oracle, other.oracle)
    wanted = np.log(transcripts.donor_and_site_effects("D2", "A") / transcripts.donor_and_site_effects("D1", "A"))
    true = np.log(other.ceiling.mean(axis=0) / first.ceiling.mean(axis=0))
    assert np.corrcoef(wanted, true)[0, 1] > 0.98
    often = first.counts.mean(axis=0) > 5
    drawn = np.log(other.counts.sum(axis=0)[often] / first.counts.sum(axis=0)[often])
    assert np.corrcoef(wanted[often], drawn)[0, 1] > 0.9


def test_states_of_cells_that_look_alike_are_hidden():
    rna = np.zeros((200, len(KINDS)))
    rna[:, KINDS.index("fibroblast")] = 5.0  # every spot looks the same
    spots = SpotTruth(rna, np.full((200, len(PROGRAMMES)), 0.2))
    made = transcripts.simulate_counts(np.random.default_rng(8), spots, "Breast", "Healthy", "D", "A")
    markers = own("fibroblast")
    assert np.log(made.oracle[:, markers]).std(axis=0).max() < 1e-5
    assert np.log(made.ceiling[:, markers]).std(axis=0).min() > 0.1


def test_a_sections_depth_scales_its_counts():
    share = np.full((500, 20), 1 / 20)
    shallow, deep = (
        transcripts.draw_counts(np.random.default_rng(0), share, np.ones(500), depth).mean() for depth in (1.0, 3.0)
    )
    assert deep / shallow == pytest.approx(3, rel=0.05)


def test_a_spot_without_cells_has_exactly_the_sections_mean_rna():
    spots = truth(np.random.default_rng(9), 40)
    spots.rna[0] = 0
    share = transcripts.expected_shares(spots, "Breast")
    total = spots.rna.sum(axis=1)
    a, m = transcripts.expression_parameters()["ambient"], np.median(total[1:])
    weight = (a * m / (a * m + (1 - a) * total))[:, None]
    cells = (share - weight * share[0]) / np.where(weight < 1, 1 - weight, 1)  # what is left without ambient RNA
    # A spot's RNA counts by how much there is of it, with what its programmes add.
    programmes = np.array([p.share for p in tables.programmes().values()])
    amount = total + (spots.activity * (spots.rna @ transcripts.programme_reach()) * programmes).sum(axis=1)
    np.testing.assert_allclose(share[0], amount @ cells / amount.sum(), rtol=1e-9)
