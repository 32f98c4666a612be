"""myna chat: a conversation in the terminal. Ctrl-C stops the answer, not the program."""

import asyncio
import os
import sys
import time
from contextlib import aclosing, suppress
from dataclasses import fields, replace
from pathlib import Path

from rich.console import Console

from myna.commands.options import LoadingFlags, SamplingFlags, spoken
from myna.modeldir import DEFAULT
from myna.provider import Provider
from myna.provider.local import Loading, load
from myna.records import Conversation, Delta, Message, MynaError, RequestError, Sampling, fold, jsonl

screen = Console(highlight=False, soft_wrap=True)


def run(
    model: str = DEFAULT,
    /,
    *,
    system: str | None = None,
    adapter: Path | None = None,
    sampling: SamplingFlags = Sampling(),
    loading: LoadingFlags = Loading(),
) -> None:
    """Talk to a model in the terminal. /help lists what else you can do.

    Parameters
    ----------
    model
        A pulled model's name, or the path of a model directory.
    system
        Instructions for the whole conversation.
    adapter
        The folder of an adapter (LoRA) of the model, in PEFT's layout.
    """
    with suppress(ImportError):
        import readline  # importing it gives input() line editing and history

        if os.environ.get("TERM", "dumb") != "dumb":  # pasted lines are one message; Python turns this off
            readline.parse_and_bind("set enable-bracketed-paste on")

    with screen.status(f"loading {model}"):
        provider = load(model, loading)
        if adapter is not None:
            provider = provider.load_adapter(adapter)
    screen.print(
        f"[bold]{provider.name}[/bold]  /help for commands, Ctrl-C stops an answer, Ctrl-D leaves", style="dim"
    )
    Session(provider, system, sampling).run()


class Session:
    """A conversation under way. Its `do_*` methods are the /commands; their docstrings are /help."""

    def __init__(self, provider: Provider, system: str | None, sampling: Sampling):
        self.provider = provider
        self.sampling = sampling
        self.talk = Conversation(())
        if system:
            self.do_system(system)

    def run(self) -> None:
        while True:
            try:
                line = self.read()
                if line.startswith("/"):
                    self.command(line)
                elif line.strip():
                    self.talk += Message("user", line)
                    self.answer()
            except MynaError as e:
                screen.print(f"myna: {e}", style="red", markup=False)
            except KeyboardInterrupt:
                screen.print("(Ctrl-D or /quit leaves)", style="dim")
            except EOFError:
                screen.print()
                return

    def read(self) -> str:
        '''One message; a line that opens with """ goes on until one that closes with it.'''
        line = input("> ")
        if not line.startswith('"""'):
            return line
        lines = [line[3:]]
        while not lines[-1].endswith('"""'):
            lines.append(input(". "))
        return "\n".join(lines).removesuffix('"""')

    def command(self, line: str) -> None:
        name, _, rest = line[1:].partition(" ")
        method = getattr(self, f"do_{name}", None)
        if method is None:
            raise RequestError(f"there is no /{name}; /help lists what there is")
        method(rest.strip())

    def answer(self) -> None:
        """Stream an answer to the conversation and append it, or what there was of it when Ctrl-C came."""
        deltas: list[Delta] = []
        started = time.perf_counter()
        stopped = False
        try:
            asyncio.run(self._stream(deltas))
        except KeyboardInterrupt:
            stopped = True
        except MynaError:
            self.talk = replace(self.talk, messages=self.talk.messages[:-1])
            raise
        seconds = time.perf_counter() - started
        reply = fold(deltas)
        if reply.candidates and (reply.text or not stopped):
            # Tokens of a stopped answer lack the end-of-turn token, so they are not kept as evidence of a whole turn.
            self.talk += replace(reply.message, tokens=None) if stopped else reply.message
        count = len(reply.sampled[0]) if reply.sampled else 0
        note = "stopped" if stopped else reply.candidates[0].finish_reason
        screen.print(f"\n[{count} tokens, {count / seconds:.1f}/s, {note}]", style="dim", markup=False)

    async def _stream(self, deltas: list[Delta]) -> None:
        async with aclosing(self.provider.stream(self.talk, self.sampling)) as stream:
            async for delta in stream:
                deltas.append(delta)
                if delta.reasoning:
                    screen.print(spoken(delta.reasoning), end="", style="dim italic", markup=False)
                sys.stdout.write(spoken(delta.text))
                sys.stdout.flush()

    def do_help(self, rest: str) -> None:
        """what you are reading"""
        for name in sorted(n for n in dir(self) if n.startswith("do_")):
            screen.print(f"  /{name[3:]:<8} {getattr(self, name).__doc__}", markup=False)
        screen.print('  """      opens a message of several lines, and closes it', markup=False)

    def do_system(self, rest: str) -> None:
        """TEXT: instructions for the conversation; empty removes them"""
        others = tuple(m for m in self.talk.messages if m.role != "system")
        self.talk = replace(self.talk, messages=((Message("system", rest),) if rest else ()) + others)

    def do_set(self, rest: str) -> None:
        """NAME VALUE: a sampling setting, such as temperature 0.2; alone, shows them"""
        name, _, value = rest.partition(" ")
        kinds = {"temperature": float, "top_p": float, "min_p": float, "repetition_penalty": float, "presence_penalty": float,
                 "frequency_penalty": float, "top_k": int, "seed": int, "max_tokens": int}  # fmt: skip
        if not name:
            set_now = {f.name: getattr(self.sampling, f.name) for f in fields(self.sampling)}
            screen.print(
                {k: v for k, v in set_now.items() if v is not None} or "nothing is set; the model's defaults apply"
            )
        elif name not in kinds:
            raise RequestError(f"there is no setting {name!r}; these are: {', '.join(kinds)}")
        else:
            try:
                self.sampling = replace(self.sampling, **{name: kinds[name](value)}).check()
            except ValueError:
                raise RequestError(f"{name} takes a number, not {value!r}") from None

    def do_again(self, rest: str) -> None:
        """answer the last question again"""
        self._drop_last_answer()
        if not self.talk.messages or self.talk.messages[-1].role != "user":
            raise RequestError("there is no question to answer again")
        self.answer()

    def do_undo(self, rest: str) -> None:
        """forget the last question and its answer"""
        self._drop_last_answer()
        if self.talk.messages and self.talk.messages[-1].role == "user":
            self.talk = replace(self.talk, messages=self.talk.messages[:-1])

    def do_clear(self, rest: str) -> None:
        """start a new conversation with the same instructions"""
        self.talk = replace(self.talk, messages=tuple(m for m in self.talk.messages if m.role == "system"))

    def do_save(self, rest: str) -> None:
        """FILE.jsonl: write the conversation as a record, ready to train on"""
        if not rest:
            raise RequestError("name a file: /save talk.jsonl")
        jsonl.write(rest, [self.talk])
        screen.print(f"saved {rest}", style="dim", markup=False)

    def do_show(self, rest: str) -> None:
        """the conversation so far"""
        for message in self.talk.messages:
            screen.print(f"{message.role}: ", style="bold", end="")
            screen.print(spoken(message.text), markup=False)

    def do_quit(self, rest: str) -> None:
        """leave (so does Ctrl-D)"""
        raise EOFError

    def _drop_last_answer(self) -> None:
        if self.talk.messages and self.talk.messages[-1].role == "assistant":
            self.talk = replace(self.talk, messages=self.talk.messages[:-1])
