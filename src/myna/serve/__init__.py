"""The OpenAI-compatible server and its chat page, over any provider.

app = create_app(provider, guard=Guard.of(host))    an ASGI application; the guard says who may call it
serve(app, host, port)                              run it until Ctrl-C: the first one drains, the second stops
"""

from myna.serve.app import create_app
from myna.serve.guard import Guard
from myna.serve.run import serve

__all__ = ["Guard", "create_app", "serve"]
