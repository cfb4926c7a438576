"""Running notebooks: by Papermill, with known parameters only, whole or not at all.

make asks `write_inputs` what to run, before there is an environment: Papermill is imported where it is used.
"""

import ast
import json
import os
import re
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seal import dependencies, paths, profiles
from seal.errors import SealError
from seal.files import atomic, digest

# The variable that names a copy of a source's data.
_COPY = {"seal.data.her2st": "SEAL_HER2ST", "seal.data.hest": "SEAL_HEST"}


def write_inputs(notebooks: list[Path], profile: str, folder: Path) -> None:
    """Write NAME.inputs for each notebook where its digest is not the one written there already.

    It is also written anew where the executed copy stands but what it had written was deleted.
    """
    places = [str(paths.home()), os.environ.get(_COPY.get(profiles.get(profile).source, ""))]
    folder.mkdir(parents=True, exist_ok=True)
    for notebook in notebooks:
        text = digest([dependencies.notebook_digest(notebook, profile), places]) + "\n"
        path = folder / f"{notebook.stem}.inputs"
        if not path.is_file() or path.read_text() != text or _lost(folder / notebook.name, profile):
            with atomic(path) as temporary:
                temporary.write_text(text)


def _lost(executed: Path, profile: str) -> bool:
    """Say whether an executed copy stands although its results, or the figures, were deleted."""
    drawn = paths.figures(profile) / "manifest.json"
    kept = paths.results(profile).is_dir() and (drawn.is_file() or not executed.name.startswith("08_"))
    return executed.is_file() and not kept


def run(notebook: Path, out: Path, parameters: Mapping[str, Any]) -> None:
    """Execute a notebook in its own folder, with this very Python, and write it with outputs to `out`.

    Where a cell fails, `out` stays absent and the notebook as far as it came is kept as NAME.failed.ipynb.
    Wall time and peak memory are printed, and added to costs.jsonl beside `out`.

    Raises
    ------
    SealError
        The notebook is missing, a parameter is not one of its own or has the wrong type, or a cell failed.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    _check_parameters(notebook, parameters)
    # tqdm has read its environment by now, so this silences the bars of the kernel, not Papermill's own.
    os.environ.update(TQDM_DISABLE="1", JUPYTER_PREFER_ENV_PATH="1")
    os.environ.pop("JUPYTER_PATH", None)  # may hold another "python3", of the user's or of a cluster
    failed = out.with_suffix(".failed.ipynb")
    failed.unlink(missing_ok=True)
    out.unlink(missing_ok=True)
    start = time.monotonic()
    with atomic(out) as temporary:
        try:
            papermill.execute_notebook(
                notebook,
                temporary,
                parameters=dict(parameters),
                cwd=notebook.parent,
                kernel_name="python3",
                progress_bar={"desc": notebook.stem} if sys.stderr.isatty() else False,
            )
        except PapermillExecutionError as error:
            temporary.replace(failed)
            raise _explained(notebook, failed, error) from None
        except DeadKernelError:
            raise SealError(
                f"{notebook.name}: its kernel died, most likely for want of memory",
                expected="the memory that `make help` gives for the profile",
                do="close other programs, do not use make -j, then run the same command",
            ) from None
    _report(notebook, out, time.monotonic() - start)


def _check_parameters(notebook: Path, parameters: Mapping[str, Any]) -> None:
    import papermill

    if not notebook.is_file():
        raise SealError(
            f"{notebook} is missing", expected="a notebook", do="give a path such as notebooks/01_dataset.ipynb"
        )
    known = papermill.inspect_notebook(notebook)
    unknown = sorted(set(parameters) - set(known))
    if unknown:  # Papermill itself would warn and go on
        raise SealError(
            f"{notebook.name} has no parameter {', '.join(map(repr, unknown))}",
            expected=f"one of {', '.join(known)}",
            do="correct the name, or add it to the notebook's parameters cell",
        )
    for name, value in parameters.items():
        default = ast.literal_eval(known[name]["default"])
        if type(value) is not type(default):
            raise SealError(
                f"{notebook.name}, parameter {name}={value}",
                expected=f"a value like {default!r}",
                do="give one of the same type",
            )


def _explained(notebook: Path, failed: Path, error: Any) -> SealError:
    """What went wrong in a cell, in one error; our own pass through as they are, others show their traceback."""
    if error.ename == "SealError":
        what, _, rest = error.evalue.partition("\n  expected: ")
        expected, _, do = rest.partition("\n  what to do: ")
        return SealError(f"{notebook.name}: {what}", expected=expected, do=do)
    trace = "\n".join(error.traceback)
    print(trace if sys.stderr.isatty() else re.sub(r"\x1b\[[0-9;]*m", "", trace), file=sys.stderr)
    return SealError(
        f"{notebook.name}, In [{error.exec_count}]: {error.ename}: {error.evalue}",
        expected="every cell to run",
        do=f"read {failed}, the notebook as far as it came",
    )


def _report(notebook: Path, out: Path, seconds: float) -> None:
    unit = 2**30 if sys.platform == "darwin" else 2**20  # macOS counts bytes, Linux KiB
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / unit  # of the largest process
    line = {"notebook": notebook.stem, "seconds": round(seconds, 1), "peak_gib": round(peak, 2)}
    with out.with_name("costs.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(f"{notebook.stem}: {seconds:.0f} s, peak memory {peak:.1f} GiB")


def copy_outputs(executed: Path, notebook: Path) -> None:
    """Put an executed notebook's outputs into its source, without what depends on the run's place or time."""
    import nbformat

    source, ran = nbformat.read(notebook, as_version=4), nbformat.read(executed, as_version=4)
    outputs = {cell["id"]: cell for cell in ran.cells if cell.cell_type == "code"}
    for number, cell in enumerate((cell for cell in source.cells if cell.cell_type == "code"), start=1):
        if cell["id"] not in outputs or outputs[cell["id"]].source != cell.source:
            raise SealError(
                f"{executed} was run from another version of {notebook.name}",
                expected=f"cell {cell['id']} as it is now",
                do="run make notebooks again",
            )
        cell.outputs = outputs[cell["id"]].outputs
        cell.execution_count = number
        for output in cell.outputs:
            if "execution_count" in output:
                output["execution_count"] = number
    with atomic(notebook) as temporary:
        nbformat.write(source, temporary)
