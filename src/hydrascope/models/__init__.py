"""Language models as the engines see them, and declarations of architectures."""

from typing import TYPE_CHECKING

from hydrascope.utils.lazy import export_lazily

if TYPE_CHECKING:
    from hydrascope.models.architectures import Anatomy as Anatomy
    from hydrascope.models.architectures import declare as declare
    from hydrascope.models.language_model import LanguageModel as LanguageModel

export_lazily(globals(), {"architectures": ("Anatomy", "declare"), "language_model": ("LanguageModel",)})
