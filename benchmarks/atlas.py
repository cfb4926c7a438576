"""The simulated atlas on all cores against one, and several times as many donors against the demo's: time and memory.

Sections, patients' slides and the five-scanner slides, as notebook A1 makes them. All cores must give the bytes of one;
memory must not grow with the number of donors. Each way runs in a process of its own, into an empty folder, after one
section that compiles what is compiled.

    python benchmarks/atlas.py [--scale 3] [--tiny]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def settings(scale: int, tiny: bool):
    """The demo's atlas, or a sliver of it, `scale` times."""
    from seal import profiles

    small = {"organs": ("Breast",), "donors_per_organ": 1, "spots_per_section": 4, "patients": 6}
    small |= {"patches_per_slide": 2, "scanned_slides": 1, "scanned_patches": 2}
    return profiles.get("demo", source_settings={"scale": scale, **(small if tiny else {})})


def child(scale: int, tiny: bool, one: bool) -> None:
    """Make an atlas in SEAL_HOME; print seconds, peak memory and a digest of all files."""
    from memory import peak_gb

    import seal_atlas
    from seal import paths
    from seal.files import digest, sha256
    from seal_atlas import tables
    from seal_atlas.writing import atlas, sections

    sections.simulate_section(tables.donors()[0], 1, 0)
    if one:
        atlas.count_threads = lambda: 1
    profile = settings(scale, tiny)
    start = time.perf_counter()
    samples = seal_atlas.prepare(profile)
    slides = seal_atlas.prepare_slides(profile)
    took = time.perf_counter() - start
    files = sorted(p for root in (samples, slides) for p in root.rglob("*") if p.suffix in (".tif", ".h5ad", ".tsv"))
    found = digest([(p.relative_to(paths.home()).as_posix(), sha256(p)) for p in files])
    print(json.dumps({"seconds": took, "peak_gb": peak_gb(), "files": len(files), "digest": found}))


def run(scale: int, tiny: bool, one: bool) -> dict:
    """One way, in a process of its own."""
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, __file__, "--child", "--scale", str(scale)]
        command += ["--tiny"] * tiny + ["--one"] * one
        environment = os.environ | {"SEAL_HOME": home, "TQDM_DISABLE": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=int, default=3)
    for name in ("tiny", "child", "one"):
        parser.add_argument(f"--{name}", action="store_true")
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    if arguments.child:
        child(arguments.scale, arguments.tiny, arguments.one)
        return
    from common import report

    alone, together = run(1, arguments.tiny, True), run(1, arguments.tiny, False)
    larger = run(arguments.scale, arguments.tiny, False)
    report(
        "simulated atlas",
        one_core=alone,
        all_cores=together,
        same_bytes=alone["digest"] == together["digest"],
        ratio=alone["seconds"] / together["seconds"],
        scale=arguments.scale,
        larger=larger,
        memory_ratio=larger["peak_gb"] / together["peak_gb"],
    )


if __name__ == "__main__":
    main()
