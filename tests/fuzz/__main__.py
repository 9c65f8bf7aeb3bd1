"""Compare random models with plain passes; by `make fuzz` for an hour."""

import argparse
import os
import re
import time
from collections import Counter

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from transformers import logging

from fuzz.cases import AGREES, BAD, REFUSED, WRONG, Outcome, run_case
from fuzz.configurations import CONFIGURATIONS
from fuzz.plants import PLANTS, planted


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=2000, help="the most configurations")
    parser.add_argument("--seed", type=int, default=0, help="of the first of them; each has the next one")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no configuration after this time")
    parser.add_argument("--architecture", choices=sorted(CONFIGURATIONS), help="this one only")
    parser.add_argument("--plant", choices=PLANTS, help="a fault on purpose: stop where it is found")
    parser.add_argument("--verbose", action="store_true", help="say what each configuration is")
    asked = parser.parse_args()
    logging.set_verbosity_error()
    start, found = time.monotonic(), []
    with planted(asked.plant):
        for seed in range(asked.seed, asked.seed + asked.count):
            if time.monotonic() - start > 60 * asked.minutes:
                break
            outcome = run_case(seed, asked.architecture, planted=asked.plant is not None)
            found.append(outcome)
            if outcome.ended in BAD or asked.verbose:
                tell(outcome, asked.plant)
            if outcome.ended == WRONG and asked.plant:
                print(f"the fault {asked.plant} is found, by configuration {len(found)}")
                return
    summarise(found, time.monotonic() - start)
    raise SystemExit(asked.plant is not None or any(outcome.ended in BAD for outcome in found))


def tell(outcome: Outcome, plant: str | None) -> None:
    """Print the outcome of a case, and the command that runs it again."""
    print(f"{outcome.architecture} {outcome.ended}: {outcome.detail}\n  {outcome.case}")
    print(
        f"  again: python -m fuzz --seed {outcome.seed} --count 1 --architecture {outcome.architecture}"
        + (f" --plant {plant}" if plant else ""),
        flush=True,
    )


def summarise(found: list[Outcome], seconds: float) -> None:
    """Print the number of cases of each outcome, and of each reason for a refusal."""
    ended = Counter(outcome.ended for outcome in found)
    engines = sum(outcome.engines for outcome in found if outcome.ended == AGREES)
    print(f"{len(found):,} configurations in {seconds / 60:.1f} minutes, {seconds / max(len(found), 1):.2f} s each:")
    print(
        f"  {ended[AGREES]:,} agree, with {engines:,} results of engines; " + ", ".join(f"{ended[e]} {e}" for e in BAD)
    )
    refusals = Counter(_general(outcome) for outcome in found if outcome.ended == REFUSED)
    for reason, often in refusals.most_common():
        print(f"  {often:5,} refused: {reason}")
    before = Counter(re.sub(r"\d+", "N", line) for outcome in found for line in outcome.refusals)
    for reason, often in before.most_common():
        print(f"  {often:5,} not taken by transformers, and drawn again: {reason}")


def _general(outcome: Outcome) -> str:
    """Return a refusal without the numbers of its case, to count it with others alike."""
    text = re.sub(r"\d+(\.\d+)?(e-?\d+)?", "N", outcome.detail)
    return f"{outcome.architecture}: {text}"


if __name__ == "__main__":
    main()
