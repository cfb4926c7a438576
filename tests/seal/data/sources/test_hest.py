"""HEST-1k's tree: where it lies, and how to get it."""

import pytest

from seal import paths, profiles
from seal.data.sources import her2st, hest
from seal.errors import SealError


def test_prepare_says_how_to_get_hest(monkeypatch, tmp_path):
    monkeypatch.setenv("SEAL_HEST", str(tmp_path / "hest"))
    with pytest.raises(SealError, match="holds no HEST-1k samples") as error:
        hest.prepare(profiles.get("maple"))
    assert "huggingface.co/datasets/MahmoodLab/hest" in error.value.do
    assert "python -m seal fetch" in error.value.do
    (tmp_path / "hest" / "st").mkdir(parents=True)
    assert hest.prepare(profiles.get("maple")) == tmp_path / "hest"


def test_hest_lies_with_the_other_samples_by_default():
    assert hest.home() == paths.samples("hest")


@pytest.mark.parametrize(("source", "profile"), [(hest, "maple"), (her2st, "her2st")])
def test_settings_that_a_source_does_not_read_are_refused(source, profile):
    with pytest.raises(SealError, match=f"{source.__name__} has no setting 'organs'") as caught:
        source.prepare(profiles.get(profile, source_settings__organs=("Breast",)))
    assert profile in caught.value.expected
