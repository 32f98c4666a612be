"""The OpenAI-compatible server and its chat page, over any provider.

app = create_app(provider, guard=Guard.of(host))    an ASGI application; the guard says who may call it
serve(app, host, port)                              run it until Ctrl-C: the first one drains, the second stops

For models that are loaded and unloaded while it runs: App(open_desk(...), guard), and desk.models.add(Loadable(...)).
"""

from myna.serve.app import App, create_app, open_desk
from myna.serve.guard import Guard
from myna.serve.key_file import read_keys
from myna.serve.keys import Keys, key_of
from myna.serve.limits import Limits
from myna.serve.models import Loadable
from myna.serve.run import serve

__all__ = ["App", "Guard", "Keys", "Limits", "Loadable", "create_app", "key_of", "open_desk", "read_keys", "serve"]
