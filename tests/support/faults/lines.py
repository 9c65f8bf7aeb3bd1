"""Command lines at random, of every command there is: as they should be, but for something odd."""

import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import typer

from hydrascope.ablations.names import ABLATIONS
from hydrascope.cli import app

#: What no option is made for.
HOSTILE = (
    *("", " ", "a\nb", "a\tb", "a\x1b[2Jb", "\u202eabc", "naïve 🙂", "\udcff", 5000 * "9", 300 * "a", 3000 * "é"),
    *(",", ",,", "|", "+", ".", "..", "-", "--", "-h", "@", "=", "None", "null", "true", "[]", "{}", "%", "%s", "{0}"),
    *("$HOME", "`id`", "x=y", "٣", "²", "0", "1", "-1", "2", "7", "1.5", "nan", "inf", "-inf", "1e308", "0x10"),
    *("1e-320", "1_000", "100000000000000000000", "/proc", "/dev/null", "/dev/zero", "/proc/self/mem", "~", "../.."),
    *("~nobody-here/x", "a/../../b", "file://x", "{folder}/none", "{folder}/nothing", "{folder}/pipe.txt"),
    *("{folder}/folder.txt", "{folder}/prompts.txt", "{folder}/prompts.txt/under", "{folder}/model", "{folder}/r.zarr"),
    *("{folder}/other.zarr", "{folder}/loop"),
)

#: What fits an option, or almost, by its name.
_FITTING = {
    "ablated": "attn.1 mlp.2 attn.99 head.1.0",
    "ablation": " ".join(ABLATIONS),
    "at": "last all subject subject-last 0 -1 0,1 -99 1-2 last,last 0,0",
    "batch_size": "auto 1 3 100",
    "by": "shapley atp atp_star gim integrated_gradients gim,gim lime shapley,atp,gim",
    "device": "auto cpu cuda cuda:99 meta mps xpu",
    "device_map": "auto {folder}/prompts.txt {folder}/pipe.txt {folder}/facts.jsonl",
    "dtype": "float32 float64 bfloat16 float16",
    "engine": "auto wavefront reference",
    "format_": "text csv json markdown",
    "keep": "auto effects means patches",
    "limit": "1 2 100",
    "metric": "log_prob prob rank kl fisher top answer_log_prob kl,kl log_prob,prob,rank,kl,fisher,top perplexity",
    "model": "{folder}/gpt2 {folder}/alone surely/nonsense phantom",
    "noise_scale": "0.5 3 0 1e-9",
    "norm": "clean own",
    "orders": "2 3 4",
    "offload": "cpu disk",
    "patches": "1 2 3 1000000000",
    "port": "8765 65535 65536",
    "prompt": "0 3 99",
    "prompts": "demo ioi induction greater-than phantom counterfact hf:surely/none {folder}/facts.jsonl "
    "{folder}/pairs.jsonl {folder}/short.txt",
    "products": "float32 bfloat16-differences bfloat16",
    "readout": "logit logit.3 logit.59 logit.99 logit.answer logit.foil difference placebo placebo.2 placebo.58 "
    "placebo.0 logit,logit logit,difference direction:{folder}/probe.npy direction:{folder}/probe.npy@1 "
    "direction:{folder}/probe.npy@9 directions:{folder}/two.npy "
    "directions:{folder}/probe.npy@1 direction:{folder}/two.npy direction:{folder}/pipe.txt",
    "results": "{folder}/who.zarr {folder}/pairs.zarr {folder}/heads.zarr {folder}/other.zarr",
    "revision": "main",
    "target": "argmax answer foil 0 58 59 60 61",
}
#: The words that component labels are made of.
_KINDS = (
    *("attn", "mlp", "layers", "heads", "head", "neurons", "neuron", "queries", "query", "key", "value", "logits", "x"),
)
_NUMBERS = (
    *("", ".0", ".1", ".2", ".3", ".-1", ".1-2", ".2-1", ".0-9", ".x", ".", ".1.0", ".2.3", ".1.4", ".1.0-2", ".1.0.0"),
)


@cache
def commands() -> dict[str, list[Any]]:
    """Every command, with its options and arguments."""
    return {name: each.params for name, each in typer.main.get_command(app.app).commands.items()}  # type: ignore[attr-defined]


def command(name: str, drawn: random.Random, kept: str = "") -> list[str]:
    """A command line in which something may be odd; less may, where that is what its option or argument `kept` names.

    Paths are written as `{folder}/…`, what is to be written as `{out}`.
    """
    words = [name]
    for parameter in commands()[name]:
        if not parameter.required:
            continue
        given = _needed(name, parameter)
        if not kept and drawn.random() < 0.15:
            given[-1] = _value(parameter, drawn)
        if kept or drawn.random() > 0.02:
            words += given
    options = [each for each in commands()[name] if each.opts[0].startswith("-") and not each.required]
    # Which would look for other machines.
    options = [each for each in options if each.name != "ray"]
    if name == "demo":  # which takes a minute where nothing is wrong
        words += ["--out", drawn.choice(("{folder}/prompts.txt", "{folder}/pipe.txt/x", "{folder}/loop/x"))]
    elif any(each.name == "ablation" for each in options) and (kept or drawn.random() < 0.7):
        words += ["--ablation", "zero"]
    for parameter in drawn.sample(options, min(len(options), drawn.choice((0, 0, 0, 1) if kept else (0, 1, 1, 2, 3)))):
        if (name, parameter.name) != ("demo", "out"):
            words.append(drawn.choice([*parameter.opts, *parameter.secondary_opts]))
            words += [] if parameter.is_flag else [_value(parameter, drawn)]
    if not kept and drawn.random() < 0.03:
        words.insert(drawn.randrange(len(words) + 1), drawn.choice(HOSTILE))
    return words


def without(line: Sequence[str], option: str) -> list[str]:
    """A command line without an option and its value."""
    return [*line[: line.index(option)], *line[line.index(option) + 2 :]] if option in line else list(line)


def _needed(name: str, parameter: Any) -> list[str]:
    """What a command must be given, all of it as it should be."""
    known = {
        "model": ["{folder}/model"],
        "prompts": ["--prompts", "{folder}/prompts.txt"],
        "out": ["--out", "{out}" + {"report": ".html", "export": ".csv"}.get(name, "")],
        "results": ["{folder}/r.zarr"] * (1 if parameter.nargs == 1 else 2),
    }
    return known.get(parameter.name) or [parameter.opts[0], "attn.1"]


def _value(parameter: Any, drawn: random.Random) -> str:
    """What an option or argument is given: hostile, or fitting."""
    if drawn.random() < 0.3:
        return drawn.choice(HOSTILE)
    if parameter.metavar == "PARTS":
        return _parts(drawn)
    return drawn.choice(_FITTING[parameter.name].split() if parameter.name in _FITTING else HOSTILE)


def _parts(drawn: random.Random) -> str:
    """Components of a model, joint and frozen ones, some of which there are."""

    def part() -> str:
        return drawn.choice(_KINDS) + drawn.choice(_NUMBERS)

    runs = [part() + "".join(drawn.choice("+|") + part() for _ in range(drawn.choice((0, 0, 0, 1, 2)))) for _ in "123"]
    return ",".join(runs[: drawn.choice((1, 1, 2, 3))])
