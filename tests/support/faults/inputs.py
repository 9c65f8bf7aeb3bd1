"""Bad and odd inputs at random: each ends in success, or in one clear line and exit code 2, promptly.

Of four kinds: options of every command, files of prompts, folders of models, folders of results.
"""

import json
import os
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from safetensors.torch import load_file, save_file
from tiny import save_tiny
from torch import Tensor

import hydrascope as hs
from faults import damage
from faults.commands import Ended, ended
from faults.lines import command, commands, without

#: A refusal takes no longer, of CPU time.
PROMPT = 5.0
#: What must never happen.
BAD = ("traceback", "lines", "code", "slow", "steers")

#: What may stand on standard error besides: it refuses nothing.
_NOTICES = (r"[\d,]+ duplicate prompts? left out", r"only [\d,]+ of [\d,]+ prompts are measured: finish with --resume")
#: What is found where a file should be.
_PLACES = ("folder", "pipe", "device", "loop", "nowhere", "forbidden")
_SIMPLE = (None, True, -1, 0, 3, 10**30, 1.5, 1e308, float("nan"), "", " ", "a", "naïve\x00", "\ud800", "the cat " * 99)
_ODD_FILES = ("adapter_config.json", "model.safetensors.index.json", "pytorch_model.bin", "modeling_x.py", "a\x1b.json")
_CHANGES: tuple[Callable[[Tensor], Tensor], ...] = (
    *(lambda x: x[:1].clone(), Tensor.double, Tensor.int, lambda x: x * float("nan"), lambda x: x * 1e30),
)


def given(folder: Path) -> Path:
    """What is asked for: models, prompts, results, and things that are none of them, all in `folder`."""
    save_tiny(folder / "model")
    save_tiny(folder / "gpt2", "gpt2")
    save_tiny(folder / "alone")
    for file in (folder / "alone").glob("tokenizer*"):
        file.unlink()
    (folder / "prompts.txt").write_text("the cat\nno\nHello, world\nabc\nno\nxyz.\n")
    (folder / "short.txt").write_text("a\nb\n")
    facts = [{"prompt": "a cat ", "answer": "b"}, {"prompt": "no ", "answer": "way"}]
    twin = {"foil": "c", "subject": "a", "counterfactual": "on "}
    for name, prompts in (("facts", facts), ("pairs", [{**each, **twin} for each in facts])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in prompts))
    for name in ("nothing", "folder.txt"):
        (folder / name).mkdir()
    (folder / "loop").symlink_to(folder / "loop")
    os.mkfifo(folder / "pipe.txt")
    np.save(folder / "probe.npy", np.ones(32))
    np.save(folder / "two.npy", np.zeros((2, 2, 2)))
    xr.Dataset({"x": ("y", np.arange(3))}, attrs={"format": 4}).to_zarr(folder / "other.zarr", consolidated=False)
    model, prompts = hs.load_model(folder / "model"), hs.load_prompts(folder / "prompts.txt")
    hs.sweep(model, prompts, hs.Resample(2), out=folder / "r.zarr")
    heads = {"ablate": "heads", "read": "heads", "readouts": hs.Placebo(2)}
    for name, asked in (
        ("heads", heads),
        ("who", {"ablate": hs.Mediation("attn", "layers,value.1.2")}),
        ("pairs", {"ablate": hs.Interactions("layers")}),
    ):
        hs.sweep(model, prompts, hs.Zero(), out=folder / f"{name}.zarr", **asked)
    return folder


def options(folder: Path, place: Path, drawn: random.Random) -> list[str]:
    """Options of any command."""
    return command(drawn.choice(list(commands())), drawn)


def prompts(folder: Path, place: Path, drawn: random.Random) -> list[str]:
    """A file of prompts of any content, or something else in its place."""
    file = place / f"p{drawn.choice(('.txt', '.json', '.jsonl'))}"
    if drawn.random() < 0.1:
        _no_file(file, drawn)
    else:
        file.write_bytes(_content(drawn))
    line = command(
        drawn.choice(("run", "run", "mediate", "interact", "rank", "paths", "circuit", "explore")), drawn, "prompts"
    )
    return [*without(line, "--prompts"), "--prompts", str(file)]


def _content(drawn: random.Random) -> bytes:
    """Bytes, text, or JSON of any shape, a line or many."""
    kind = drawn.randrange(6)
    if kind == 0:
        return drawn.randbytes(drawn.choice((1, 10, 1000)))
    if kind == 1:
        return drawn.choice((b"", b"\n\n", b"\0", b"\xef\xbb\xbfabc", b"a b" * 400_000, "ab\ncd".encode("utf-16")))
    if kind == 2:
        deep = (100_000 * b"[", b'{"prompt": ' * 9999, b"9" * 5000, b"[NaN]", b'["a", "\\ud800"]', b"null")
        return drawn.choice(deep)
    if kind == 3:
        return json.dumps([_prompt(drawn) for _ in range(drawn.randrange(4))]).encode()
    if kind == 4:
        return "\n".join(json.dumps(_prompt(drawn)) for _ in range(drawn.randrange(1, 5))).encode()
    return json.dumps(_json(drawn, 3)).encode()


def _prompt(drawn: random.Random) -> Any:
    """A prompt of a file, something of it odd."""
    prompt = {"prompt": "a cat and ", "answer": "b", "foil": "c", "subject": "cat", "counterfactual": "a dog and "}
    if drawn.random() < 0.2:
        return _json(drawn, 1)
    for _ in range(drawn.randrange(3)):
        prompt[drawn.choice([*prompt, "tokens", "position", "\x1b[2J"])] = _json(drawn, 1)
    return prompt


def _json(drawn: random.Random, depth: int) -> Any:
    """Any value, at most so deep."""
    shape = drawn.random() if depth else 0
    if shape < 0.6:
        return drawn.choice(_SIMPLE)
    several = [_json(drawn, depth - 1) for _ in range(drawn.randrange(4))]
    return several if shape < 0.8 else {drawn.choice(("prompt", "answer", "", "x\n")): each for each in several}


def _no_file(place: Path, drawn: random.Random) -> None:
    """Something else where there should be a file."""
    kind = drawn.choice(_PLACES)
    if kind == "folder":
        place.mkdir()
    elif kind == "pipe":
        os.mkfifo(place)
    elif kind == "forbidden":
        place.write_text("the cat")
        place.chmod(0)
    else:
        place.symlink_to({"device": Path("/dev/zero"), "loop": place, "nowhere": place.parent / "none"}[kind])


def models(folder: Path, place: Path, drawn: random.Random) -> list[str]:
    """A folder of a model of which something is altered, gone, or something else."""
    model = shutil.copytree(folder / drawn.choice(("model", "gpt2")), place / "model")
    for _ in range(drawn.choice((1, 1, 2))):
        _break(model, drawn)
    line = command(drawn.choice(("check", "check", "run", "mediate", "explore")), drawn, "model")
    return [str(model) if word == "{folder}/model" else word for word in line]


def _break(model: Path, drawn: random.Random) -> None:
    files = sorted(file for file in model.iterdir() if file.is_file() and not file.is_symlink())
    kind = drawn.randrange(8)
    if kind < 3:
        _edit(model / "config.json", drawn)
    elif kind == 3:
        _edit(drawn.choice([file for file in files if file.suffix == ".json"]), drawn)
    elif kind == 4:
        _break_weights(model / "model.safetensors", drawn)
    elif kind == 5:
        file = drawn.choice(files)
        file.unlink()
        if drawn.random() < 0.7:
            _no_file(file, drawn)
    elif kind == 6:
        drawn.choice(files).write_bytes(_content(drawn))
    else:
        (model / drawn.choice(_ODD_FILES)).write_bytes(_content(drawn))


def _edit(file: Path, drawn: random.Random) -> None:
    """Another value for something in a JSON file, however deep, or nothing in its place."""
    if not file.is_file():
        return
    try:
        document = node = json.loads(file.read_bytes())
    except (ValueError, RecursionError):  # what was broken before
        return
    while isinstance(node, dict | list) and node:
        key = drawn.choice(list(node) if isinstance(node, dict) else range(len(node)))
        if isinstance(node[key], dict | list) and node[key] and drawn.random() < 0.8:
            node = node[key]
            continue
        if drawn.random() < 0.2:
            del node[key]
        else:
            node[key] = _json(drawn, 1) if drawn.random() < 0.6 else drawn.choice((-5, 0, 1, 5, 33, 10**6, 10**12))
        break
    file.write_text(json.dumps(document))


def _break_weights(file: Path, drawn: random.Random) -> None:
    """Bytes, the header, its size, or a tensor."""
    if not file.is_file():
        return
    content, kind = file.read_bytes(), drawn.randrange(4)
    if kind == 0:
        files = {"x": content}
        drawn.choice((damage.flip, damage.truncate, damage.zero))(files, "x", drawn)
        file.write_bytes(files["x"])
    elif kind == 1:
        size = int.from_bytes(content[:8], "little")
        (header := file.with_suffix(".header")).write_bytes(content[8 : 8 + size])
        _edit(header, drawn)
        edited = header.read_bytes()
        header.unlink()
        file.write_bytes(len(edited).to_bytes(8, "little") + edited + content[8 + size :])
    elif kind == 2:
        file.write_bytes(drawn.choice((2**63, 10**9, 0, 7)).to_bytes(8, "little") + content[8:])
    else:
        tensors = load_file(file)
        name = drawn.choice(sorted(tensors))
        tensors[name] = drawn.choice(_CHANGES)(tensors[name])
        save_file(tensors, file, {"format": "pt"})


def results(folder: Path, place: Path, drawn: random.Random) -> list[str]:
    """A result of which something is altered, gone, or something else; read, gone on with, or shown with its model."""
    name = drawn.choice(("r.zarr", "heads.zarr", "who.zarr", "pairs.zarr", "other.zarr"))
    result = shutil.copytree(folder / name, place / "r.zarr")
    files = damage.read(result)
    changed = dict(files)
    drawn.choice(damage.KINDS)(changed, drawn.choice(sorted(files)), drawn)
    damage.laid(result, files, changed)
    if drawn.random() < 0.2:
        file = result / drawn.choice(sorted(files))
        file.unlink(missing_ok=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        _no_file(file, drawn)
    name = drawn.choice(("summary", "figures", "report", "export", "compare", "run", "explore"))
    if name == "run":
        how = drawn.choice(("--resume", "--resume", "--overwrite"))
        return [*without(command(name, drawn, "out"), "--out"), "--out", str(result), how]
    if name == "explore":
        return [*command(name, drawn), "--results", str(result)]
    return [str(result) if word == "{folder}/r.zarr" else word for word in command(name, drawn, "results")]


KINDS = (options, options, prompts, models, results)


def inputs(
    folder: Path, count: int, seed: int = 0, told: Callable[[list[str], Ended, str], None] | None = None
) -> Counter[tuple[str, str]]:
    """How often inputs of each kind ended how: `fine`, `one line`, or as in `BAD`; each is drawn by its number alone.

    Args:
        told: is told of each: its command line, how it ended, and what that is called.
    """
    there, found = given(folder / "given"), Counter[tuple[str, str]]()
    for number in range(count):
        drawn, place = random.Random(f"{seed} {number}"), folder / f"{number}"
        place.mkdir()
        kind = KINDS[number % len(KINDS)]
        line = [_written(word, there, place) for word in kind(there, place, drawn)]
        end = ended(line, place)
        outcome = _outcome(end)
        found[kind.__name__, outcome] += 1
        if told is not None:
            told(line, end, outcome)
        shutil.rmtree(place)
    return found


def _written(word: str, there: Path, place: Path) -> str:
    return word.replace("{folder}", str(there)).replace("{out}", str(place / "out"))


def _outcome(end: Ended) -> str:
    if end.code < 0:
        return "slow"
    if "Traceback" in end.err:
        return "traceback"
    if end.code not in (0, 2):
        return "code"
    if not all(char.isprintable() or char in "\n\t" for char in end.out + end.err):
        return "steers"
    if end.code == 0:
        return "fine"
    said = [line for line in end.err.split("\n")[:-1] if not any(re.fullmatch(each, line) for each in _NOTICES)]
    if len(said) != 1 or not said[0].startswith("hydrascope: "):
        return "lines"
    return "slow" if end.seconds > PROMPT else "one line"
