"""Embeddings by contrast: a query is to be nearer to what it should find than to everything else in the step. With the vectors
q and d, each of length 1, d+ what q should find, and all d of the step, its own wrong answers and those of the others among them:

    -log exp(q.d+ / t) / sum over d of exp(q.d / t)          InfoNCE, van den Oord et al. 2018, arXiv:1807.03748

as sentence-transformers' MultipleNegativesRankingLoss. What is the very text of d+ is not counted as wrong. More is learned
from more wrong answers, so the contrast is over all rows of a step whatever the micro-batch: vectors are computed first, then
each micro-batch goes back through its own (GradCache, Gao et al. 2021, arXiv:2101.06983).

A row is {"query", "positive", "negatives"?}. Trains encoders and decoders; the model directory says how to pool.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from myna.data import Row, collate
from myna.model import Encoder
from myna.modeldir.publish import write_json
from myna.records import DataError
from myna.train.config import Config
from myna.train.heads import hidden_rows
from myna.train.method import Method, Outcome, Tensors
from myna.train.offline import offline
from myna.train.once import unchanged
from myna.train.preference import Stats
from myna.train.ranges import Positive
from myna.train.setup import Setup
from myna.train.trainee import Trainee, publish_by, write_directory

DEFAULTS = {"optim": {"lr": 2e-5, "weight_decay": 0.01, "schedule": "linear", "warmup": 0.1}}
PLACE = "place"  # fact: which of the step's vectors is the sequence's


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Keys of contrastive training.

    temperature  t: the lower, the more the nearest wrong answers count
    pooling      of a text's hidden rows: mean, cls (the first) or last; auto is mean for encoders and last for decoders
    query        what is put before each query
    document     what is put before each text that is to be found
    """

    temperature: Positive = 0.05
    pooling: Literal["auto", "mean", "cls", "last"] = "auto"
    query: str = ""
    document: str = ""


def prepare(setup: Setup) -> Method:
    config, options = setup.config, setup.config.options
    if config.lora.adapts:
        raise DataError("lora.rank: an adapter's files do not say how to pool; leave it out")
    if setup.trainee.module is not setup.trainee.model:
        raise DataError(f"model.start: {setup.trainee.name} is a classifier; start from the model that it was made of")
    train, evals = setup.matched((options.query, options.document))
    pooling = options.pooling
    if pooling == "auto":
        pooling = "mean" if isinstance(setup.trainee.model, Encoder) else "last"
    contrast = Contrast(setup.trainee, config, options, pooling)
    setup.trainee = replace(setup.trainee, publish=partial(publish_by, partial(_write, setup.trainee, config, pooling)))
    return offline(config, train, evals, contrast.loss, renew=contrast.renew)


@dataclass
class Contrast:
    """`vectors` [sequences of the step, C], as they were before it."""

    trainee: Trainee
    config: Config
    options: Options
    pooling: str
    vectors: Tensor = field(default_factory=lambda: torch.empty(0))
    texts: Tensor = field(default_factory=lambda: torch.empty(0))
    sides: Tensor = field(default_factory=lambda: torch.empty(0))

    def renew(self, rows: list[Row]) -> list[Row]:
        """The rows, each sequence with its place among the step's vectors, which are computed here."""
        count = iter(range(sum(len(example) for row in rows for example in row)))
        placed: list[Row] = [
            [tuple(replace(s, facts={**s.facts, PLACE: next(count)}) for s in example) for example in row]
            for row in rows
        ]
        size = self.config.run.micro or len(rows)
        groups = [self._batch(placed[at : at + size]) for at in range(0, len(rows), size)]
        with unchanged(self.trainee.module):
            self.vectors = torch.cat([self.embed(batch) for batch in groups])
        self.texts = torch.cat([batch.facts["text"] for batch in groups])
        self.sides = torch.cat([batch.facts["side"] for batch in groups])
        return placed

    def embed(self, batch: Tensors) -> Tensor:
        """float32 [sequences, C] of length 1."""
        with self.trainee.computing(self.config.model.precision):
            rows, lengths = hidden_rows(self.trainee.model, batch)
        ends = lengths.cumsum(0)
        if self.pooling == "mean":
            owner = torch.repeat_interleave(torch.arange(len(lengths), device=rows.device), lengths)
            pooled = torch.zeros(len(lengths), rows.shape[-1], device=rows.device).index_add(0, owner, rows.float())
            return F.normalize(pooled / lengths[:, None], dim=-1)
        return F.normalize(rows[ends - (lengths if self.pooling == "cls" else 1)].float(), dim=-1)

    def loss(self, batch: Tensors) -> Outcome:
        """Summed over the batch's queries, in units of queries. Its gradient is that of the whole step's loss through the
        batch's own vectors, so over all micro-batches it is the gradient of the step."""
        mine = batch.facts[PLACE].long()
        vectors = self.vectors.index_put((mine,), self.embed(batch))
        losses, ranks = self._contrast(vectors)
        own = torch.zeros(len(vectors), dtype=torch.bool, device=mine.device).index_fill(0, mine, True)[self.sides == 0]
        whole = losses.sum()
        loss = losses[own].sum().detach() + whole - whole.detach()
        queries = int(own.sum())
        found = ranks[own]
        stats: Stats = {
            "accuracy": ((found == 0).sum(), queries),
            "reciprocal_rank": ((1 / (1 + found)).sum(), queries),
        }
        return Outcome(loss, queries, stats)

    def _contrast(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of every query of the step, and how many texts are nearer to it than what it should find."""
        queries, documents = vectors[self.sides == 0], vectors[self.sides > 0]
        texts = self.texts[self.sides > 0]
        wanted = torch.where(self.sides[self.sides > 0] == 1)[0]  # one a query, in their order
        scores = queries @ documents.T / self.options.temperature
        same = texts[wanted][:, None] == texts[None]
        same[torch.arange(len(wanted), device=same.device), wanted] = False
        scores = scores.masked_fill(same, -torch.inf)
        right = scores.gather(1, wanted[:, None])
        return F.cross_entropy(scores, wanted, reduction="none"), (scores > right).sum(1)

    def _batch(self, rows: list[Row]) -> Tensors:
        return Tensors.of(collate(rows, self.config.data.context), self.trainee.device)


def _write(trainee: Trainee, config: Config, pooling: str, folder: Path) -> None:
    """The model, and in sentence-transformers' files how a text becomes a vector."""
    write_directory(trainee.model, trainee.fields, trainee.source, config.model.save, folder)
    steps = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    kinds: Callable[[str], str] = lambda kind: f"sentence_transformers.models.{kind}"  # noqa: E731
    modules = [{"idx": n, "name": str(n), "path": path, "type": kinds(kind)} for n, (path, kind) in enumerate(steps)]
    modes = {"cls": "cls_token", "mean": "mean_tokens", "last": "lasttoken"}
    pooled: dict[str, Any] = {"word_embedding_dimension": trainee.model.spec.width}
    pooled |= {f"pooling_mode_{mode}": how == pooling for how, mode in modes.items()}
    write_json(folder / "modules.json", modules)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": config.data.context, "do_lower_case": False})
    if config.options.query or config.options.document:
        prompts = {"query": config.options.query, "document": config.options.document}
        write_json(folder / "config_sentence_transformers.json", {"prompts": prompts, "default_prompt_name": None})
    for name, values in (("1_Pooling", pooled), ("2_Normalize", None)):
        (folder / name).mkdir()
        if values:
            write_json(folder / name / "config.json", values)
