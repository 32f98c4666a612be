"""A run of an agent as people see it while it goes on, and as JSON lines for programs."""

from collections.abc import Callable, Sequence
from dataclasses import asdict

import orjson
from rich.console import Console
from rich.text import Text

from myna.apps.agent import Compacted, Ended, Event, Retried, Said
from myna.apps.agent.egress import harmless
from myna.apps.agent.plan import shown
from myna.apps.tools import Outcome
from myna.commands.options import printable, spoken
from myna.records.language import counted

WIDE = 160  # characters of arguments and of a result that are shown
Show = Callable[[Event], None]


def live(currency: str = "USD") -> Show:
    """Prints each step, call, result and cost to stderr; the answer is the command's to print."""
    screen = Console(stderr=True, highlight=False, soft_wrap=True)

    def show(event: Event) -> None:
        match event:
            case Said():
                took = (
                    f"  {event.usage.prompt_tokens:,} + {event.usage.completion_tokens:,} tokens" if event.usage else ""
                )
                screen.print(Text(f"step {event.step}{took}", "bold"))
                if event.message.tool_calls and event.message.text.strip():
                    screen.print(Text("  ") + _short(harmless(event.message.text)[0]))
                for call in event.message.tool_calls:
                    screen.print(Text("  calls ") + printable(call.name[:64]) + Text(" ") + _short(call.arguments))
            case Outcome():
                color = "green" if event.status == "ok" else "yellow" if event.status == "waiting" else "red"
                head = Text("  ").append(event.status, color).append(f" {event.seconds:.2f} s ")
                screen.print(head + printable(event.call.name[:64]) + Text(": ") + _short(event.result))
            case Retried():
                screen.print(Text("  again", "yellow") + Text(f" in {event.seconds:g} s: ") + _short(event.why))
            case Compacted():
                left = f", and {event.cut:,} characters cut" if event.cut else ""
                said = f"  told in short: {event.messages} messages, {event.before:,} -> {event.after:,} tokens (by {event.by}{left})"
                screen.print(Text(said, "yellow"))
            case Ended():
                if event.session.plan:
                    screen.print(
                        Text("plan\n", "bold") + Text("\n").join(map(printable, shown(event.session.plan).splitlines()))
                    )
                screen.print(_end(event, currency))

    return show


def as_json(event: Event) -> None:
    """One line an event; the last is how it ended."""
    match event:
        case Said():
            row = {
                "event": "said",
                "step": event.step,
                "message": event.message.to_json(),
                "usage": event.usage and asdict(event.usage),
            }
        case Outcome():
            row = {"event": "result", "call": event.call.to_json(), "status": event.status, "result": event.result, "seconds": event.seconds,
                   "cut": event.cut, "untrusted": event.untrusted}  # fmt: skip
        case Retried() | Compacted():
            row = {"event": type(event).__name__.lower(), **asdict(event)}
        case Ended():
            row = {"event": "ended", "reason": event.reason, "detail": event.detail, "answer": event.answer, "links": event.links,
                   "spent": event.spent, "tainted": event.tainted, "plan": [item.to_json() for item in event.session.plan], "run": event.session.run,
                   "waiting": [call.to_json() for call in event.waiting]}  # fmt: skip
    print(orjson.dumps(row).decode(), flush=True)


def print_answer(answer: str, links: Sequence[str]) -> None:
    if answer:
        print(spoken(answer))
    if links:
        note = Console(stderr=True, highlight=False, soft_wrap=True)
        note.print(
            Text("a stranger's text was read, so these are no links here: ", "yellow") + _short(", ".join(links), 2000)
        )


def _end(ended: Ended, currency: str) -> Text:
    spent = ended.spent
    sums = [counted(round(spent.get(f"{name}s", 0)), name) for name in ("step", "call", "token")]
    sums += [f"{spent['cost']:.4f} {currency}"] if spent.get("cost") else []
    said = Text(ended.reason, "green" if ended.reason == "done" else "red")
    said += Text(f"  {', '.join(sums)}, {spent.get('seconds', 0):.1f} s" + (", tainted" if ended.tainted else ""))
    return said + (Text(": ") + _short(ended.detail, 500) if ended.detail else Text(""))


def _short(text: str, most: int = WIDE) -> Text:
    one = " ".join(text.split())
    return printable(one if len(one) <= most else f"{one[:most]}… ({len(one):,} characters)")
