import hashlib

import numpy as np
import pytest

from seal.data.maple.rules import ORGANS
from seal.errors import SealError
from seal_atlas import tables

COLUMNS = "organ,role,parent\n"


def test_the_organs_are_maples_14_and_two_that_training_never_sees():
    seen = [name for name, organ in tables.organs().items() if organ.role == "atlas"]
    assert seen == list(ORGANS)
    assert [name for name, organ in tables.organs().items() if organ.role == "unseen"] == ["Thyroid", "Spleen"]


def test_donors_have_the_papers_disease_states():
    sites, organs = tables.sites(), tables.organs()
    donors = [d for d in tables.donors() if "unseen" not in (sites[d.site].role, organs[d.organ].role)]
    assert len(donors) == 56
    assert len({d.donor for d in tables.donors()}) == len(tables.donors())
    share = {state: 100 * sum(d.state == state for d in donors) / 56 for state in tables.STATES}
    paper = {"Cancer": 42.8, "Diseased": 19.4, "Healthy": 32.2, "Treated": 5.6}  # caption of figure 1
    np.testing.assert_allclose([share[s] for s in paper], list(paper.values()), atol=0.5)
    for organ in ORGANS:
        assert len({d.site for d in donors if d.organ == organ}) == 4  # site never stands for a donor's state


def test_every_donors_tissue_is_in_the_tables():
    for donor in tables.donors():
        tissue = tables.architecture(donor.organ, donor.state)
        assert tissue.compartments
        assert tissue.structures or tissue.densities
    assert tables.states_of("Heart") == ("Diseased", "Healthy")


def test_a_tissue_that_is_not_there_is_named():
    with pytest.raises(SealError, match="no Cancer Heart"):
        tables.architecture("Heart", "Cancer")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (COLUMNS + "Liver,atlas\n", "line 2"),
        (COLUMNS + "# a remark\nLiver,atlas,\n", "line 3"),
        ("organ,role\nLiver,atlas\n", "has the columns"),
    ],
)
def test_a_bad_line_is_named(tmp_path, text, what):
    path = tmp_path / "organs.csv"
    path.write_text(text)
    with pytest.raises(SealError, match=what):
        tables.read_typed(tables.Organ, path)


@pytest.mark.parametrize("value", ["many", "nan", "inf"])
def test_a_value_that_is_no_number_is_named(tmp_path, value):
    path = tmp_path / "densities.csv"
    path.write_text(f"organ,states,compartment,cell,per_mm2,crowding\nLiver,H,lobule,t_cell,{value},0.4\n")
    with pytest.raises(SealError, match=r"densities\.csv, line 2"):
        tables.read_typed(tables.Density, path)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(SealError, match=r"organs\.csv is missing"):
        tables.read_numbered(tmp_path / "organs.csv")


def test_the_parameters_are_pinned():
    """They are fixed before results are looked at. A change needs a line in the changelog of seal_atlas/README.md."""
    readme = (tables.FOLDER.parent / "README.md").read_text(encoding="utf-8")
    digest = hashlib.sha256()
    for path in sorted(tables.FOLDER.glob("*.csv")):
        digest.update(path.name.encode() + path.read_bytes())
    version, wanted = PINNED
    assert digest.hexdigest()[:16] == wanted, "a table changed: say why in the changelog, then pin the new hash"
    assert f"\n- {version}: " in readme
    assert f"\n- {version + 1}: " not in readme


PINNED = (1, "e450d473b82ce597")
