"""`python -m tools.hest_audit`: what fingerprints find is written beside HEST-1k's table, and heeded from then on."""

import argparse
import sys
from collections.abc import Sequence

from seal import paths, profiles
from seal.data import maple
from seal.data.samples import find_hest_table, read_samples
from seal.data.sources import hest
from seal.errors import SealError
from seal.files import atomic
from tools.hest_audit import compare


def audit(workers: int) -> str:
    """Compare all of HEST-1k's samples on disk by their files, write what is shared to overlaps.csv and say it.

    Raises
    ------
    SealError
        There are no samples, a file is damaged, or the split shares a donor or section with what was found.
    """
    root = hest.prepare(profiles.MAPLE)
    if find_hest_table(root) is None:
        do = "fetch HEST-1k (python -m seal fetch), or set SEAL_HEST to a copy"
        raise SealError(f"{root} holds no table of HEST-1k's own", expected="HEST_v*.csv", do=do)
    samples = read_samples(root)  # those outside MAPLE too: one may be a section of it under another name
    found = compare.audit_files(samples, paths.home() / "data" / "fingerprints", workers)
    with atomic(root / maple.OVERLAPS) as temporary:
        found.to_csv(temporary, index=False)
    roles = maple.read_selection(root, profiles.MAPLE.selection).samples["role"].value_counts()
    return (
        f"{len(samples)} samples compared, shared sections in {root / maple.OVERLAPS}:\n{found.to_csv(index=False)}"
        f"MAPLE: {roles['train']} training and {roles['test']} test samples, no donor on both sides"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Audit HEST-1k's files; a SealError goes to stderr as it is, with exit status 2."""
    parser = argparse.ArgumentParser(prog="python -m tools.hest_audit", description="sections that two samples share")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    try:
        print(audit(parser.parse_args(arguments).workers))
    except SealError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
