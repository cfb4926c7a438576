"""`pip install .` is whole: what the wheel holds, used from an empty folder where the clone cannot be seen."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from seal import profiles
from seal.paths import PROJECT

PACKAGES = ("seal", "seal_atlas")

# Where only the core is installed, as on a GPU node: a tiny encoder of random weights, pairs that were made elsewhere.
TRAIN = """
import os
from pathlib import Path
import numpy as np, torch
import seal
from seal import profiles
from seal.data import pairs as stored
from seal.embed import embed_patches
from seal.export.save import save
from seal.models import encoders
from seal.train import batches, runs

assert Path(seal.__file__).parent.parent == Path(os.environ["PYTHONPATH"].split(os.pathsep)[0])
toy, build = profiles.from_json(Path("toy.json").read_text()), encoders.build
encoders.build = lambda name, image_size=None, **_: build(name, weights="random", image_size=image_size, tiny=True)
pairs = stored.read(toy)
fold, source, patches = pairs.folds()[0], batches.build(pairs), pairs.patches[:4]
model = runs.train_vision(runs.Run(pairs, fold, 0), source)
assert runs.Run(pairs, fold, 0, "omics").read_log(), "stage 1 was not trained"
frozen = encoders.build(toy.encoder, image_size=toy.image_size)
before, after = (embed_patches(encoder, patches) for encoder in (frozen, model.encoder))
assert np.abs(after - before).max() > 1e-3, "stage 2 changed nothing"
save(model, Path("saved"), profile=toy, panel=pairs.panel(fold))
loaded, transform = seal.load("saved")
with torch.no_grad():
    np.testing.assert_allclose(loaded(torch.stack([transform(p) for p in patches])), after, atol=1e-4)
"""


def list_tracked() -> set[str]:
    """Every file of the packages, as a wheel should hold them."""
    found = (path for package in PACKAGES for path in (PROJECT / package).rglob("*"))
    return {p.relative_to(PROJECT).as_posix() for p in found if p.is_file() and "__pycache__" not in p.parts}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Build the wheel as pip does, from a copy: building leaves files beside the sources."""
    root = tmp_path_factory.mktemp("project")
    for package in PACKAGES:
        shutil.copytree(PROJECT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("figures", "tools", "tests"):  # lie there too, and stay out
        (root / name).mkdir()
        (root / name / "__init__.py").touch()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, root / name)
    run_pip("wheel", str(root), "--no-build-isolation", "--wheel-dir", str(root / "out"))
    return next((root / "out").glob("*.whl"))


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory) -> Path:
    """Install it without what it depends on, which this environment has: the folder."""
    folder = tmp_path_factory.mktemp("site")
    run_pip("install", str(wheel), "--target", str(folder))
    return folder


def run_pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", *arguments, "--no-deps", "--no-index", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def run_installed(site: Path, where: Path, code: str, **environment: str) -> str:
    """Run code with the installed package and this environment's others; -S keeps the clone's .pth file out."""
    own = {k: v for k, v in os.environ.items() if k not in ("SEAL_HOME", "PYTHONPATH", "NUMBA_CACHE_DIR")}
    others = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    own |= {"PYTHONPATH": os.pathsep.join([str(site), *others]), "HF_HUB_OFFLINE": "1", **environment}
    command = [sys.executable, "-S", "-c", code]
    done = subprocess.run(command, cwd=where, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def list_files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}


def test_wheel_holds_every_file_of_the_packages_and_no_other(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == list_tracked()
    assert {Path(name).suffix for name in held} >= {".py", ".csv", ".md", ".html"}


def test_tables_of_the_installed_package_are_read(site, tmp_path):
    """Every table, by the function that reads it."""
    code = (
        "from seal.data.maple import rules, same_donor; from seal.data.sources import her2st\n"
        "from seal_atlas import tables\n"
        "print(*map(len, (rules.bench_samples(), same_donor.known(), her2st.known_hashes(), tables.organs())))"
    )
    assert all(int(number) > 0 for number in run_installed(site, tmp_path, code).split())


def test_places_of_an_installed_package_start_where_python_was_started(site, tmp_path):
    (tmp_path / "later").mkdir()
    code = (
        "import os; from seal import paths, results\n"
        "os.chdir('later'); print(paths.home()); print(paths.given('SEAL_HEST')); print(results.commit()['commit'])"
    )
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)  # the user's own project
    assert run_installed(site, tmp_path, code, SEAL_HEST="hest").splitlines() == [
        *(str(tmp_path / "seal_home"), str(tmp_path / "hest"), "None")
    ]
    for home in ("elsewhere", str(tmp_path / "elsewhere")):
        out = run_installed(site, tmp_path, code, SEAL_HOME=home)
        assert out.splitlines()[0] == str(tmp_path / "elsewhere")


@pytest.mark.slow
def test_the_core_embeds_trains_saves_and_loads_and_writes_nothing_beside_the_package(
    site, tmp_path, small_home, small_profile
):
    work, before = tmp_path / "work", list_files(site)
    work.mkdir()
    shutil.copytree(small_home / "data" / "pairs", work / "seal_home" / "data" / "pairs")
    (work / "toy.json").write_text(profiles.to_json(small_profile), encoding="utf-8")
    run_installed(site, work, hide_extras() + TRAIN)
    assert list_files(site) == before
    assert {path.name for path in work.iterdir()} == {"seal_home", "saved", "toy.json"}
    new = list_files(work / "saved") | list_files(work / "seal_home" / "runs")
    weights = {path.name for path in new if path.suffix == ".safetensors"}
    assert weights >= {"omics.safetensors", "vision.safetensors", "adapter_model.safetensors", "model.safetensors"}
    assert {path.stat().st_mode for path in new} == {(work / "toy.json").stat().st_mode}, "not all can be read"


def hide_extras() -> str:
    """Code after which only what the core brings along can be imported, as if the rest were not installed."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    waiting, core = [Requirement(text) for text in project["dependencies"]], set()
    while waiting:
        wanted = waiting.pop()
        name, applies = canonicalize_name(wanted.name), wanted.marker is None or wanted.marker.evaluate({"extra": ""})
        if name not in core and applies:
            core.add(name)
            with suppress(metadata.PackageNotFoundError):  # CUDA's packages beside a CPU build of torch
                waiting += map(Requirement, metadata.requires(name) or [])
    owners = metadata.packages_distributions().items()
    names = {name for name, of in owners if not core & {canonicalize_name(package) for package in of}} - {*PACKAGES}
    assert {"pandas", "anndata", "scipy", "sklearn", "matplotlib", "pyarrow"} <= names
    return f"import sys\nsys.modules.update(dict.fromkeys({sorted(names)}))\n"
