"""myna serve: the OpenAI API and the chat page."""

import logging

from rich.console import Console

from myna.commands.options import LoadingFlags
from myna.modeldir import DEFAULT
from myna.provider.local import Loading, load


def run(
    model: str = DEFAULT,
    /,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    name: str | None = None,
    allow_host: tuple[str, ...] = (),
    allow_origin: str | None = None,
    loading: LoadingFlags = Loading(),
) -> None:
    """Serve a model until Ctrl-C: the first one finishes what was accepted, the second stops at once.

    Parameters
    ----------
    model
        A pulled model's name, or the path of a model directory.
    host
        Where to listen. Anything but this machine is reachable by others, and there are no keys yet.
    port
        The port; 0 takes a free one.
    name
        The name clients ask for; the directory's name if left out.
    allow_host
        Another host name this server may be called by, such as the name of this machine.
    allow_origin
        A web site whose pages may call this server; "*" is any.
    """
    from myna.serve import Guard, create_app, serve

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    screen = Console(stderr=True, highlight=False, soft_wrap=True)
    with screen.status(f"loading {model}"):
        provider = load(model, loading, name=name)

    def announce(url: str) -> None:
        body = f'{{"model": "{provider.name}", "messages": [{{"role": "user", "content": "Hello!"}}]}}'
        screen.print(f"{provider.name} answers at {url}  (the chat page; the API is {url}/v1)", markup=False)
        screen.print(f"curl {url}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'", markup=False)

    guard = Guard.of(host, allow_host, allow_origin)
    serve(create_app(provider, guard=guard), host, port, started=announce)
    provider.close()
