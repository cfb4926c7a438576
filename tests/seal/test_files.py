"""Atomic writes leave a whole file or none."""

import pickle

import pytest

from seal.errors import SealError
from seal.files import atomic, digest, read_json, sha256, write_json


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    folder = tmp_path / "new"
    path = write_json(folder / "a.json", [1])

    def interrupted():
        with atomic(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert read_json(path) == [1]
    assert [p.name for p in folder.iterdir()] == ["a.json"]


def test_folder_replaces_folder_as_a_whole(tmp_path):
    folder = tmp_path / "run"
    (folder / "old").mkdir(parents=True)
    with atomic(folder) as temporary:
        temporary.mkdir()
        (temporary / "new").touch()
    assert [p.name for p in folder.iterdir()] == ["new"]


def test_full_disk_names_the_file(tmp_path):
    with pytest.raises(SealError, match=r"a\.bin"), atomic(tmp_path / "a.bin"):
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("text", [None, "{"])
def test_bad_json_is_named(tmp_path, text):
    path = tmp_path / "a.json"
    if text:
        path.write_text(text)
    with pytest.raises(SealError, match=r"a\.json"):
        read_json(path)


def test_digests(tmp_path):
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1})
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256(tmp_path / "x").startswith("ba7816bf")


def test_errors_survive_a_worker_process():
    error = pickle.loads(pickle.dumps(SealError("a", expected="b", do="c")))
    assert str(error) == "a\n  expected: b\n  what to do: c"
