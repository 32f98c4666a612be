"""Loading a model for whatever it is: one that answers, or an encoder that makes embeddings or scores."""

from myna.modeldir import ModelDir, find
from myna.provider import Provider, local, local_embed
from myna.provider.local import Loading
from myna.provider.local_embed import EmbedLoading


def load_either(model: str, how: Loading = Loading(), *, name: str | None = None) -> Provider:
    """See local.load and local_embed.load_embedder. An encoder takes the precision of `how` where it has that, else auto,
    and its own length."""
    if _is_encoder(model):
        return local_embed.load_embedder(model, _for_encoder(how), name=name)
    return local.load(model, how, name=name)


def memory_of_either(model: str, how: Loading = Loading()) -> int:
    """Bytes that `load_either` would take."""
    if _is_encoder(model):
        return local_embed.memory_needed(model, _for_encoder(how))
    return local.memory_needed(model, how)


def _is_encoder(model: str) -> bool:
    from myna.model import describe

    return describe(ModelDir.open(find(model)))[0].encoder is not None


def _for_encoder(how: Loading) -> EmbedLoading:
    precision = how.precision
    return EmbedLoading(
        precision=precision if precision == "float32" or precision == "bfloat16" or precision == "int8" else "auto"
    )
