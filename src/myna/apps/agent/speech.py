"""The ways in which a model says that it calls a tool, or answers, over one conversation; and which is taken."""

from collections.abc import Callable
from dataclasses import dataclass

from myna.apps.agent import bound, react
from myna.apps.agent.agent import Agent, Speech
from myna.provider import Provider, powers
from myna.records import Conversation, Message, Sampling


@dataclass(frozen=True, slots=True)
class Way:
    """
    written  the conversation as this model is sent it
    sampled  how it is sampled then
    read     what it said, as calls or as an answer, to be the message of this number
    """

    written: Callable[[Conversation], Conversation] = lambda talk: talk
    sampled: Callable[[Sampling], Sampling] = lambda sampling: sampling
    read: Callable[[Message, int], Message] = lambda message, number: message


WAYS: dict[Speech, Way] = {
    "native": Way(),
    "bound": Way(bound.written, bound.sampled, bound.read),
    "react": Way(react.written, react.sampled, react.read),
}


def spoken(agent: Agent, provider: Provider, tools: frozenset[str]) -> Speech:
    """What the agent says; where it says nothing, what is known of the endpoint: react, if it calls no tools; bound, if it holds calls and
    their arguments to a form (and no tool has the name of the one that answers); else native."""
    if agent.speech or not tools:
        return agent.speech or "native"
    known, chat = powers.of(provider), getattr(provider, "chat", None)
    if (known.tried > 0 and not known.tools) or (chat is not None and chat.tools_in is None):
        return "react"
    return "bound" if known.tools and known.arguments and bound.ANSWER not in tools else "native"
