"""Prompts: sets of them, their tokens, answers, subjects and positions."""

from typing import TYPE_CHECKING

from hydrascope.utils.lazy import lazy_names

if TYPE_CHECKING:
    from hydrascope.prompts.load import load_prompts
    from hydrascope.prompts.prompt import Prompt, PromptSet

__all__ = ["Prompt", "PromptSet", "load_prompts"]

__getattr__ = lazy_names(__name__, {"load": ("load_prompts",), "prompt": ("Prompt", "PromptSet")})
