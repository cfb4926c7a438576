"""`python -m seal`: what make calls, and what a shell may."""

import argparse
import ast
import importlib
import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from seal import __version__, paths, profiles
from seal.errors import SealError, run_command
from seal.profiles import Profile


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m seal", description="SEAL companion")
    parser.add_argument("--version", action="version", version=f"seal {__version__}", help="say which version this is")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    listed = commands.add_parser("profiles", help="list the profiles and what each needs")
    train = commands.add_parser("train", help="train both stages, in one process or many")
    clean = commands.add_parser("clean", help="delete what a profile made; downloads and real samples stay")
    doctor = commands.add_parser("doctor", help="what this machine can run, and what each profile would download")
    fetch = commands.add_parser("fetch", help="download HEST-1k's samples; whole files are not fetched again")
    verify = commands.add_parser("verify", help="check every checksum of a profile's pairs")
    embed = commands.add_parser("embed", help="embed whole slides, in TRIDENT's layout")
    slides = commands.add_parser("slides", help="compare encoders on slides and labels of your own: features to report")
    ablate = commands.add_parser("ablate", help="run all ablations, the long ones too, with two seeds: ablations_long")
    for command in (train, clean, verify, ablate):
        command.add_argument("--profile", type=profiles.get, default="demo", help="demo (default), her2st or maple")
    listed.add_argument("name", nargs="?", type=profiles.get, help="of one of them")
    ablate.add_argument("--variants", nargs="+", default=("all",), metavar="NAME", help="long ones (default: all)")
    ablate.add_argument("--seeds", type=int, default=2, help="how many of the profile's (default: 2)")
    of_file = {"dest": "profile", "type": _read_profile, "metavar": "FILE"}
    train.add_argument("--profile-file", **of_file, help="a profile as JSON (profiles.to_json)")
    train.add_argument("--fold", action="append", help="name of what is left out (default: every fold in turn)")
    train.add_argument("--seed", type=int, action="append", help="default: the profile's seeds")
    train.add_argument("--method", default="seal", help="seal (default) or seal_shuffled, its control")
    setting = {"type": _read_setting, "metavar": "KEY=VALUE", "action": "append", "default": []}
    train.add_argument("--set", **setting, help="e.g. --set vision__rank=16")
    train.add_argument("--processes", type=int, help="on this machine (default: one a GPU)")
    doctor.add_argument("--json", action="store_true", help="the same as JSON")
    fetch.add_argument("--samples", nargs="+", metavar="ID", help="default: those that MAPLE takes")
    fetch.add_argument("--skip", nargs="+", metavar="ID", default=(), help="samples to go on without")
    fetch.add_argument("--slides", action="store_true", help="whole slides, wsis/, too: more than all the rest")
    fetch.add_argument("--revision", help="of the data set; default: the one fetched first, at first its newest")
    fetch.add_argument("--check", action="store_true", help="check the checksums of what is there already")
    fetch.add_argument("--workers", type=int, default=8, help="files at once (default: 8)")
    for command in (embed, slides):
        command.add_argument("slides", type=Path, nargs="+", help="slides, or folders of slides")
        command.add_argument("--out", type=Path, required=True, help="folder of all that is made; need not be there")
        command.add_argument("--um-per-px", type=float, default=0.5, help="of the patches (default: 0.5)")
        command.add_argument("--size", type=int, default=224, help="px a patch's side (default: 224)")
        command.add_argument("--precision", default="float32", choices=["float32", "bfloat16"], help="default: float32")
        command.add_argument("--slide-um-per-px", type=float, help="of the slides, whatever their files say")
    embed.add_argument("--model", required=True, help="a name of the encoder registry, or a saved model's folder")
    embed.add_argument("--overlap", type=int, default=0, help="px (default: 0)")
    of_models = {"nargs": "+", "required": True, "metavar": "MODEL"}
    slides.add_argument("--model", **of_models, help="as for embed; the others are compared with the first")
    slides.add_argument("--labels", type=Path, required=True, metavar="TABLE", help="csv or tsv, a slide a row")
    slides.add_argument("--case", default="case_id", metavar="COLUMN", help="of the patient (default: case_id)")
    slides.add_argument("--slide", default="slide_id", metavar="COLUMN", help="of the slide's name (default: slide_id)")
    slides.add_argument("--site", default="", metavar="COLUMN", help="of the hospital (default: site, if it is there)")
    of_tasks = {"nargs": "+", "default": (), "metavar": "COLUMN[=KIND]"}
    kinds = "classes, grades, numbers, survival (COLUMN_event, COLUMN_days)"
    slides.add_argument("--task", **of_tasks, help=f"KIND: {kinds}; default: every column that can be a task")
    slides.add_argument("--folds-seed", type=int, default=0, help="by which cases are dealt (default: 0)")
    slides.add_argument(
        "--mil", default="full", choices=["full", "small", "none"], help="ABMIL (default: Patho-Bench's)"
    )
    functions = (_profiles, _train, _clean, _doctor, _fetch, _verify, _embed, _slides, _ablate)
    for command, function in zip(commands.choices.values(), functions, strict=True):
        command.set_defaults(run=function)
    return parser


def _profiles(arguments: argparse.Namespace) -> None:
    for profile in [arguments.name] if arguments.name else profiles.PROFILES.values():
        print(f"PROFILE={profile.name:<8} {profile.label}; {profile.needs}")


def _verify(arguments: argparse.Namespace) -> None:
    from seal.data.assemble import verify

    print(verify(arguments.profile))


def _train(arguments: argparse.Namespace) -> None:
    """Train what is not trained yet; started by torchrun or accelerate, this is one of their processes."""
    from seal.data.assemble import assemble
    from seal.train import batches, parallel, runs

    profile, names, seeds = profiles.changed(arguments.profile, **dict(arguments.set)), arguments.fold, arguments.seed
    runs.require_trainable(profile, arguments.method, seeds or ())
    given = arguments.processes
    processes = parallel.gpus_to_share() if given is None else profiles.fitted("--processes", given, int, least=1)
    with parallel.main_first():
        pairs = assemble(profile)
    folds = [pairs.fold(name) for name in names or ()]
    if processes > 1 and not parallel.is_one_of_many():
        parallel.start_training(profile, names or (), seeds or (), arguments.method, processes)
        return
    source = batches.build(pairs)
    for run in runs.list_runs(pairs, [arguments.method], folds, seeds):
        runs.train_vision(run, source)
        if parallel.is_main():
            print(run.folder)


def _ablate(arguments: argparse.Namespace) -> None:
    """What notebook 04 does with the profile's ablations, with the long ones too."""
    from seal import results
    from seal.data.assemble import assemble
    from seal.evaluate import ablation
    from seal.evaluate.embeddings import embed_runs
    from seal.train import batches, runs

    own = {"evaluation__long_ablations": arguments.variants, "evaluation__ablation_seeds": arguments.seeds}
    pairs = assemble(profiles.changed(arguments.profile, **own))
    source, chosen = batches.build(pairs), ablation.list_runs(pairs)
    runs.train_runs(chosen, source)
    table = ablation.table(ablation.Ablation(pairs, embed_runs(pairs, source, chosen)))
    made_from = {"pairs": pairs.key, "tokens": source.key, "runs": runs.keys_of(chosen)}
    print(results.write_result(arguments.profile, "ablations_long", table, made_from))


def _read_profile(path: str) -> Profile:
    """Read the profile that a JSON file holds."""
    file = Path(path)
    if not file.is_file():
        raise SealError(f"{file} is missing", expected="a profile as JSON", do="correct the path, or give --profile")
    return profiles.from_json(file.read_text(encoding="utf-8"))


def _read_setting(option: str) -> tuple[str, object]:
    """Read KEY=VALUE with Python's notation of values; what is none is taken as text."""
    key, separator, value = option.partition("=")
    if not separator:
        raise SealError(
            f"setting {option!r} has no value", expected="KEY=VALUE", do="write, for example, --set vision__rank=16"
        )
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


def _doctor(arguments: argparse.Namespace) -> None:
    from seal import doctor

    report = doctor.report()
    print(json.dumps(report, indent=1) if arguments.json else doctor.text(report))


def _fetch(arguments: argparse.Namespace) -> None:
    from seal.data import fetch
    from seal.data.sources import hest

    workers = profiles.fitted("--workers", arguments.workers, int, least=1)
    root, selection = hest.home(), profiles.MAPLE.selection
    ids = arguments.samples or fetch.maple_ids(root, selection, arguments.revision)
    plan = fetch.plan(ids, root, arguments.revision, arguments.slides, arguments.skip)
    print(plan)
    fetch.fetch(plan, workers, arguments.check)


def _embed(arguments: argparse.Namespace) -> None:
    from seal import embed as slide_embeddings
    from seal.slides.patches import PatchSettings

    settings = PatchSettings(size=arguments.size, um_per_px=arguments.um_per_px, overlap=arguments.overlap)
    given = arguments.slides, arguments.model, arguments.out, settings, arguments.slide_um_per_px, arguments.precision
    for path in slide_embeddings.embed(*given):
        print(path)


def _slides(arguments: argparse.Namespace) -> None:
    from seal.evaluate import cohort
    from seal.slides.patches import PatchSettings

    own = ("labels", "out", "case", "slide", "site", "folds_seed", "slide_um_per_px", "precision", "mil")
    settings = cohort.CohortSettings(
        **{name: getattr(arguments, name) for name in own},
        **{"slides": tuple(arguments.slides), "models": tuple(arguments.model), "tasks": tuple(arguments.task)},
        patches=PatchSettings(size=arguments.size, um_per_px=arguments.um_per_px),
        command=shlex.join(["python", "-m", "seal", *arguments.given]),
    )
    print(cohort.compare_models(settings))


def _clean(arguments: argparse.Namespace) -> None:
    """Delete the folders that hold nothing but what the profile made: never HEST-1k, nor downloads."""
    profile = arguments.profile
    places = (paths.embeddings, paths.runs, paths.results, paths.figures, paths.pairs)
    folders = [paths.PROJECT / "build" / profile.name, *(place(profile.name) for place in places)]
    folders.append(paths.tokens(profile.name).parent)
    for other in (f"{profile.name},*", f".{profile.name}[.,]*.part"):  # of other settings; of a killed assembly
        folders += paths.pairs(profile.name).parent.glob(other)
    if profile.simulated:
        folders += importlib.import_module(profile.source).folders()
    for folder in folders:
        if folder.is_dir():
            shutil.rmtree(folder)
            print(f"deleted {folder}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    return run_command(_run, arguments)


def _run(arguments: Sequence[str] | None) -> None:
    parsed = _parser().parse_args(arguments)
    parsed.given = list(sys.argv[1:] if arguments is None else arguments)
    parsed.run(parsed)


if __name__ == "__main__":
    sys.exit(main())
