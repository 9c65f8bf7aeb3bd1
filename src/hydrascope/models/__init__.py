"""Language models as the engines see them, and declarations of architectures."""

from typing import TYPE_CHECKING

from hydrascope.utils.lazy import lazy_names

if TYPE_CHECKING:
    from hydrascope.models.architectures import Anatomy, declare
    from hydrascope.models.language_model import LanguageModel

__all__ = ["Anatomy", "LanguageModel", "declare"]

__getattr__ = lazy_names(__name__, {"architectures": ("Anatomy", "declare"), "language_model": ("LanguageModel",)})
