"""Our own engine, in this process. The engine and torch are imported when a model is loaded, not before."""

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from myna.chat import Chat, Rendered
from myna.chat.stream import OPEN
from myna.forms import Compiled, Compiler, Reasoning
from myna.provider.answer import Answer, Inbox, Mail
from myna.provider.finished import Finished
from myna.provider.judge import Judge
from myna.provider.powers import OURS
from myna.provider.room import LONGEST_TOKEN, check_memory
from myna.provider.threads import COMPILING, off_loop
from myna.provider.tools import bound_calls, must_call, offered
from myna.records import (
    Conversation,
    Delta,
    Document,
    Embedding,
    ModelDirError,
    MynaError,
    Passage,
    ProviderError,
    RequestError,
    Sampling,
    Scores,
    Unavailable,
    Vectors,
)

if TYPE_CHECKING:
    from pathlib import Path

    from myna.engine.engine import Update
    from myna.engine.loop import Loop
    from myna.model import Estimate, Spec
    from myna.modeldir import ModelDir
    from myna.provider.local_embed import LocalEmbedder

log = logging.getLogger(__name__)


class Local:
    """A loaded model that answers. `defaults` apply where a request says nothing."""

    capabilities: tuple[str, ...] = ("chat", "completions", "embeddings", "rerank")
    powers = OURS

    def __init__(
        self,
        loop: "Loop",
        chat: Chat,
        *,
        name: str,
        defaults: Sampling = Sampling(),
        details: Any = None,
        spec: "Spec | None" = None,
        embedder: "Callable[[], LocalEmbedder] | None" = None,
    ):
        self.loop = loop
        self.chat = chat
        self.name = name
        self.defaults = defaults
        self.max_len = loop.engine.max_len
        self.details = details or {}
        self._forms = Compiler(chat.tokenizer, chat.stop_ids)
        self._judge = Judge(self, chat, self.max_len)
        self._spec = spec
        self._adapter = 0
        self._make_embedder = embedder
        self._embedder: LocalEmbedder | None = None
        self._making = threading.Lock()
        self.queued_tokens = 0  # prompt tokens of requests that have no first token yet
        self._priority = 0
        self._mail = Mail()
        loop.after = self._mail.deliver

    @property
    def ready(self) -> bool:
        """Whether the engine's thread lives."""
        return self.loop.is_open

    def behind(self) -> "Local":
        """The same model, for work that gives way to all other: its requests are started and kept last."""
        other = copy(self)
        other.queued_tokens, other._priority = 0, 1
        return other

    def load_adapter(self, folder: "str | Path", *, name: str | None = None) -> "Local":
        """The same model with an adapter (modeldir/adapter.py), as a provider of its own; both answer in one batch. Takes
        as long as reading the folder does. Closing it frees the adapter and leaves the model.

        Raises ModelDirError when the folder is no adapter, or is one of another model.
        """
        from myna.model import read_adapter
        from myna.modeldir import AdapterDir

        if self._spec is None or self._adapter:
            raise RequestError(f"{self.name} takes no adapters.", param="base_model")
        opened, engine = AdapterDir.open(folder), self.loop.engine
        if opened.dora:
            raise ModelDirError(
                f"{opened.path}: a DoRA adapter changes the whole weight, so it is served merged: "
                f"myna merge {opened.path} --out FOLDER"
            )
        prepared = engine.runner.prepare(read_adapter(self._spec, opened))
        other = copy(self)
        other._adapter = self.loop.ask(lambda: engine.add_adapter(prepared))
        other.name, other.queued_tokens = name or opened.name, 0
        other.details = self.details | {"adapter": opened.name, "base_model": self.name}
        other.capabilities = tuple(one for one in self.capabilities if one != "embeddings")
        other._make_embedder = other._embedder = None
        other._judge = Judge(other, self.chat, self.max_len)
        return other

    def stats(self) -> dict[str, float]:
        """What the engine counts, for /metrics; once, whatever adapters share it."""
        if self._adapter:
            return {"queued_tokens": self.queued_tokens}
        forms = {"forms_compiled": self._forms.compiled, "compile_seconds": self._forms.seconds}
        return {"queued_tokens": self.queued_tokens} | self.loop.engine.stats() | forms

    def close(self) -> None:
        """Stop the engine's thread, or of an adapter free it. Streams still open end with a ProviderError."""
        if self._adapter:
            with suppress(Unavailable):  # the engine was stopped, and all is free
                self.loop.ask(lambda: self.loop.engine.drop_adapter(self._adapter))
            return
        self.loop.close()
        if self._embedder is not None:
            self._embedder.close()

    async def stream(
        self, what: Conversation | Document, sampling: Sampling = Sampling()
    ) -> AsyncGenerator[Delta, None]:
        """See Provider.stream. Rendering runs off the event loop; the forward pass has a thread of its own."""
        self._refuse_if_hopeless(what)
        sampling = sampling.resolve(self.defaults).check()
        what = offered(what, sampling)
        rendered = await asyncio.to_thread(self.render, what)
        form = await off_loop(COMPILING, self._compile, what, rendered, sampling)
        answer = Answer(self.chat, what, rendered, sampling)
        finished = Finished(form)
        inbox, events = Inbox(), asyncio.get_running_loop()

        def listen(update: "Update") -> bool:
            try:
                news = answer.read(update)
            except Exception as e:  # a bug of ours; without a word the reader would wait for ever
                log.exception("reading the engine's update failed")
                news = ProviderError(f"the answer could not be read: {type(e).__name__}", status=500)
            self._mail.put(events, inbox, news)
            # Nobody will read what is put on a closed loop.
            return isinstance(news, ProviderError) or answer.stopped[update.candidate] or events.is_closed()

        try:
            matcher = form.matcher if form else None
            stops = self.chat.stop_ids | rendered.stop_ids
            inbox.ticket = self.loop.submit(
                rendered.ids,
                sampling,
                listen,
                stop_ids=stops,
                form=matcher,
                priority=self._priority,
                adapter=self._adapter,
            )
        except RequestError as e:
            if e.param == "prompt" and isinstance(what, Conversation):
                e.param = "messages"  # the engine knows prompts, the request has messages
            raise
        queued = len(rendered.ids)
        self.queued_tokens += queued
        try:
            yield Delta()
            while True:
                delta = await inbox.get()
                self.queued_tokens, queued = self.queued_tokens - queued, 0
                yield await finished.look(delta, cut=answer.stopped[delta.candidate])
                if delta.usage is not None:
                    return
        finally:
            self.queued_tokens -= queued
            inbox.ticket.cancel()

    def _compile(self, what: Conversation | Document, rendered: Rendered, sampling: Sampling) -> Compiled | None:
        """What the answer must look like, after any reasoning. RequestError where that cannot be enforced."""
        calls = bound_calls(self.chat, self._forms, what, sampling) if isinstance(what, Conversation) else None
        form = calls if calls and must_call(sampling) else sampling.form or calls
        if form is None:
            return None
        may_think = isinstance(what, Conversation) and OPEN in self.chat.tokenizer.special
        reasoning: Reasoning = "open" if rendered.open_reasoning else "maybe" if may_think else "none"
        return self._forms.compile(form, reasoning, instead=None if form is calls else calls)

    async def embed(self, texts: Sequence[Passage], how: Embedding = Embedding()) -> Vectors:
        """See Embedder.embed. The decoder's last hidden row of each text, computed beside the engine and without its cache."""
        return await (await asyncio.to_thread(self._find_embedder)).embed(texts, how)

    async def score(self, query: str, documents: Sequence[str], *, truncate: bool = False) -> Scores:
        """See Scorer.score. The model is asked about each document (judge.py)."""
        return await self._judge.score(query, documents, truncate=truncate)

    def _find_embedder(self) -> "LocalEmbedder":
        """Made when it is first asked for: most never are."""
        with self._making:
            if self._embedder is None:
                if self._make_embedder is None:
                    raise RequestError(f"{self.name} was not loaded to make embeddings.", param="model")
                self._embedder = self._make_embedder()
            return self._embedder

    def _refuse_if_hopeless(self, what: Conversation | Document) -> None:
        """Refuse by its length what no tokenizer could make fit: to count 15 MB takes half a minute and 3 GB."""
        texts = (
            [m.text for m in what.messages]
            if isinstance(what, Conversation)
            else []
            if what.tokens
            else [what.text, what.suffix or ""]
        )
        if (characters := sum(map(len, texts))) > self.max_len * LONGEST_TOKEN:
            raise RequestError(
                f"The prompt has {characters} characters and this server holds {self.max_len} tokens (prompt and answer "
                f"together), of at most {LONGEST_TOKEN} characters each. Shorten the prompt, or serve with a larger --max-len.",
                param="messages" if isinstance(what, Conversation) else "prompt",
                code="context_length_exceeded",
            )

    def render(self, what: Conversation | Document) -> Rendered:
        """The exact prompt that `stream` would send."""
        return self.chat.render(what) if isinstance(what, Conversation) else self.chat.prompt(what)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """How to load a model.

    Attributes
    ----------
    precision
        What weights become in memory: auto follows the disk (of quantized weights, 4-bit ones stay as they are and the
        others become int8). reference is the slow truth to compare with: float32, every token from a plain forward pass
        over the whole text, without native kernels, batches, caches or guesses.
    max_len
        Most tokens of prompt and answer together. Unset is what the model was made for, as far as --kv-gb goes.
    kv
        How keys and values are kept: int8 holds nearly twice as many tokens a gigabyte and reads half as much, at a loss that
        docs/kernels.md states; auto is bfloat16, and float32 beside float32 weights.
    kv_gb
        Gigabytes for the keys and values of all running requests and the prefix cache.
    max_running
        Most sequences decoded at once.
    prefix_cache
        Let requests share the computation of a common beginning.
    draft_rows
        Rows that running answers and guesses at what follows may have together. A step guesses as much as pays, by what
        steps and guesses turned out to cost and bring here. Answers stay the same. 0 turns guessing off.
    draft
        A smaller model with the same vocabulary that guesses for this one where that pays, as do repetitions by themselves.
        A pulled model's name, or the path of a model directory.
    dialect
        How the model writes tool calls: hermes, mistral, ... Unset is told from its chat template; /v1/models shows it.
    deterministic
        Answer only where the same request gives the same bytes whatever else runs, which is wherever our kernels compute, and
        with --precision reference; refuse to start where torch computes, whose sums depend on the batch. Changes no answer.
    """

    precision: Literal["auto", "float32", "bfloat16", "int8", "int4", "mixed", "reference"] = "auto"
    max_len: int | None = None
    kv: Literal["auto", "int8"] = "auto"
    kv_gb: float = 1.0
    max_running: int = 64
    prefix_cache: bool = True
    draft_rows: int = 16
    draft: str | None = None
    dialect: str | None = None
    deterministic: bool = False

    def kv_tokens(self, per_token: int) -> int:
        """How many tokens `kv_gb` holds, where the keys and values of one take so many bytes. MynaError if it is no size."""
        if not 0 < self.kv_gb < 1e6:
            raise MynaError(f"--kv-gb is {self.kv_gb:g}; it is a number of gigabytes above 0, such as 1 or 0.5.")
        return int(self.kv_gb * 2**30 / per_token)


def load(model: str, how: Loading = Loading(), *, name: str | None = None) -> Local:
    """Load a model directory or a pulled model and start its engine.

    Raises ModelDirError when there is no such model, when it does not fit into memory (with the sum), or when the model
    that shall draft for it has other tokens.
    """
    from myna.engine.engine import engine_for
    from myna.engine.loop import Loop
    from myna.engine.native import why_not
    from myna.engine.runner import runner_for
    from myna.model import REFERENCE, load_model
    from myna.model.ahead import read_ahead
    from myna.modeldir import ModelDir, find
    from myna.provider.local_embed import embedder_of

    directory = ModelDir.open(find(model))
    draft = ModelDir.open(find(how.draft)) if how.draft else None
    if draft and (how.precision == REFERENCE or not how.draft_rows):
        raise MynaError("--draft guesses; --precision reference and --draft-rows 0 do not. Leave one of them out.")
    kv_tokens = _check_memory(directory, draft, how)
    chat = Chat.load(directory.path, speaks=how.dialect)
    if draft:
        _check_same_tokens(directory, chat, draft)
    decoder = load_model(directory, how.precision, how.max_len, how.kv)
    if how.deterministic and how.precision != REFERENCE and (reason := why_not(decoder)) is not None:
        raise MynaError(
            f"{directory.name} would be computed by torch here, as {reason}: answers may differ with what else runs. "
            "For --deterministic take --precision int8, or reference."
        )
    engine = engine_for(
        decoder,
        kv_tokens=kv_tokens,
        max_running=how.max_running,
        prefix_cache=how.prefix_cache,
        draft_rows=how.draft_rows if how.precision != REFERENCE else 0,
        draft=load_model(draft, kv=how.kv) if draft else None,
        heads=read_ahead(directory, decoder.spec.width),
        runner=runner_for(how.precision),
    )
    details = {"family": directory.config.get("model_type"), "kv_tokens": kv_tokens}
    details |= {"dialect": chat.dialect.name, "tools_in": chat.tools_in}
    name = name or directory.name
    embedder = partial(embedder_of, decoder, directory, name=name, tokenizer=chat.tokenizer)
    loop, defaults = Loop(engine), recommended(directory)
    return Local(loop, chat, name=name, defaults=defaults, details=details, spec=decoder.spec, embedder=embedder)


def memory_needed(model: str, how: Loading = Loading()) -> int:
    """Bytes that `load` would take. Raises ModelDirError as it does, and reads no weight."""
    from myna.modeldir import ModelDir, find

    draft = ModelDir.open(find(how.draft)) if how.draft else None
    return _needs(ModelDir.open(find(model)), draft, how).total


def _needs(directory: "ModelDir", draft: "ModelDir | None", how: Loading) -> "Estimate":
    from myna.model import check_decoder, describe, estimate

    check_decoder(directory, describe(directory)[0])
    needs = estimate(directory, how.precision, kv=how.kv, max_len=how.max_len)
    if draft:
        needs = needs.beside(estimate(draft, kv=how.kv))
    return replace(needs, kv=how.kv_tokens(needs.kv_per_token) * needs.kv_per_token)


def _check_memory(directory: "ModelDir", draft: "ModelDir | None", how: Loading) -> int:
    """How many tokens of keys and values `kv_gb` holds; ModelDirError when all of it together does not fit here."""
    needs = _needs(directory, draft, how)
    who = f"{directory.name} as {needs.precision}" + (f" with {draft.name} to draft for it" if draft else "")
    check_memory(needs, who, "a smaller --kv-gb, --precision int4, or a smaller model")
    return needs.kv // needs.kv_per_token


def _check_same_tokens(directory: "ModelDir", chat: Chat, draft: "ModelDir") -> None:
    """A draft model's guesses are token ids, so an id must mean the same to both; ids that one lacks are never guessed."""
    if (directory.path / "tokenizer.json").read_bytes() == (draft.path / "tokenizer.json").read_bytes():
        return
    served, other = chat.tokenizer, Chat.load(draft.path).tokenizer
    for id in range(min(served.vocab_size, other.vocab_size)):
        one, two = served.piece(id), other.piece(id)
        if one != two and one and two:
            raise ModelDirError(
                f"{draft.name} cannot draft for {directory.name}: token {id} is {one!r} to {directory.name} and {two!r} to "
                f"{draft.name}. A draft model needs the same vocabulary; take a smaller model of the same family."
            )


def recommended(directory: "ModelDir") -> Sampling:
    """What generation_config.json recommends, in its own field names (transformers')."""
    generation = directory.generation
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
    found = {name: generation[name] for name in names if generation.get(name) is not None}
    return Sampling(temperature=0.0) if generation.get("do_sample") is False else Sampling(**found).check()
