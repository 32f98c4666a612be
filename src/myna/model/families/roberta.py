"""RoBERTa (Liu et al. 2019): BERT whose positions begin behind the padding id, and whose classifier is one piece."""

from myna.model.config import Config
from myna.model.families import bert
from myna.model.spec import Spec

NAMES = bert.NAMES | {"score.dense": "classifier.dense", "score.out": "classifier.out_proj"}
HEADS = (*bert.HEADS, "lm_head.")
BELOW = "roberta."


def spec(config: Config) -> Spec:
    padding = config.fields.get("pad_token_id", 1)
    if not isinstance(padding, int) or not 0 <= padding < 1 << 16:
        raise config.error("pad_token_id", "must be a token id")
    return bert.spec(config, first=padding + 1)


def rename(name: str) -> str | None:
    return bert.rename(name.removeprefix(BELOW))
