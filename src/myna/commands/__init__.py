"""The command line: one thin file per verb that parses, calls and prints. A verb is imported when it is asked for."""

import errno
import os
import sys

from cyclopts import App, Parameter

from myna import __version__
from myna.records import MynaError, RequestError

VERBS = {
    "chat": "Talk to a model in the terminal.",
    "generate": "Answer one prompt, or continue a text.",
    "embed": "Turn texts into vectors.",
    "serve": "Serve a model: the OpenAI API and a chat page.",
    "keys": "Who may call a server: make, show and revoke API keys.",
    "pull": "Fetch or import a model.",
    "list": "The models you have, and those you can pull by name.",
    "show": "What a model is, and whether it fits here.",
    "explain": "The exact prompt a model would see.",
    "tokenizer": "Make a tokenizer from text, or compare some.",
    "data": "Data to train on: check, convert, deduplicate, split, tokenize.",
    "plan": "What a training run will take, before it starts.",
    "train": "Train a model: from nothing, or from one you have.",
    "compare": "Training runs side by side.",
    "merge": "Make an adapter part of its model.",
    "check": "Checks: score rows, mask personal data, answer reviews, compare a judge with people.",
    "prompt": "Prompt files: what they send, what comes back, what changed.",
    "index": "Documents to search in: add, list, remove, report, tune, build.",
    "flow": "Flows of steps that are written down: run, resume, answer, show, report.",
    "search": "Find passages in the documents of an index.",
    "ask": "Ask the documents of an index: an answer, and the words that it rests on.",
    "agent": "Agents: run, go on, test, draft, and what they remember.",
    "extract": "Fields out of documents, each with the words that it rests on.",
    "trace": "What models were asked, what they answered, and what it took.",
    "tools": "What a model could call: an API's tools, an MCP server's, and yours, served.",
    "sql": "Ask a database a question.",
    "doubt": "Is an answer to be believed? Agreement, evidence, and when not to answer.",
    "probe": "What an endpoint does of what it promises, tried.",
    "redteam": "Attack a model or an app, and say how it takes it.",
    "bench": "How fast a model runs here, beside what the machine allows.",
}

app = App(
    name="myna",
    help="A language model of your own, from first token to finished answer.",
    version=__version__,
    default_parameter=Parameter(negative_iterable=()),
    suppress_keyboard_interrupt=False,  # main says it
)
HELPS_ITSELF = ("train",)  # its flags are its methods' keys
GROUPS = (
    "agent",
    "flow",
    "tokenizer",
    "data",
    "check",
    "prompt",
    "index",
    "trace",
    "tools",
    "doubt",
)  # verbs that have verbs of their own
for verb, line in VERBS.items():
    if verb in GROUPS:
        app.command(f"myna.commands.{verb}:app", name=verb, help=line)
    else:
        own = {"help_flags": ()} if verb in HELPS_ITSELF else {}
        app.command(f"myna.commands.{verb}:run", name=verb, help=line, **own)


def main() -> None:
    """Run the command line. An error of the user's is one line on stderr and exit 2; Ctrl-C is exit 130."""
    # Torch's OpenMP threads spin while they wait. When another program wants a core, a spinning thread keeps the one that
    # has the work off it: 20 tokens took 9.9 s instead of 0.5. A short spin costs 7% on an idle machine (docs/log.md).
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    try:
        try:
            _refuse_bytes(sys.argv[1:])
            app()
        finally:
            sys.stdout.flush()  # here, where what goes wrong can be said
    except MynaError as e:
        _say(" ".join([str(e), *getattr(e, "__notes__", ())]))
        sys.exit(2)
    except KeyboardInterrupt:
        _say("interrupted")
        sys.exit(130)
    except BrokenPipeError:  # `myna list | head`: nobody reads on, which is no error
        _drop_output()
        sys.exit(0)
    except OSError as e:
        if e.filename and e.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG):
            _say(f"{e.filename}: {e.strerror}")
            sys.exit(2)
        if e.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _drop_output()
        _say(f"the disk is full: {e.filename or 'some of the output'} could not be written")
        sys.exit(2)


def _refuse_bytes(words: list[str]) -> None:
    """What is typed goes into requests, traces and files, all of which are UTF-8. A file is called what it is called."""
    for number, word in enumerate(words, start=1):
        if not word.isascii() and any("\ud800" <= c <= "\udfff" for c in word) and not os.path.lexists(word):
            raise RequestError(
                f"argument {number} is not UTF-8: {os.fsencode(word)[:60]!r}. Type it in UTF-8.", param="argv"
            )


def _say(what: str) -> None:
    """A line for the person at the terminal. An endpoint's own words may be in it, and move no cursor."""
    from myna.commands.options import spoken

    print(f"myna: {spoken(what)}", file=sys.stderr)


def _drop_output() -> None:
    """What is still buffered for stdout goes nowhere, so that Python does not fail on it once more as it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
