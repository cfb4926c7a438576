"""Put the outputs of executed notebooks into their sources, for committing: what `make notebooks` calls."""

import sys
from pathlib import Path

import nbformat

from seal.errors import SealError
from seal.files import atomic


def copy_outputs(executed: Path, notebook: Path) -> None:
    """Put an executed notebook's outputs into its source, without what depends on the run's place or time.

    Raises
    ------
    SealError
        It was run from another version of the notebook.
    """
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


if __name__ == "__main__":
    for name in sys.argv[1:]:
        copy_outputs(Path(name), Path("notebooks") / Path(name).name)
