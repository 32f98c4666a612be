"""The OpenAI-compatible server and its chat page, over any provider.

app = create_app(provider)        an ASGI application
serve(app, port=8000)             run it until Ctrl-C: the first one drains, the second stops
"""

from myna.serve.app import create_app
from myna.serve.guard import Guard
from myna.serve.run import serve

__all__ = ["Guard", "create_app", "serve"]
