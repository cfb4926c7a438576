"""Every byte of assembled pairs is under a checksum."""

import json
import re

import pytest

from seal.data import assemble as assembly
from seal.data.assemble import assemble, verify
from seal.errors import SealError
from tests.seal.data.test_assemble import TREE, write_tree


@pytest.fixture
def pairs(tmp_path, monkeypatch):
    monkeypatch.setenv("SEAL_HEST", str(write_tree(tmp_path / "tree")))
    return assemble(TREE)


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_whole_pairs_pass(pairs):
    files = [path for path in pairs.folder.rglob("*") if path.is_file()]
    assert verify(TREE).startswith(f"{len(files)} files")


def test_every_file_is_under_a_checksum(pairs):
    """One flipped byte at the start, in the middle and at the end of each file is found, and its file named."""
    for path in sorted(path for path in pairs.folder.rglob("*") if path.is_file()):
        for place in (0, path.stat().st_size // 2, -1):
            whole = path.read_bytes()
            flip(path, place)
            with pytest.raises(SealError) as error:
                verify(TREE)
            assert path.name in error.value.what or path.name == "checksums.json", (path, place)
            path.write_bytes(whole)
    assert verify(TREE)


def test_a_flipped_byte_of_a_patch_names_sample_and_rows(pairs):
    section = pairs.sections[1]
    size = pairs.folder.joinpath("patches.npy").stat().st_size
    row = 28 * 28 * 3
    flip(pairs.folder / "patches.npy", size - (pairs.n_pairs - section.start - 2) * row)
    said = f"patches.npy differs from what was written: sample S1, rows {section.start} to {section.stop}"
    with pytest.raises(SealError, match=re.escape(said)):
        verify(TREE)


@pytest.mark.parametrize("name", ["patches.npy", "counts/indices.npy", "spots.parquet", "moments/S0.npz", "genes.json"])
def test_missing_and_shortened_files_are_named(pairs, name):
    path = pairs.folder / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(SealError, match=re.escape(str(path))):
        verify(TREE)
    path.unlink()
    with pytest.raises(SealError, match=re.escape(str(path))):
        verify(TREE)


def test_a_stranger_is_named(pairs):
    (pairs.folder / "folds" / "extra.npy").write_bytes(b"x")
    with pytest.raises(SealError, match=re.escape("extra.npy is not of these pairs")):
        verify(TREE)


def test_the_checksums_leave_no_byte_out(pairs):
    reached = dict.fromkeys(["pairs.json", "checksums.json"], 0)
    blocks = assembly._list_blocks(pairs.folder, json.loads((pairs.folder / "checksums.json").read_text()))
    for name, start, stop, *_ in sorted(blocks):
        assert start == reached.get(name, 0), name
        reached[name] = stop
    for path in (path for path in pairs.folder.rglob("*") if path.is_file()):
        name = path.relative_to(pairs.folder).as_posix()
        assert reached[name] == path.stat().st_size or name in ("pairs.json", "checksums.json")


def test_nothing_assembled():
    with pytest.raises(SealError, match="holds no assembled pairs"):
        verify(TREE)
