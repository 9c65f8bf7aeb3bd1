"""The prompts that a command names, read when the command runs."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hydrascope.cli.options import SweepOptions, say
from hydrascope.utils.text import counted

if TYPE_CHECKING:
    from hydrascope.prompts import PromptSet


@dataclass(frozen=True)
class PromptRequest:
    """A set of prompts as requested on the command line: by name, nothing read.

    Attributes:
        name: the file, the name, or the table on the hub.
        limit: the number of prompts to measure, from the first; None for all.
        swapped: whether each prompt is exchanged with its counterfactual.
        chat: whether the prompts are put into the tokenizer's chat template.
    """

    name: str
    limit: int | None = None
    swapped: bool = False
    chat: bool = False

    @classmethod
    def of(cls, options: SweepOptions) -> "PromptRequest":
        """Make a request from the options of a command."""
        return cls(options.prompts, options.limit, options.swapped, options.chat)

    def read(self) -> "PromptSet":
        """Read the prompts, and print how many are there twice.

        Raises:
            HydrascopeError: there are no such prompts, or one to be swapped has no counterfactual.
        """
        from hydrascope import load_prompts

        prompts = load_prompts(self.name)
        if prompts.duplicates:
            say(f"{counted(prompts.duplicates, 'duplicate prompt', 'duplicate prompts')} left out", err=True)
        prompts = prompts if self.limit is None else prompts.limit(self.limit)
        prompts = prompts.swapped() if self.swapped else prompts
        return prompts.chat() if self.chat else prompts
