"""Speech as log-magnitudes: TIMIT, free telephone prompts, or any folder of recordings."""

from momentumrnn.data.speech.features import FEATURES, log_magnitudes
from momentumrnn.data.speech.folder import load_prompts, load_speech_folder
from momentumrnn.data.speech.timit import load_timit
from momentumrnn.data.speech.utterances import PaddedBatch, SpeechSplits, Utterances

__all__ = [
    "FEATURES",
    "PaddedBatch",
    "SpeechSplits",
    "Utterances",
    "load_prompts",
    "load_speech_folder",
    "load_timit",
    "log_magnitudes",
]
