"""The long form of the fault tests; by `make faults`: damage, inputs, states, writes, power, kills."""

import argparse
import shlex
import tempfile
from pathlib import Path

import conftest  # noqa: F401  what all tests are run with

from faults import inputs, states
from faults.commands import Ended
from faults.damage import BAD, damages
from faults.kills import kills
from faults.power import power_failures, recorded_scene
from faults.writes import FAULTS, SCENES, faulty_writes


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("what", choices=["damage", "inputs", "states", "writes", "power", "kills"])
    parser.add_argument("--count", type=int, help="2,000 damages, 500 inputs, 500 power failures a scene, 100 kills")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tried = {"damage": damage, "inputs": put_in, "states": stand_in, "writes": writes, "power": power}
        what = {**tried, "kills": killed}[asked.what]
        what(Path(folder), asked.count, asked.seed)


def damage(folder: Path, count: int | None, seed: int) -> None:
    found = damages(folder, count or 2000, seed)
    for (kind, opened, resumed), often in sorted(found.items()):
        print(f"{often:5,}  {kind:9}  opened: {opened:8}  resumed: {resumed}")
    bad = sum(often for (_, *outcomes), often in found.items() if set(outcomes) & set(BAD))
    print(f"{bad} of {found.total():,} damages silent, or not one clear line")
    raise SystemExit(bad > 0)


def put_in(folder: Path, count: int | None, seed: int) -> None:
    found = inputs.inputs(folder, count or 500, seed, _tell)
    for (kind, outcome), often in sorted(found.items()):
        print(f"{often:5,}  {kind:8}  {outcome}")
    bad = sum(often for (_, outcome), often in found.items() if outcome in inputs.BAD)
    print(f"{bad} of {found.total():,} inputs ended in neither success nor one clear line, at once")
    raise SystemExit(bad > 0)


def _tell(line: list[str], end: Ended, outcome: str) -> None:
    if outcome in inputs.BAD:
        print(f"{outcome}: {shlex.join(line)}\n{end.err}")


def stand_in(folder: Path, count: int | None, seed: int) -> None:
    found = states.states(folder)
    for (command, outcome), often in sorted(found.items()):
        print(f"{often:5,}  {command:8}  {outcome}")
    bad = sum(often for (_, outcome), often in found.items() if outcome in states.BAD)
    print(f"{bad} of {found.total():,} commands gave other numbers, or ended in anything but one clear line")
    raise SystemExit(bad > 0)


def writes(folder: Path, count: int | None, seed: int) -> None:
    for scene in SCENES:
        for fault in FAULTS:
            found = faulty_writes(folder / scene / fault, scene, fault)
            outcomes = ", ".join(f"{often:,} {outcome}" for outcome, often in found.items())
            print(
                f"{scene:9}  {fault:6}  at each of {found.total():,} writes: {outcomes}; all went on to the same bits"
            )


def power(folder: Path, count: int | None, seed: int) -> None:
    for scene in SCENES:
        recorded = recorded_scene(folder / scene / "recorded", scene)
        found = power_failures(folder / scene, scene, recorded, count or 500, seed)
        outcomes = ", ".join(f"{often:,} {outcome}" for outcome, often in found.items())
        print(f"{scene:9}  power failed at {found.total():,} moments: {outcomes}; all went on to the same bits")


def killed(folder: Path, count: int | None, seed: int) -> None:
    found = kills(folder, count or 100, seed)
    print("; ".join(f"{often:,} {scene}" for scene, often in found.items()) + ": all went on to the same bits")


if __name__ == "__main__":
    main()
