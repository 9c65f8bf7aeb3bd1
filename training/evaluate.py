"""How good a trained model is: recall of facts in wordings it never met, and loss on held-out prose."""

from collections.abc import Sequence
from math import log
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from training.lines import Line


def load(folder: Path) -> tuple[PreTrainedModel, Any]:
    """A trained model in float32, and its tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(folder)


@torch.no_grad()
def last_logits(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], batch: int = 64
) -> Float[Tensor, "text token"]:
    """The logits after each text; right padding is never seen by a causal model's earlier positions."""
    out = torch.empty(len(texts), model.config.vocab_size)
    by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for start in range(0, len(texts), batch):
        chosen = by_length[start : start + batch]
        tokens = tokenizer([texts[i] for i in chosen], padding=True, return_tensors="pt")
        last = tokens["attention_mask"].sum(1) - 1
        hidden = model.model(input_ids=tokens["input_ids"]).last_hidden_state[torch.arange(len(last)), last]
        out[chosen] = model.lm_head(hidden)
    return out


def first_tokens(tokenizer: PreTrainedTokenizerFast, lines: Sequence[Line]) -> Int[Tensor, "text"]:
    """The first token of each answer, as it continues its prompt."""
    return torch.tensor([tokenizer(line["answer"], add_special_tokens=False)["input_ids"][0] for line in lines])


def correct(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, lines: Sequence[Line]) -> list[bool]:
    """Whether each answer's first token is the most likely one."""
    best = last_logits(model, tokenizer, [line["prompt"] for line in lines]).argmax(-1)
    return (best == first_tokens(tokenizer, lines)).tolist()


def recall(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, lines: Sequence[Line]) -> dict[str, Any]:
    """The share of answers whose first token is the most likely one: per relation, and over all."""
    right = correct(model, tokenizer, lines)
    relations = sorted({line["relation"] for line in lines})
    per = {name: [ok for ok, line in zip(right, lines, strict=True) if line["relation"] == name] for name in relations}
    return {"all": sum(right) / len(right), **{name: sum(oks) / len(oks) for name, oks in per.items()}}


@torch.no_grad()
def loss(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], length: int = 128) -> dict:
    """Mean cross-entropy on texts, in nats a token and in bits a character of what was predicted."""
    nats, count, characters = 0.0, 0, 0
    for start in range(0, len(texts), 16):
        tokens = tokenizer(list(texts[start : start + 16]), padding=True, truncation=True, max_length=length)
        ids, kept = torch.tensor(tokens["input_ids"]), torch.tensor(tokens["attention_mask"])
        nexts = ids[:, 1:].masked_fill(kept[:, 1:] == 0, -100)
        logits = model(input_ids=ids).logits[:, :-1]
        nats += torch.nn.functional.cross_entropy(logits.flatten(0, 1), nexts.flatten(), reduction="sum").item()
        count += int((nexts >= 0).sum())
        characters += sum(len(tokenizer.decode(row[row >= 0])) for row in nexts)
    return {"nats_per_token": nats / count, "bits_per_character": nats / characters / log(2)}
