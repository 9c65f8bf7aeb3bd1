"""See to it that soft-capped scores of attention, as in Gemma 2, are capped.

Before 5.22, transformers lets such a model attend by PyTorch's own kernel ("sdpa"), which leaves out the cap.
"""

from typing import Any

from hydrascope.utils.errors import HydrascopeError


def attention_to_read(config: Any) -> dict[str, str]:
    """Return the arguments of `from_pretrained` with which a model caps its scores."""
    return {"attn_implementation": "eager"} if _is_capped(config) else {}


def require_cap(name: str, hf: Any) -> None:
    """Refuse a model whose attention leaves out the soft-cap of its configuration.

    Raises:
        HydrascopeError: it does.
    """
    if _is_capped(hf.config) and hf.config.get_text_config()._attn_implementation == "sdpa":
        raise HydrascopeError(
            f"{name} attends by sdpa, which leaves out the soft-cap of its scores: load it with "
            'attn_implementation="eager"'
        )


def _is_capped(config: Any) -> bool:
    return getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None
