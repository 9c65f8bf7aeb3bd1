"""A user's own model, and whether it came back as it was."""

import torch
from tiny import tiny

from hydrascope.models.language_model import LanguageModel


def state(model: LanguageModel) -> dict:
    """All that could be left behind."""
    modules = list(model.hf.modules())
    return {
        "hooks": [(dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in modules],
        "forward": [vars(m).get("forward") for m in modules],
        "training": [m.training for m in modules],
        "grad": [p.requires_grad for p in model.hf.parameters()],
        "attention": [m.config._attn_implementation for m in modules if hasattr(m, "config")],
        "experts": model.hf.config._experts_implementation
        if hasattr(model.hf.config, "_experts_implementation")
        else None,
        "weights": {name: weight.clone() for name, weight in model.hf.state_dict().items()},
    }


def assert_as_it_was(model: LanguageModel, before: dict) -> None:
    after = state(model)
    for name in set(before) - {"weights"}:
        assert after[name] == before[name], name
    assert all(torch.equal(after["weights"][name], weight) for name, weight in before["weights"].items())


def users_own(case: str, dtype: torch.dtype = torch.float64) -> LanguageModel:
    """A model that its user trains: some modules frozen, one in eval mode, with hooks of the user's own."""
    model = tiny(case, dtype)
    model.hf.train()
    model.blocks[1].eval()
    for parameter in list(model.hf.parameters())[::3]:
        parameter.requires_grad_(False)
    model.blocks[0].register_forward_hook(lambda module, args, output: None)
    model.blocks[2].register_forward_pre_hook(lambda module, args: None)
    return model
