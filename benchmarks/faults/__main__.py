"""Damage what this program reads, and count what becomes of it.

    python -m benchmarks.faults [artifacts steps ...] [--count N] [--seed 0] [--jobs 2] [--seconds 900] [--kills 20]

Each case ends in a right result, in an error that names the fault, or in anything else, which is a fault of the
program: the exit code is then 1. So it is if a case takes more than 10 seconds, or twice the memory of the whole valid
run. ``--case 123`` runs one case in this process and shows its traceback. ``--record`` adds what was found to
``benchmarks/results/faults.jsonl``, of which `python -m benchmarks.tables` makes the table of
docs/benchmarks/faults.md.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks._page import measured_here
from benchmarks._results import append
from benchmarks.faults import kills
from benchmarks.faults._faults import MEMORY, SECONDS, Result, faults_of, kind_of, run, say, subjects, work
from benchmarks.faults._tables import FILE, tables
from distill.cli.arguments import positive


def main() -> int:
    """Run cases of the subjects and print what became of them."""
    if sys.argv[1:2] == ["--work"]:
        subject, folder, first, last, seed = sys.argv[2:]
        work(subject, Path(folder), int(first), int(last), int(seed))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subjects", nargs="*", choices=[*subjects(), []])
    parser.add_argument("--count", type=positive, help="cases of each subject")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=positive, default=2)
    parser.add_argument("--seconds", type=float, default=900, help="for each subject; cases not run by then are not")
    parser.add_argument("--case", type=int)
    parser.add_argument("--kills", type=int, default=0, help="runs that are killed and started again, too")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    chosen = options.subjects or subjects()
    if options.case is not None:
        for subject in chosen:
            faults = faults_of(subject)
            kind, random = kind_of(faults, options.case, options.seed)
            with tempfile.TemporaryDirectory() as folder:
                faults.attempt(faults.prepare(Path(folder)), kind, random)
        return 0
    results = {}
    for subject in chosen:
        count = options.count or faults_of(subject).count
        results[subject] = run(subject, count, options.seed, options.jobs, options.seconds)
        for line in results[subject].wrong[:50]:
            say(f"  {line}")
    rows = [{**result.to_json(), "subject": subject} for subject, result in results.items()]
    killed = kills.tried(options.kills, options.seed) if options.kills else None
    rows += [killed._asdict()] if killed else []
    for row in rows:
        if options.record:
            append(FILE, {**row, "seed": options.seed, "measured": measured_here()})
    say(tables(rows)["faults"])
    return int(any(map(_failed, results.values())) or bool(killed and killed.wrong))


def _failed(result: Result) -> bool:
    return bool(result.wrong) or result.peak_mb > MEMORY * result.valid_mb or result.slowest > SECONDS


if __name__ == "__main__":
    raise SystemExit(main())
