"""Power fails, imitated: of what a run wrote only what was synced survives for sure; of the rest anything may.

What a run does to a folder is recorded: at everything that changes a file or a folder, all that is there is looked at.
From that any state is made in which a disk could be, had power failed at some moment:

- a name (an entry of a folder) is as it was when that folder was last synced, or as any later change left it; changes
  to one name survive in their order, those to different names in any. A move is one change: it happened or it didn't;
- a file's content is what it was when the file was last synced, or any later one, also cut or zeroed in part, by
  sectors. That a file was synced says nothing of its name, and that its name survived nothing of its content.
"""

import asyncio
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

from faults.disk import watched
from faults.writes import SCENES, finish
from hydrascope.storage.writer import Writer

#: A file or a folder, whatever it is called: numbered as it was first seen.
Node = int

#: A name, in a folder.
Name = tuple[Node, str]

#: The folder that all is recorded in; it is there before.
TOP: Node = 0

_SECTOR = 512


@dataclass
class Recorded:
    """What was done in a folder. Moments count how often it was looked at.

    Attributes:
        names: which node each name was of, at each moment.
        contents: of each file, since which moment it was what.
        syncs: of each node, at which moments it was about to be synced.
        promises: since which moment how many prompts were said to be kept.
    """

    names: list[dict[Name, Node]] = field(default_factory=list)
    contents: dict[Node, list[tuple[int, bytes]]] = field(default_factory=dict)
    syncs: dict[Node, list[int]] = field(default_factory=dict)
    promises: list[tuple[int, int]] = field(default_factory=list)

    def promised(self, moment: int) -> int:
        """How many prompts were said to be kept."""
        return max((prompts for since, prompts in self.promises if since <= moment), default=0)

    def synced(self, node: Node, moment: int) -> int | None:
        """When the node was last synced before `moment`, if ever."""
        return max((sync for sync in self.syncs.get(node, []) if sync < moment), default=None)

    def moves(self) -> list[int]:
        """The moments at which a name in the folder itself had changed."""
        tops = [{name: node for name, node in names.items() if name[0] == TOP} for names in self.names]
        return [at for at, (before, after) in enumerate(pairwise(tops), 1) if before != after]

    def forgetting(self, folders: bool) -> "Recorded":
        """As if folders, or else files, had never been synced since the start."""
        syncs = {
            node: [0] if sync[0] == 0 else [] if (node not in self.contents) == folders else sync
            for node, sync in self.syncs.items()
        }
        return Recorded(self.names, self.contents, syncs, self.promises)


class Recorder:
    """Looks at a folder, again and again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.recorded = folder, Recorded()
        self._nodes: dict[int, Node] = {}
        self._count = 0
        self.look()

    def look(self) -> int:
        """Note what is there now, at the moment that is given."""
        moment, found, inodes = len(self.recorded.names), dict[Name, Node](), {self.folder.stat().st_ino}
        self._enter(self.folder, moment, found, inodes)
        # The number of a file that is gone may become another's.
        self._nodes = {inode: node for inode, node in self._nodes.items() if inode in inodes}
        self.recorded.names.append(found)
        return moment

    def _enter(self, folder: Path, moment: int, found: dict[Name, Node], inodes: set[int]) -> None:
        parent = self._node(folder.stat().st_ino)
        for entry in os.scandir(folder):
            inodes.add(entry.inode())
            node = found[parent, entry.name] = self._node(entry.inode())
            if entry.is_dir():
                self._enter(Path(entry), moment, found, inodes)
            else:
                contents, content = self.recorded.contents.setdefault(node, []), Path(entry).read_bytes()
                if not contents or contents[-1][1] != content:
                    contents.append((moment, content))

    def _node(self, inode: int) -> Node:
        if inode not in self._nodes:
            self._nodes[inode], self._count = self._count, self._count + 1
        return self._nodes[inode]

    def sync(self, file: int) -> None:
        """Note that an open file or folder is about to be synced."""
        moment = self.look()
        self.recorded.syncs.setdefault(self._node(os.fstat(file).st_ino), []).append(moment)

    def promise(self, prompts: int) -> None:
        """Note that so many prompts are said to be kept."""
        self.recorded.promises.append((self.look(), prompts))


@contextmanager
def recording(folder: Path) -> Iterator[Recorder]:
    """Record what is done in `folder`. What is there already is on the disk."""
    recorder = Recorder(folder)
    recorder.recorded.syncs = {node: [0] for node in (TOP, *recorder.recorded.names[0].values())}
    written = Writer.write

    def write(self: Writer, *block: Any) -> None:
        written(self, *block)
        recorder.promise(self.attributes["measured"])

    async def at_once(function: Callable[..., Any], *given: Any, **named: Any) -> Any:
        return function(*given, **named)

    with (
        # zarr writes in threads: one after the other, so that each change is seen alone.
        patch.object(asyncio, "to_thread", at_once),
        patch.object(Writer, "write", write),
        watched(folder, recorder.look, recorder.sync),
    ):
        yield recorder
    recorder.look()


def left(recorded: Recorded, moment: int, random: random.Random) -> tuple[dict[Name, Node], dict[Node, bytes]]:
    """What may be on the disk, if power failed at `moment`: names, and the contents of files."""
    likely = random.choice([0, 0.5, random.random(), 1])
    names = dict(recorded.names[0])
    for change in _survivors(recorded, moment, likely, random):
        for name, node in change.items():
            if node is None:
                names.pop(name, None)
            else:
                names[name] = node
    files = [node for node in names.values() if node in recorded.contents]
    return names, {node: _content(recorded, node, moment, likely, random) for node in sorted({*files})}


#: What names become; None where one is gone. A move changes two at once.
Change = dict[Name, Node | None]


def _changes(before: dict[Name, Node], after: dict[Name, Node]) -> list[Change]:
    """What was done between two moments: one thing, or several at once."""
    changes: dict[Node, Change] = {}
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old != new:
            # What a node is no longer called and what it is called now are one move.
            changes.setdefault(new if new is not None else old, {})[name] = new  # type: ignore[arg-type]
    return list(changes.values())


def _survivors(recorded: Recorded, moment: int, likely: float, random: random.Random) -> list[Change]:
    """The changes of names that survive: all that must, and of the others some."""
    changes = [
        (at, change) for at in range(1, moment + 1) for change in _changes(recorded.names[at - 1], recorded.names[at])
    ]
    must, needed = set[int](), set[Name]()
    for index, (at, change) in reversed(list(enumerate(changes))):
        # A move is known for sure from where it led to.
        gained = [name for name, node in change.items() if node is not None] or list(change)
        synced = any((recorded.synced(folder, moment) or 0) >= at for folder, _ in gained)
        if synced or needed & change.keys():
            must.add(index)
            needed |= change.keys()
    survivors, lost = [], set[Name]()
    for index, (_, change) in enumerate(changes):
        if index in must or (not lost & change.keys() and random.random() < likely):
            survivors.append(change)
        else:
            lost |= change.keys()
    return survivors


def _content(recorded: Recorded, node: Node, moment: int, likely: float, random: random.Random) -> bytes:
    synced, content, later = recorded.synced(node, moment), b"", []
    for since, version in recorded.contents[node]:
        if synced is not None and since <= synced:
            content = version
        elif since <= moment:
            later.append(version)
    return _torn(random.choice(later), random) if later and random.random() < likely else content


def _torn(content: bytes, random: random.Random) -> bytes:
    """Written in part: all of it, or cut, or with zeros in it."""
    sectors = -(-len(content) // _SECTOR)
    start, end = sorted(random.randint(0, sectors) * _SECTOR for _ in range(2))
    return random.choice([content, content[:start], content[:start] + bytes(len(content[start:end])) + content[end:]])


def made(folder: Path, names: dict[Name, Node], contents: dict[Node, bytes], node: Node = TOP) -> None:
    """Make in `folder` what is left."""
    folder.mkdir()
    for (parent, name), child in names.items():
        if parent != node:
            continue
        if child in contents:
            (folder / name).write_bytes(contents[child])
        else:
            made(folder / name, names, contents, child)


def recorded_scene(folder: Path, scene: str) -> Recorded:
    """What is done in one of `SCENES`."""
    before, act = SCENES[scene]
    folder.mkdir(parents=True)
    before(folder / "r.zarr")
    with recording(folder) as recorder:
        act(folder / "r.zarr")
    return recorder.recorded


def power_failures(folder: Path, scene: str, recorded: Recorded, count: int, seed: int = 0) -> Counter[str]:
    """What is there after power failed at random moments; it is right, as much as was promised, and goes on."""
    drawn, found, last = random.Random(seed), Counter[str](), len(recorded.names) - 1
    moved = [min(at + after, last) for at in recorded.moves() for after in range(4)] or [last]
    for _ in range(count):
        # Half of them where results and what they are made in are moved: most of the others are between writes.
        moment = drawn.choice([drawn.randrange(1, len(recorded.names)), drawn.choice(moved)])
        room, promised = folder / "after", recorded.promised(moment)
        made(room, *left(recorded, moment, drawn))
        # What was moved away is never taken for another's.
        assert all((old.parent / "of").read_bytes() == b"r.zarr" for old in room.glob(".hydrascope-*/old"))
        result, measured = finish(room, scene)
        assert measured >= promised, f"{promised} prompts were said to be kept, and {measured} are"
        # What was damaged before is, until it is measured again.
        assert result != "damaged" or (scene in ("resume", "join again") and not promised), (
            "what was not synced counts as measured"
        )
        found[result] += 1
        shutil.rmtree(room)
    return found
