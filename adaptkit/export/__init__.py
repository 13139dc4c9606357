"""Workflows as stock checkpoints, which other programs read without adaptkit."""

from adaptkit.export.compatibility import llava_problems
from adaptkit.export.llava import export_llava
from adaptkit.export.output import ExportReport
from adaptkit.export.peft import export_peft
from adaptkit.export.speech import export_speech
from adaptkit.export.speech_compatibility import speech_problems

__all__ = ["ExportReport", "export_llava", "export_peft", "export_speech", "llava_problems", "speech_problems"]
