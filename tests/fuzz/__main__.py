"""Compare random models with plain passes; by `make fuzz` for an hour."""

import argparse
import os
import re
import time
from collections import Counter

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from transformers import logging

from fuzz.cases import AGREES, FAILURES, REFUSED, WRONG, Outcome, run_case
from fuzz.configurations import CONFIGURATIONS
from fuzz.planted_faults import FAULTS, planted


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=2000, help="the largest number of configurations")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the first; each next one has the next seed")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no configuration after this time")
    parser.add_argument("--architecture", choices=sorted(CONFIGURATIONS), help="the only one to draw")
    parser.add_argument("--plant", choices=FAULTS, help="plant a fault, and stop when it is found")
    parser.add_argument("--verbose", action="store_true", help="print every case")
    options = parser.parse_args()
    logging.set_verbosity_error()
    start, found = time.monotonic(), []
    with planted(options.plant):
        for seed in range(options.seed, options.seed + options.count):
            if time.monotonic() - start > 60 * options.minutes:
                break
            outcome = run_case(seed, options.architecture, planted=options.plant is not None)
            found.append(outcome)
            if outcome.ended in FAILURES or options.verbose:
                describe(outcome, options.plant)
            if outcome.ended == WRONG and options.plant:
                print(f"the fault {options.plant} is found, by configuration {len(found)}")
                return
    summarise(found, time.monotonic() - start)
    raise SystemExit(options.plant is not None or any(outcome.ended in FAILURES for outcome in found))


def describe(outcome: Outcome, fault: str | None) -> None:
    """Print the outcome of a case, and the command that runs it again."""
    print(f"{outcome.architecture} {outcome.ended}: {outcome.detail}\n  {outcome.case}")
    print(
        f"  again: python -m fuzz --seed {outcome.seed} --count 1 --architecture {outcome.architecture}"
        + (f" --plant {fault}" if fault else ""),
        flush=True,
    )


def summarise(found: list[Outcome], seconds: float) -> None:
    """Print the number of cases of each outcome, and of each reason for a refusal."""
    ended = Counter(outcome.ended for outcome in found)
    engines = sum(outcome.engines for outcome in found if outcome.ended == AGREES)
    print(f"{len(found):,} configurations in {seconds / 60:.1f} minutes, {seconds / max(len(found), 1):.2f} s each:")
    print(
        f"  {ended[AGREES]:,} agree, with {engines:,} results of engines; "
        + ", ".join(f"{ended[e]} {e}" for e in FAILURES)
    )
    refusals = Counter(_without_numbers(outcome) for outcome in found if outcome.ended == REFUSED)
    for reason, often in refusals.most_common():
        print(f"  {often:5,} refused: {reason}")
    redrawn = Counter(re.sub(r"\d+", "N", line) for outcome in found for line in outcome.refusals)
    for reason, often in redrawn.most_common():
        print(f"  {often:5,} not taken by transformers, and drawn again: {reason}")


def _without_numbers(outcome: Outcome) -> str:
    """Return a refusal without the numbers of its case, to count it with others alike."""
    text = re.sub(r"\d+(\.\d+)?(e-?\d+)?", "N", outcome.detail)
    return f"{outcome.architecture}: {text}"


if __name__ == "__main__":
    main()
