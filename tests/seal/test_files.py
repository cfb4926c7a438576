"""Atomic writes leave a whole file or none; what was made is known by what it was made from."""

import errno
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from seal import files
from seal.errors import SealError
from seal.files import (
    Made,
    atomic,
    contents,
    digest,
    lock,
    read_json,
    require_room,
    sha256,
    swap,
    write_json,
)
from seal.paths import PROJECT


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


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_what_is_written_has_the_mode_that_the_umask_gives(tmp_path, umask):
    """safetensors writes for the owner alone: a group could not read the weights that one of it trained."""
    before = os.umask(umask)
    try:
        with atomic(tmp_path / "alone.safetensors") as temporary:
            save_file({"w": torch.zeros(2)}, temporary)
        with atomic(tmp_path / "folder") as temporary:
            (temporary / "adapter").mkdir(parents=True)
            save_file({"w": torch.zeros(2)}, temporary / "adapter" / "w.safetensors")
            (temporary / "run.sh").touch(0o700)
        write_json(tmp_path / "plain.json", 1)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()}
    expected = 0o666 & ~umask
    assert modes.pop("run.sh") == 0o700 & ~umask, "modes that a writer chose stay"
    assert modes == dict.fromkeys(("alone.safetensors", "w.safetensors", "plain.json"), expected)


def test_full_disk_names_the_file(tmp_path):
    with pytest.raises(SealError, match=r"a\.bin"), atomic(tmp_path / "a.bin"):
        raise OSError(28, "No space left on device")


def test_a_place_that_is_none_is_one_error_without_bad_advice(tmp_path):
    (tmp_path / "file").touch()
    for write in (lambda: write_json(tmp_path / "file" / "a.json", 1), lambda: files.make_folder(tmp_path / "file")):
        with pytest.raises(SealError, match="cannot write") as error:
            write()
        assert "free some space" not in error.value.do
        assert "SEAL_HOME" in error.value.do


@pytest.mark.parametrize("number", [2, 13])  # missing; not to be read
def test_an_inputs_fault_is_not_called_a_full_disk(tmp_path, number):
    def write():
        with atomic(tmp_path / "a.bin") as temporary:
            temporary.touch()
            raise OSError(number, "", str(tmp_path / "input"))

    with pytest.raises((FileNotFoundError, PermissionError)):
        write()


def test_a_folder_that_cannot_be_written(tmp_path):
    with pytest.raises(SealError, match="Read-only") as error, atomic(tmp_path / "a.bin") as temporary:
        raise OSError(30, "Read-only file system", str(temporary))
    assert "free some space" not in error.value.do


def test_parts_of_a_living_process_stay(tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    code = (
        "import sys; from pathlib import Path; from seal.files import atomic\n"
        "with atomic(Path(sys.argv[1])) as new:\n    new.write_text('x'); print('there', flush=True); input()"
    )
    path = place / "a.txt"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "cwd": PROJECT, "text": True}
    other = subprocess.Popen([sys.executable, "-c", code, str(path)], **pipes)
    assert other.stdout.readline() == "there\n"
    files.remove_parts(place)
    assert other.communicate("\n", timeout=30)[0] == ""
    assert other.returncode == 0
    assert path.read_text() == "x"
    killed = subprocess.Popen([sys.executable, "-c", code, str(path)], **pipes)
    assert killed.stdout.readline() == "there\n"
    killed.kill()
    killed.communicate()
    elsewhere = place / ".a.000000-1-00000000.part.txt"
    elsewhere.touch()
    assert len(list(place.glob(".*"))) == 2
    files.remove_parts(place)
    assert set(place.iterdir()) == {path, elsewhere}, "what another host writes is not known here"


def test_folders_that_two_processes_finish_at_once(tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    code = (
        "import sys; from pathlib import Path; from seal.files import atomic\n"
        "for i in range(150):\n"
        "    with atomic(Path(sys.argv[1])) as new:\n        new.mkdir(); (new / 'a').touch(); (new / 'b').touch()"
    )
    both = [subprocess.Popen([sys.executable, "-c", code, str(place / "run")], cwd=PROJECT) for _ in range(3)]
    assert [process.wait(60) for process in both] == [0, 0, 0]
    assert [path.name for path in place.iterdir()] == ["run"]
    assert sorted(path.name for path in (place / "run").iterdir()) == ["a", "b"]


def test_a_lock_where_nothing_can_be_written(tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    (place / "file").touch()
    with lock(place / "file" / "x", "writes"):
        assert [path.name for path in place.iterdir()] == ["file"]


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


# --- what was made from what --------------------------------------------------------------------------------

PARTS = {"settings": {"rank": 8, "alpha": 8}, "slide": "abc"}


def kept(tmp_path, made: Made) -> Path:
    return write_json(tmp_path / "record.json", made.stamp() | {"more": 1})


def test_what_was_made_from_the_same_is_current(tmp_path):
    record = kept(tmp_path, Made("pairs", 1, PARTS))
    assert Made("pairs", 1, dict(reversed(PARTS.items()))).is_current(record)
    assert not Made("pairs", 1, PARTS).is_current(tmp_path / "none.json")


def test_what_has_changed_is_said(tmp_path, capsys):
    record = kept(tmp_path, Made("pairs", 1, PARTS))
    changed = {"settings": {"rank": 4, "alpha": 8}, "slide": "x" * 200, "new": 1}
    assert not Made("pairs", 1, changed).is_current(record)
    assert capsys.readouterr().err == (
        f"pairs in {tmp_path}: made anew, for these have changed: new, settings.rank, slide\n"
    )


@pytest.mark.parametrize("stamp", [{"key": "of old code"}, Made("pairs", 1, PARTS).stamp()])
def test_another_version_asks_and_an_answer_is_kept(tmp_path, monkeypatch, stamp):
    made, record = Made("pairs", 2, PARTS), write_json(tmp_path / "record.json", stamp)
    with pytest.raises(SealError, match=r"(?s)pairs in .* were made by .*SEAL_OLD=keep make figures"):
        made.is_current(record)
    monkeypatch.setenv("SEAL_OLD", "keep")
    assert made.is_current(record)
    monkeypatch.setenv("SEAL_OLD", "anew")
    assert not made.is_current(record)
    monkeypatch.setenv("SEAL_OLD", "yes")
    with pytest.raises(SealError, match="SEAL_OLD=keep"):
        made.is_current(record)


def test_changed_inputs_are_made_anew_whatever_the_version(tmp_path):
    record = kept(tmp_path, Made("pairs", 1, PARTS))
    assert not Made("pairs", 2, PARTS | {"slide": "abd"}).is_current(record)


# --- digests of files ---------------------------------------------------------------------------------------


def aged(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (1e9, 1e9))
    return path


def test_a_file_is_read_again_only_where_its_size_or_time_changed(home, monkeypatch):
    file = aged(home / "data" / "a", "one")
    (first,) = contents([file])
    assert first == sha256(file)
    monkeypatch.setattr(files, "sha256", lambda path: pytest.fail("read again"))
    assert contents([file]) == [first]
    monkeypatch.undo()
    aged(file, "two!")
    assert contents([file]) == [sha256(file)] != [first]


def test_a_copied_or_moved_home_is_known_again(home, monkeypatch, tmp_path):
    (first,) = contents([aged(home / "data" / "a", "one")])
    moved = home.rename(tmp_path / "moved")
    monkeypatch.setenv("SEAL_HOME", str(moved))
    monkeypatch.setattr(files, "sha256", lambda path: pytest.fail("read again"))
    assert contents([moved / "data" / "a"]) == [first]


def test_a_file_that_was_mended_in_the_moment_it_was_read_is_noticed(home):
    file = home / "data" / "a"
    file.write_text("one")
    stat = file.stat()
    (first,) = contents([file])
    file.write_text("two")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert contents([file]) != [first]


# --- whole or not at all ------------------------------------------------------------------------------------


def test_a_folder_takes_the_place_of_another(tmp_path):
    place = tmp_path / "place"
    for name in ("new", "old"):
        (place / name).mkdir(parents=True)
        (place / name / name).touch()
    swap(place / "new", place / "old")
    assert [path.name for path in place.iterdir()] == ["old"]
    assert [path.name for path in (place / "old").iterdir()] == ["new"]


def test_a_disk_without_room_is_named(tmp_path):
    require_room(tmp_path, 1, "tokens")
    with pytest.raises(SealError, match=r"GB free for 1000000000\.0 GB of tokens"):
        require_room(tmp_path, 10**18, "tokens")


def test_a_second_process_waits_for_the_lock(tmp_path):
    code = (
        "import sys; from pathlib import Path; from seal.files import lock\n"
        "with lock(Path(sys.argv[1]), 'writes'): print('in')"
    )
    with lock(tmp_path / "x", "writes"):
        other = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "x")],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert b"another process writes" in other.stderr.readline()
        assert other.poll() is None
    assert other.communicate(timeout=30)[0] == b"in\n"


# --- two at once, and places that cannot be written --------------------------------------------------------------


@pytest.mark.parametrize("kind", ["read-only", "no locks"])
def test_where_nothing_can_be_locked_work_goes_on(tmp_path, monkeypatch, capsys, kind):
    def refuse(*_):
        raise OSError(errno.EROFS if kind == "read-only" else errno.ENOLCK, kind)

    monkeypatch.setattr("fcntl.flock", refuse) if kind == "no locks" else monkeypatch.setattr(Path, "open", refuse)
    with files.lock(tmp_path / "a" / "thing", "makes"):
        reached = True
    assert reached
    assert ("knows no locks" in capsys.readouterr().err) == (kind == "no locks")


def test_a_lock_leaves_its_file_as_it_was(tmp_path):
    with files.lock(tmp_path / "thing", "makes"):
        os.utime(tmp_path / ".thing.lock", (1, 1))
    with files.lock(tmp_path / "thing", "makes"):
        pass
    assert (tmp_path / ".thing.lock").stat().st_mtime == 1


@pytest.mark.parametrize(("number", "advice"), [(errno.ENOSPC, "free some space"), (errno.EACCES, "permissions")])
def test_advice_is_true(tmp_path, monkeypatch, number, advice):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files, "swap", refuse)
    with pytest.raises(SealError, match="cannot write") as caught, files.atomic(tmp_path / "x") as temporary:
        temporary.write_text("x")
    assert advice in caught.value.do
    assert ("free some space" in caught.value.do) == (number == errno.ENOSPC)


# --- how far a job is ------------------------------------------------------------------------------------------


class Bar:
    """Stand in for tqdm: remember what it is told."""

    made: list["Bar"]

    def __init__(self, **options):
        self.options, self.done, self.notes, self.closed = options, 0, [], False
        Bar.made.append(self)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.closed = True

    def set_postfix_str(self, text, refresh):
        self.notes.append(text)

    def update(self, number):
        self.done += number


@pytest.fixture
def bars(monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setattr("tqdm.auto.tqdm", Bar)
    Bar.made = []
    return Bar.made


def test_jobs_inside_a_job_are_told_behind_its_bar(bars):
    with files.progress("training", 2, "run") as advance:
        for loss in (3, 2):
            with files.progress("stage 1", 5, "step", begun=3) as step:
                step(note=f"loss {loss}")
                with files.progress("digests", 1, "file") as deeper:
                    deeper()
            advance()
    (bar,) = bars
    assert (bar.done, bar.closed, files._bars) == (2, True, [])
    assert bar.notes[:3] == ["stage 1 4/5 loss 3", "digests 1/1", ""]
    assert {name: bar.options[name] for name in ("desc", "total", "unit", "initial", "disable")} == {
        **{"desc": "training", "total": 2, "unit": "run", "initial": 0, "disable": False}
    }
    with pytest.raises(KeyboardInterrupt), files.progress("x", 1, "y"):
        raise KeyboardInterrupt
    assert (bars[1].closed, files._bars) == (True, [])


@pytest.mark.parametrize(("variable", "off"), [("1", True), ("0", False), ("", False)])
def test_bars_can_be_turned_off(bars, monkeypatch, variable, off):
    """tqdm.notebook does not ask for the variable, so it must be told."""
    monkeypatch.setenv("TQDM_DISABLE", variable)
    with files.progress("x", 1, "y"):
        pass
    monkeypatch.setattr(files, "FIRST", False)
    with files.progress("x", 1, "y"):
        pass
    assert [bar.options["disable"] for bar in bars] == [off, True]


def test_what_was_found_and_made_is_said_once(bars, capsys, home):
    began = time.monotonic() - 214
    files.say_done("12 runs", home / "runs" / "demo", began, 9, 3, "trained")
    files.say_done("tokens", home / "data" / "tokens", began, 1, 0)
    files.say_done("tokens", home / "data" / "tokens", began, 0, 1)
    with files.progress("x", 1, "y"):
        files.say_done("tokens", home, began, 0, 1)
    written = capsys.readouterr()
    assert written.out == "", "a command's own output is left alone"
    assert written.err.splitlines() == [
        "12 runs: 9 loaded from runs/demo, 3 trained in 214 s",
        "tokens: loaded from data/tokens",
        "tokens: made in 214 s",
    ]


JUPYTER = """
import sys, types
import IPython
sys.modules["ipykernel.zmqshell"] = types.ModuleType("zmqshell")
sys.modules["ipywidgets"] = None
from seal.files import progress
with progress("x", 2, "y") as advance:
    advance(2)
"""


@pytest.mark.slow
def test_jupyter_without_ipywidgets_gets_a_bar_of_text_and_no_warning():
    pytest.importorskip("IPython")
    environment = {name: value for name, value in os.environ.items() if name != "TQDM_DISABLE"}
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", JUPYTER], capture_output=True, text=True, check=True, env=environment
    )
    assert "2/2" in done.stderr
    assert "IProgress" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("disabled", ["", "1"])
def test_a_cell_shows_one_widget_or_none(disabled, monkeypatch):
    nbformat, client = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipywidgets")
    monkeypatch.setenv("TQDM_DISABLE", disabled)
    code = """
from seal.files import progress
with progress("outer", 3, "run") as advance:
    for _ in range(3):
        with progress("inner", 5, "step") as step:
            step(5)
        advance()
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    client.NotebookClient(notebook, kernel_name="python3").execute()
    outputs = notebook.cells[0].outputs
    assert [output.output_type for output in outputs] == ([] if disabled else ["display_data"])
    if not disabled:
        assert "outer" in outputs[0].data["text/plain"]
        assert "application/vnd.jupyter.widget-view+json" in outputs[0].data
