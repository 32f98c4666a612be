"""A decoder that answers with numbers: a linear head over a text's last token, as transformers has it in every decoder's
*ForSequenceClassification. One number is a reward, several are classes. An encoder has such a head of its own
(`Encoder.score`)."""

from dataclasses import replace

from torch import Tensor, nn

from myna.model.decoder import Decoder
from myna.model.linear import Linear


class Classifier(nn.Module):
    """`score` [labels, C] in the place of the decoder's own head, which is taken off."""

    def __init__(self, decoder: Decoder, labels: int):
        super().__init__()
        decoder.head, decoder.spec = None, replace(decoder.spec, tied=True)
        self.decoder = decoder
        self.score = Linear(decoder.spec.width, labels)

    @property
    def precision(self) -> str:
        return self.decoder.precision

    def forward(self, last: Tensor) -> Tensor:
        """Hidden states of last tokens [..., C] -> float32 [..., labels]"""
        return self.score(last)
