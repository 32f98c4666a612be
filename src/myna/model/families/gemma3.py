"""Gemma 3 with images: its text part is read from text_config, its image part is left on disk."""

from myna.model.config import Config
from myna.model.families import gemma3_text
from myna.model.spec import Spec

NAMES = gemma3_text.NAMES
rename = gemma3_text.rename


def spec(config: Config) -> Spec:
    return gemma3_text.spec(config.below("text_config").filled(model_type="gemma3_text"))
