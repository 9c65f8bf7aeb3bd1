"""Prompts: sets of them, their tokens, answers, subjects and positions."""

from typing import TYPE_CHECKING

from hydrascope.utils.lazy import export_lazily

if TYPE_CHECKING:
    from hydrascope.prompts.load import load_prompts as load_prompts
    from hydrascope.prompts.prompt import Prompt as Prompt
    from hydrascope.prompts.prompt import PromptSet as PromptSet

export_lazily(globals(), {"load": ("load_prompts",), "prompt": ("Prompt", "PromptSet")})
