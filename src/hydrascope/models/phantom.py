"""A phantom: a small transformer set by formula whose self-repair is known, to hold the instrument against.

A GPT-2 of 6 layers and 4 heads that names the colour of a thing, `perhaps the fox in the garden is` → `red`. `SOURCE`
finds the colour and writes it twice: for the answer, and as a note to the layers above. `BACKUPS` watch the note. Where
it is missing, `mlp.3` and `head.4.1` write more for the answer, and `mlp.5`, which writes against it, writes less: each
by a stated share of what is missing. `UNWATCHED` finds the colour, too, and nobody watches it. The other layers write
nothing, and the final norm hardly feels any of it.

Each quantity stands in the residual stream on an axis: in one dimension, and with the other sign in the next. So the
mean over dimensions is 0, and a large constant on an axis of its own holds the norms' scale: they pass on what they are
given, up to a factor that is 1 within 10⁻⁴.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from hydrascope.prompts.phantom import COLOURS, PLACES, THINGS

#: Whose ablation is repaired, and whose isn't.
SOURCE, UNWATCHED = "attn.3", "attn.1"
#: The share of what ablating `SOURCE` removes that each of these restores. `head.4.1` restores 0.6 where nothing is in
#: doubt and 0.4 where `perhaps` draws a third of its attention, in as many prompts.
BACKUPS = {"head.4.1": 0.5, "mlp.3": 0.2, "mlp.5": 0.1}


_AXES = [
    "constant",
    "thing",
    "end",
    "doubt",
    *(f"{use} {colour}" for use in ("known", "answer", "note") for colour in COLOURS),
]
_WIDTH, _HEADS, _LAYERS = 2 * len(_AXES), 4, 6
_HEAD = _WIDTH // _HEADS
#: Large, so that the norms' scale is this constant's.
_CONSTANT = 1000.0
_SCALE = _CONSTANT * (2 / _WIDTH) ** 0.5
#: More than any note is: what is missing of it.
_FULL = 5.0
#: A score that leaves no attention to anything else.
_ALL = 50.0

_THINGS = [thing for things in THINGS.values() for thing in things]
_WORDS = ["<unk>", "perhaps", "the", "in", "is", *COLOURS, *PLACES, *_THINGS]


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a word."""
    words = Tokenizer(WordLevel({word: number for number, word in enumerate(_WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>")


@torch.no_grad()
def model() -> GPT2LMHeadModel:
    """The phantom, in float32; the same weights on every call."""
    hf = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(_WORDS),
            n_positions=32,
            n_embd=_WIDTH,
            n_layer=_LAYERS,
            n_head=_HEADS,
            n_inner=len(COLOURS),
            activation_function="relu",
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=None,
        )
    ).eval()
    for name, parameter in hf.named_parameters():
        parameter.fill_(_SCALE if ".ln_" in name and name.endswith("weight") else 0.0)
    _embed(hf.transformer.wte.weight)
    for colour in COLOURS:
        hf.lm_head.weight[_WORDS.index(colour)] = _reading({f"answer {colour}": 1.0})
    seen = [{f"known {colour}": 1.0} for colour in COLOURS]
    missing = [{"constant": _FULL / _CONSTANT, f"note {colour}": -1.0} for colour in COLOURS]
    noted = [{f"note {colour}": 1.0} for colour in COLOURS]
    block = hf.transformer.h
    _set_head(block[1].attn, 3, {"thing": _ALL}, seen, {"answer": 0.6})
    _set_head(block[3].attn, 0, {"thing": _ALL}, seen, {"answer": 1.0, "note": 1.0})
    _set_mlp(block[3].mlp, missing, BACKUPS["mlp.3"])
    # With doubt two thirds of its attention are left: on average a half is restored.
    doubt = _ALL - math.log(2)
    _set_head(block[4].attn, 1, {"end": _ALL, "doubt": doubt}, missing, {"answer": 1.2 * BACKUPS["head.4.1"]})
    _set_mlp(block[5].mlp, noted, -BACKUPS["mlp.5"])
    return hf


def _embed(embedding: Tensor) -> None:
    """What each word is: a thing of a colour that is known more or less well, the end, or a doubt."""
    for number, word in enumerate(_WORDS):
        embedding[number] = _writing("constant", _CONSTANT)
        if word in ("is", "perhaps"):
            embedding[number] += _writing({"is": "end", "perhaps": "doubt"}[word], 1.0)
    for colour, things in THINGS.items():
        for place, thing in enumerate(things):
            known = 1.0 + 0.6 * place
            embedding[_WORDS.index(thing)] += _writing("thing", 1.0) + _writing(f"known {colour}", known)


def _set_head(
    attention: Any,
    head: int,
    attends: dict[str, float],
    reads: Sequence[dict[str, float]],
    writes: dict[str, float],
) -> None:
    """Let a head attend by these scores, read a number a colour there, and write it to an axis of each colour."""
    first = head * _HEAD
    query, key, value = first, _WIDTH + first, 2 * _WIDTH + first
    attention.c_attn.bias[query] = _HEAD**0.5
    attention.c_attn.weight[:, key] = _reading(attends)
    for number, (colour, axes) in enumerate(zip(COLOURS, reads, strict=True)):
        attention.c_attn.weight[:, value + number] = _reading(axes)
        for use, gain in writes.items():
            attention.c_proj.weight[first + number] += _writing(f"{use} {colour}", gain)


def _set_mlp(mlp: Any, reads: Sequence[dict[str, float]], gain: float) -> None:
    """Let an MLP add the positive part of a number a colour to the answer, a neuron each."""
    for number, (colour, axes) in enumerate(zip(COLOURS, reads, strict=True)):
        mlp.c_fc.weight[:, number] = _reading(axes)
        mlp.c_proj.weight[number] = _writing(f"answer {colour}", gain)


def _writing(axis: str, value: float) -> Tensor:
    """The vector that has `value` on an axis."""
    vector, place = torch.zeros(_WIDTH), 2 * _AXES.index(axis)
    vector[place], vector[place + 1] = value, -value
    return vector


def _reading(axes: dict[str, float]) -> Tensor:
    """The vector whose product with another is the sum of its values on some axes, each times a weight."""
    return sum((_writing(axis, weight / 2) for axis, weight in axes.items()), torch.zeros(_WIDTH))
