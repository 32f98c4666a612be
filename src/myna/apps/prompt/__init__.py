"""A prompt is a file: typed inputs, a template, what the answer must be, examples, limits. No torch.

prompt = Prompt.read("translate.md")
explained = prompt.explain({"text": "..."}, room=4096)     # the exact messages, and the tokens of each part
answer = await ask(prompt, {"text": "..."}, provider)      # the call, with what the file says of it
"""

from myna.apps.prompt.ask import Answer, ask
from myna.apps.prompt.explain import Explained, Part, explain
from myna.apps.prompt.file import Input, Prompt

__all__ = ["Answer", "Explained", "Input", "Part", "Prompt", "ask", "explain"]
