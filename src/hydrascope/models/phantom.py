"""The phantom: a small transformer with weights set by formula and known self-repair.

It is a GPT-2 of 6 blocks with 4 heads that names the colour of a thing, `perhaps the fox in the garden is` → `red`.
`SOURCE` finds the colour and writes it twice: for the answer, and as a note to later sublayers. `BACKUPS` read the
note. If the note is missing, `mlp.3` and `head.4.1` write more for the answer, and `mlp.5`, which writes against the
answer, writes less, each by a stated share of the missing note. `UNWATCHED` finds the colour, too, but nothing reads
its output. All other sublayers write nothing, and the final norm hardly changes.

Each quantity has an axis of the residual stream: a dimension, and the next one with the opposite sign. So the mean over
dimensions is 0. A large constant on an axis of its own fixes the scale of the norms: they pass on their input, up to a
factor that is 1 within 10⁻⁴.
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

#: A component with an ablation that is repaired, and one with an ablation that isn't.
SOURCE, UNWATCHED = "attn.3", "attn.1"
#: The share of the removed effect of `SOURCE` that each component restores. `head.4.1` restores 0.6 in prompts without
#: doubt, and 0.4 in as many prompts in which `perhaps` draws a third of its attention.
BACKUPS = {"head.4.1": 0.5, "mlp.3": 0.2, "mlp.5": 0.1}


_AXES = [
    "constant",
    "thing",
    "end",
    "doubt",
    *(f"{use} {colour}" for use in ("known", "answer", "note") for colour in COLOURS),
]
_WIDTH, _HEADS, _BLOCKS = 2 * len(_AXES), 4, 6
_HEAD = _WIDTH // _HEADS
#: A large constant in the residual stream, which alone fixes the scale of the norms.
_CONSTANT = 1000.0
_SCALE = _CONSTANT * (2 / _WIDTH) ** 0.5
#: A number above all notes; the missing note is the difference.
_FULL = 5.0
#: A score that draws all attention.
_ALL = 50.0

_THINGS = [thing for things in THINGS.values() for thing in things]
_WORDS = ["<unk>", "perhaps", "the", "in", "is", *COLOURS, *PLACES, *_THINGS]


def tokenizer() -> PreTrainedTokenizerFast:
    """Return the phantom's tokenizer, with one token for each word."""
    words = Tokenizer(WordLevel({word: number for number, word in enumerate(_WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    tokenizer_class: Any = PreTrainedTokenizerFast
    fast: PreTrainedTokenizerFast = tokenizer_class(tokenizer_object=words, unk_token="<unk>")
    return fast


@torch.no_grad()
def model() -> GPT2LMHeadModel:
    """Return the phantom in float32, with the same weights on every call."""
    hf: Any = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(_WORDS),
            n_positions=32,
            n_embd=_WIDTH,
            n_layer=_BLOCKS,
            n_head=_HEADS,
            n_inner=len(COLOURS),
            activation_function="relu",
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=None,
        )
    )
    hf.eval()
    for name, parameter in hf.named_parameters():
        parameter.fill_(_SCALE if ".ln_" in name and name.endswith("weight") else 0.0)
    _embed(hf.transformer.wte.weight)
    for colour in COLOURS:
        hf.lm_head.weight[_WORDS.index(colour)] = _reading({f"answer {colour}": 1.0})
    known = [{f"known {colour}": 1.0} for colour in COLOURS]
    missing = [{"constant": _FULL / _CONSTANT, f"note {colour}": -1.0} for colour in COLOURS]
    note = [{f"note {colour}": 1.0} for colour in COLOURS]
    block = hf.transformer.h
    _set_head(block[1].attn, 3, {"thing": _ALL}, known, {"answer": 0.6})
    _set_head(block[3].attn, 0, {"thing": _ALL}, known, {"answer": 1.0, "note": 1.0})
    _set_mlp(block[3].mlp, missing, BACKUPS["mlp.3"])
    # With doubt the head keeps two thirds of its attention, so that on average it restores a half.
    doubt = _ALL - math.log(2)
    _set_head(block[4].attn, 1, {"end": _ALL, "doubt": doubt}, missing, {"answer": 1.2 * BACKUPS["head.4.1"]})
    _set_mlp(block[5].mlp, note, -BACKUPS["mlp.5"])
    phantom: GPT2LMHeadModel = hf
    return phantom


def _embed(embedding: Tensor) -> None:
    """Set the embeddings: things with their colour, more or less well known, the end, and doubt."""
    for number, word in enumerate(_WORDS):
        embedding[number] = _writing("constant", _CONSTANT)
        if word in ("is", "perhaps"):
            embedding[number] += _writing({"is": "end", "perhaps": "doubt"}[word], 1.0)
    for colour, things in THINGS.items():
        for rank, thing in enumerate(things):
            known = 1.0 + 0.6 * rank
            embedding[_WORDS.index(thing)] += _writing("thing", 1.0) + _writing(f"known {colour}", known)


def _set_head(
    attention: Any,
    head: int,
    attends: dict[str, float],
    reads: Sequence[dict[str, float]],
    writes: dict[str, float],
) -> None:
    """Set the weights of a head.

    Args:
        attends: the attention score of each axis.
        reads: for each colour the weights of the axes that the value reads.
        writes: for each use of a colour the gain with which the value is written to the colour's axis.
    """
    first = head * _HEAD
    query, key, value = first, _WIDTH + first, 2 * _WIDTH + first
    attention.c_attn.bias[query] = _HEAD**0.5
    attention.c_attn.weight[:, key] = _reading(attends)
    for number, (colour, axes) in enumerate(zip(COLOURS, reads, strict=True)):
        attention.c_attn.weight[:, value + number] = _reading(axes)
        for use, gain in writes.items():
            attention.c_proj.weight[first + number] += _writing(f"{use} {colour}", gain)


def _set_mlp(mlp: Any, reads: Sequence[dict[str, float]], gain: float) -> None:
    """Set the weights of an MLP with one neuron per colour, which writes to the answer.

    Each neuron writes the positive part of its input.

    Args:
        reads: for each colour the weights of the axes that its neuron reads.
        gain: the factor of the output.
    """
    for number, (colour, axes) in enumerate(zip(COLOURS, reads, strict=True)):
        mlp.c_fc.weight[:, number] = _reading(axes)
        mlp.c_proj.weight[number] = _writing(f"answer {colour}", gain)


def _writing(axis: str, value: float) -> Tensor:
    """Return the vector that has `value` on an axis."""
    vector, first = torch.zeros(_WIDTH), 2 * _AXES.index(axis)
    vector[first], vector[first + 1] = value, -value
    return vector


def _reading(axes: dict[str, float]) -> Tensor:
    """Return the vector that reads the weighted sum of some axes by an inner product."""
    return sum((_writing(axis, weight / 2) for axis, weight in axes.items()), torch.zeros(_WIDTH))
