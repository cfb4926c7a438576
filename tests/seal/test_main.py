"""The command line: light, and one message for bad input."""

import json
import subprocess
import sys

import pytest

import seal
from seal import paths, profiles, results
from seal.__main__ import _parser, _read_setting, main
from seal.data.assemble import assemble
from seal.errors import SealError
from seal.evaluate import ablation
from seal.train import batches, parallel, runs

HEAVY = "numpy torch timm peft h5py safetensors pandas matplotlib scanpy papermill nbformat"


def test_bad_input_is_one_message_and_exit_code_2(capsys):
    assert main(["clean", "--profile", "dmeo"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "unknown profile 'dmeo'" in captured.err
    assert len(captured.err.splitlines()) == 3


def test_what_make_asks_first_needs_no_environment():
    """`profiles` runs before there is an environment: -S leaves out installed packages."""
    for arguments in (["profiles"], ["profiles", "demo"]):
        subprocess.run([sys.executable, "-S", "-m", "seal", *arguments], cwd=paths.PROJECT, check=True)
    code = f"import sys, seal.__main__; sys.exit(' '.join(set('{HEAVY}'.split()) & set(sys.modules)) or 0)"
    subprocess.run([sys.executable, "-c", code], cwd=paths.PROJECT, check=True)


def test_profiles_are_listed_with_what_they_need(capsys):
    assert main(["profiles"]) == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("demo", "her2st", "maple", "GPU", "token", "simulated"))


def test_ctrl_c_is_no_traceback(monkeypatch, capsys):
    def interrupted(profile):
        raise KeyboardInterrupt

    monkeypatch.setattr("seal.__main__._clean", interrupted)
    assert main(["clean"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_clean_takes_what_the_profile_made_and_nothing_else(home, monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "PROJECT", tmp_path / "project")
    made = [tmp_path / "project" / "build" / "demo", home / "data" / "samples" / "atlas"]
    made += [home / "data" / kind / "demo" for kind in ("pairs", "tokens", "embeddings")]
    made += [home / kind / "demo" for kind in ("runs", "results", "figures")]
    made += [home / "data" / "pairs" / ".demo.0123456789ab.part", home / "data" / "pairs" / "demo,panel__genes=9"]
    made += [home / "data" / "samples" / "atlas,atlas__scale=2"]
    kept = [home / "data" / "samples" / "hest", home / "runs" / "her2st", home / "figures" / "reference"]
    kept += [home / "data" / "pairs" / ".her2st.0123456789ab.part"]
    for folder in (*made, *kept):
        folder.mkdir(parents=True)
        (folder / "file").write_text(json.dumps(1))
    assert main(["clean", "--profile", "demo"]) == 0
    assert not any(folder.exists() for folder in made)
    assert all((folder / "file").is_file() for folder in kept)
    assert (home / "data" / "downloads").is_dir()
    assert main(["clean", "--profile", "maple"]) == 0
    assert (kept[0] / "file").is_file(), "HEST-1k is the user's"


@pytest.fixture
def train(small, tmp_path):
    """Run `train` of the small profile, which comes as a file."""
    file = tmp_path / "profile.json"
    file.write_text(profiles.to_json(small))
    return lambda *more: main(["train", "--profile-file", str(file), "--seed", "0", *more])


def test_train_leaves_a_whole_run_and_does_not_train_it_again(small, train, capsys, monkeypatch):
    pairs = assemble(small)
    fold = pairs.folds()[1]
    assert train("--fold", fold.name) == 0
    folder = runs.Run(pairs, fold, 0, "seal").folder
    assert capsys.readouterr().out == f"{folder}\n"
    assert (folder / "run.json").is_file()
    assert [p.name for p in folder.parent.parent.parent.iterdir()] == [fold.name]
    monkeypatch.setattr(runs, "fit", lambda *_: pytest.fail("trained again"))
    assert train("--fold", fold.name) == 0
    assert capsys.readouterr().out == f"{folder}\n"


def test_train_with_processes_starts_the_same_in_all_of_them(small, train, monkeypatch):
    started = []
    monkeypatch.setattr(parallel, "start_training", lambda *what: started.append(what))
    monkeypatch.setattr(runs, "train_vision", lambda *_: pytest.fail("trained here"))
    assert train("--processes", "2", "--method", "seal_shuffled", "--set", "vision__rank=3") == 0
    # once, not once a run: each start costs reading everything anew
    assert started == [(profiles.changed(small, vision__rank=3), (), [0], "seal_shuffled", 2)]


def test_ablate_runs_the_long_ones_with_two_seeds_and_writes_them_apart(small, monkeypatch, capsys):
    small = profiles.changed(small, evaluation__ablation_folds=1, omics__epochs=1, vision__epochs=1)
    few = {name: ablation.VARIANTS[name] for name in ("no_info", "loss_l1")}
    monkeypatch.setitem(profiles.PROFILES, "demo", small)
    monkeypatch.setattr(ablation, "VARIANTS", few)
    assert few["loss_l1"].long
    assert main(["ablate"]) == 0
    table = results.read_result(small, "ablations_long")
    assert table.groupby("method")["seeds"].unique().map(list).to_dict() == {
        **{name: [2] for name in ("full", *few)},
        "frozen": [1],
    }
    assert capsys.readouterr().out == f"{results.result_path(small, 'ablations_long')}\n"
    with pytest.raises(SealError, match=r"ablations\.csv is missing"):
        results.read_result(small, "ablations")


def test_settings_are_read_as_python_values_or_text():
    options = ["vision__rank=16", "vision__lr=1e-4", "encoder=uni2_h", "evaluation__seeds=(0, 1)", "a=b=c"]
    assert dict(map(_read_setting, options)) == {
        "vision__rank": 16,
        "vision__lr": 1e-4,
        "encoder": "uni2_h",
        "evaluation__seeds": (0, 1),
        "a": "b=c",
    }
    with pytest.raises(SealError, match="setting 'vision__rank' has no value"):
        _read_setting("vision__rank")


@pytest.mark.parametrize(
    ("more", "what", "expected"),
    [
        (["--fold", "nobody"], "unknown fold 'nobody'", "one of SIM-BREAST-01, "),
        (["--set", "vision__rnak=4"], "unknown setting 'vision__rnak' of profile 'demo'", "nested ones as"),
        (["--set", "vision__rank"], "setting 'vision__rank' has no value", "KEY=VALUE"),
        (["--set", "vision__rank=0"], "vision.rank is 0", "at least 1"),
        (["--profile-file", "none.json"], "none.json is missing", "a profile as JSON"),
        (["--method", "saal"], "unknown method 'saal'", "one of seal, seal_shuffled"),
    ],
)
def test_train_with_a_wrong_word_is_one_message(train, capsys, more, what, expected):
    assert train(*more) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("error: ") == 1
    assert f"error: {what}" in captured.err
    assert expected in captured.err
    assert "Traceback" not in captured.err


WRONG = [
    (["--method", "sael"], "unknown method 'sael'", "did you mean 'seal'?"),
    (["--set", "vision__adapter=lroa"], "vision.adapter is 'lroa'", "did you mean 'lora'?"),
    (["--set", "encoder=uni2h"], "unknown encoder 'uni2h'", "did you mean 'uni2_h'?"),
    (["--set", "vision__lr=abc"], "vision.lr is 'abc'", "a number"),
    (["--set", "vision__batch=1"], "vision.batch is 1", "at least 2"),
    (["--set", "vision__rank=8.5"], "vision.rank is 8.5", "a whole number"),
    (["--set", "vision__temperature=0"], "vision.temperature is 0", "above 0"),
    (["--set", "vision__epochs=0"], "vision.epochs is 0", "at least 1"),
    (["--set", "vision__blocks=99"], "vision.blocks is 99", "at most 12"),
    (["--set", "evaluation__folds=1"], "evaluation.folds is 1", "not 1"),
    (["--set", "evaluation__seeds=()"], "evaluation.seeds is ()", "one value or more"),
    (["--seed", "-1"], "seed is -1", "at least 0"),
    (["--processes", "0"], "--processes is 0", "at least 1"),
    (["--processes", "-2"], "--processes is -2", "at least 1"),
]


@pytest.mark.parametrize(("more", "what", "said"), WRONG, ids=lambda value: value[-1] if type(value) is list else "")
def test_a_wrong_word_is_told_before_anything_is_computed_or_removed(
    train, home, capsys, monkeypatch, more, what, said
):
    monkeypatch.setattr("seal.data.assemble.assemble", lambda *_: pytest.fail("assembled first"))
    monkeypatch.setattr(parallel, "start_training", lambda *_: pytest.fail("started first"))
    before = sorted(home.rglob("*"))
    assert train(*more) == 2
    captured = capsys.readouterr()
    assert f"error: {what}" in captured.err
    assert said in captured.err
    assert len(captured.err.splitlines()) == 3
    assert sorted(home.rglob("*")) == before


def test_an_unknown_fold_is_told_before_tokens_are_made_or_processes_started(train, capsys, monkeypatch):
    monkeypatch.setattr(batches, "build", lambda *_: pytest.fail("tokens first"))
    monkeypatch.setattr(parallel, "start_training", lambda *_: pytest.fail("started first"))
    for more in ([], ["--processes", "2"]):
        assert train("--fold", "SIM-BREAST-O1", *more) == 2
        assert "did you mean 'SIM-BREAST-01'?" in capsys.readouterr().err


def test_a_wrong_word_leaves_a_finished_run_as_it_is(small, train, capsys):
    fold = assemble(small).folds()[0]
    assert train("--fold", fold.name) == 0
    folder = runs.Run(assemble(small), fold, 0).folder
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for more in (["--set", "vision__lr=abc"], ["--method", "sael"], ["--set", "vision__adapter=lroa"]):
        assert train("--fold", fold.name, *more) == 2
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_every_option_of_every_command_has_its_help():
    (commands,) = (action for action in _parser()._actions if action.choices)
    assert len(commands.choices) == 9
    for name, command in commands.choices.items():
        assert [a.option_strings or a.dest for a in command._actions if not a.help] == [], name


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"seal {seal.__version__}\n"


def test_no_files_at_once_are_refused(capsys):
    assert main(["fetch", "--workers", "0"]) == 2
    assert "--workers is 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong", [["--size", "0"], ["--overlap", "224"], ["--overlap", "-1"], ["--um-per-px", "0"], ["--um-per-px", "-1"]]
)
def test_settings_of_embed_are_looked_at_first(tmp_path, capsys, wrong):
    assert main(["embed", str(tmp_path), "--model", "none", "--out", str(tmp_path / "out"), *wrong]) == 2
    assert "change --um-per-px, --size or --overlap" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["train", "profiles", "clean", "verify", "embed", "fetch", "doctor", "ablate"])
def test_each_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    assert "usage: python -m seal" in capsys.readouterr().out
