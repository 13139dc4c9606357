"""Conversations translated with a local model, what must stay as it is kept and checked."""

from adaptkit.data_tools.translate.languages import LANGUAGES, Language, find_language
from adaptkit.data_tools.translate.models import GenerationOptions, Translator, load_translator
from adaptkit.data_tools.translate.running import Translated, translate_file
from adaptkit.data_tools.translate.spans import LostError

__all__ = [
    "LANGUAGES",
    "GenerationOptions",
    "Language",
    "LostError",
    "Translated",
    "Translator",
    "find_language",
    "load_translator",
    "translate_file",
]
