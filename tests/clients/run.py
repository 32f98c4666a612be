"""make test-clients: the official clients, each in an environment of its own, against a scripted server.

    python tests/clients/run.py [NAME ...]      all, or those named

A client's script (use_NAME.py) holds one conversation: chat, stream, tools, structured, cancel, and its own exceptions. The
environments are kept beside the pulled models and made again when their packages change here. `fuzz` is schemathesis over
/openapi.json.
"""

import os
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "serve"))

from live_server import Live, eventually  # noqa: E402
from scripted_talk import SLOWLY, talk  # noqa: E402

from myna.modeldir import cache_dir  # noqa: E402
from myna.serve import create_app  # noqa: E402
from myna.serve.moderations import Finds  # noqa: E402

PACKAGES = {
    "openai": ["openai==3.54.0"],
    "anthropic": ["anthropic==2.12.0"],
    "ollama": ["ollama==0.6.3"],
    "langchain_openai": ["langchain-openai==1.7.3"],
    "llama_index": ["llama-index-llms-openai-like==0.8.1"],
    "pydantic_ai": ["pydantic-ai-slim[openai]==2.68.0"],
    "openai_agents": ["openai-agents==0.24.0"],
    "smolagents": ["smolagents[openai]==1.26.0"],
    "instructor": ["instructor==1.17.0"],
    "fuzz": ["schemathesis==4.32.5"],
}


def environment(name: str) -> Path:
    """The client's python, with its packages installed."""
    place = cache_dir() / "clients" / name
    python, stamp = place / "bin" / "python", place / "packages"
    wanted = " ".join(PACKAGES[name])
    if not stamp.is_file() or stamp.read_text() != wanted:
        venv.create(place, with_pip=True, clear=True)
        quiet = ["--quiet", "--disable-pip-version-check"]
        subprocess.run([python, "-m", "pip", "install", *quiet, *PACKAGES[name]], check=True)
        stamp.write_text(wanted)
    return python


def run(name: str) -> bool:
    """Whether the client's script ran through, and what it cancelled was cancelled here."""
    python = environment(name)
    provider = talk()
    check = Finds("rude", ["rude"], lambda text: ["rude"] if "bad word" in text else []) if name == "fuzz" else None
    with Live(create_app(provider, check=check)) as server:
        clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "OPENAI_API_KEY")}
        done = subprocess.run([python, HERE / f"use_{name}.py", server.url], env=clean, timeout=900)
        slow = [seen for seen in provider.requests if SLOWLY in str(seen.what)]
        if done.returncode == 0 and name != "fuzz":
            assert slow, "the client never asked for what it was to cancel"
            eventually(lambda: all(seen.outcome == "closed" for seen in slow))
    print(f"{name}: {'ok' if done.returncode == 0 else 'FAILED'}", flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    failed = [name for name in sys.argv[1:] or PACKAGES if not run(name)]  # one that fails keeps nobody from his turn
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)
