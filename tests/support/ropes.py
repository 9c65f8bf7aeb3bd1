"""Every rope type on every architecture that has rotary embeddings, the tables' limits below the test prompts."""

import copy
from typing import Any

import torch
from tiny import CONFIGS
from transformers import AutoConfig, AutoModelForCausalLM

from hydrascope.models.language_model import LanguageModel

#: From this length on longrope and dynamic NTK choose another table.
LIMIT = 9

#: Parameters of each rope type, but for the factors of longrope, which are as many as the table has columns.
ROPES: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": 2.0},
    "dynamic": {"factor": 4.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": LIMIT},
    "longrope": {"factor": 4.0, "original_max_position_embeddings": LIMIT},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": LIMIT,
    },
}


def has_rope(case: str) -> bool:
    """Whether transformers gives the architecture one of its rope types."""
    model_type, settings = CONFIGS[case]
    return bool(getattr(AutoConfig.for_model(model_type, **settings), "rope_parameters", None))


def ropes_of(case: str) -> list[str]:
    """Return the rope types that the architecture takes: Phi 3 knows longrope alone."""
    return ["default", "longrope"] if case == "phi3" else list(ROPES) if has_rope(case) else []


def roped(case: str, rope: str, seed: int = 0) -> LanguageModel:
    """A tiny random model in float64 with another rope type."""
    model_type, settings = CONFIGS[case]
    base = AutoConfig.for_model(model_type, **settings)
    by_layer = isinstance(next(iter(base.rope_parameters.values())), dict)

    def parameters(before: dict[str, Any]) -> dict[str, Any]:
        # All columns turn: NTK needs more than one frequency.
        whole = {"partial_rotary_factor": 1.0} if "partial_rotary_factor" in before else {}
        after = {**before, "rope_type": rope, "rope_theta": before.get("rope_theta", 1e4), **whole, **ROPES[rope]}
        if rope == "longrope":
            head = getattr(base, "qk_rope_head_dim", None) or getattr(base, "head_dim", None)
            head = head or base.hidden_size // base.num_attention_heads
            after |= {"short_factor": [1.0] * (head // 2), "long_factor": [1.0 + place for place in range(head // 2)]}
        return after

    given = copy.deepcopy(base.rope_parameters)
    ropes = {kind: parameters(each) for kind, each in given.items()} if by_layer else parameters(given)
    longest = LIMIT if rope == "dynamic" else settings["max_position_embeddings"]
    lengths = {"max_position_embeddings": longest, "original_max_position_embeddings": LIMIT}
    heads = {"head_dim": 8} if getattr(base, "head_dim", 0) is None else {}
    config = AutoConfig.for_model(model_type, **{**settings, **heads, "rope_parameters": ropes, **lengths})
    torch.manual_seed(seed)
    hf = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in hf.named_parameters():
            is_gain = parameter.ndim == 1 and "bias" not in name and "sinks" not in name
            noise = torch.randn_like(parameter) * (0.2 if parameter.ndim == 1 else 0.3)
            parameter.copy_(parameter + noise if is_gain else noise)
    return LanguageModel(hf.eval().to(torch.float64), name=f"{case}-{rope}")
