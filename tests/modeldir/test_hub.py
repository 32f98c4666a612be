"""The hub, as a local server that speaks the few endpoints it takes: cut connections, wrong hashes, pickles."""

import hashlib
import http.server
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modeldir_tiny import hf_tensors, tiny_model, write_gguf
from safetensors.numpy import save

from myna.modeldir import ModelDir, list_models, pull
from myna.modeldir.catalogue import CATALOGUE, Entry, HubFile
from myna.records import DownloadError, ModelDirError

COMMIT = "c" * 40
CONFIG = b'{"model_type": "llama", "vocab_size": 8, "hidden_size": 4}'
EMBED = {"model.embed_tokens.weight": np.ones((8, 4), np.float32)}


class Hub:
    """Repositories as {repo: {file: bytes}}; what is asked is written down; `cut` breaks one connection off."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.asked: list[tuple[str, str, str | None]] = []  # method, path, range
        self.cut: dict[str, int] = {}  # file -> bytes after which the connection dies, once
        self.lie: set[str] = set()  # files whose sha256 is announced wrongly
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.answer(self)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_: Any) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        self.asked.append((request.command, request.path, request.headers.get("Range")))
        pieces = request.path.partition("?")[0].strip("/").split("/")
        if pieces[:2] == ["api", "models"] and (files := self.repos.get("/".join(pieces[2:4]))) is not None:
            return self.send(request, 200, json.dumps(self.info("/".join(pieces[2:4]), files)).encode(), {})
        if len(pieces) > 4 and pieces[2] == "resolve":
            name = "/".join(pieces[4:])
            if (data := self.repos.get("/".join(pieces[:2]), {}).get(name)) is not None:
                return self.send_file(request, name, data)
        return self.send(request, 404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def info(self, repo: str, files: dict[str, bytes]) -> dict[str, Any]:
        siblings = []
        for name, data in files.items():
            digest = "0" * 64 if name in self.lie else hashlib.sha256(data).hexdigest()
            lfs = {"sha256": digest, "size": len(data), "pointerSize": 100} if not name.endswith(".json") else None
            siblings.append({"rfilename": name, "size": len(data), "lfs": lfs})
        return {"id": repo, "sha": COMMIT, "siblings": siblings, "cardData": {"license": "apache-2.0"}, "tags": []}

    def send_file(self, request: http.server.BaseHTTPRequestHandler, name: str, data: bytes) -> None:
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if asked := request.headers.get("Range"):
            start = int(asked.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            return self.send(request, 206, data[start:], headers)
        cut = self.cut.pop(name, None) if request.command == "GET" else None
        return self.send(request, 200, data, headers, cut)

    def send(
        self, request: http.server.BaseHTTPRequestHandler, code: int, data: bytes, headers: dict[str, str],
        cut: int | None = None,
    ) -> None:  # fmt: skip
        request.send_response(code)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            request.send_header(key, value)
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(data[:cut])
        if cut is not None:
            request.close_connection = True
            request.connection.shutdown(2)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub()
    monkeypatch.setenv("MYNA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    yield hub
    hub.server.shutdown()


@pytest.fixture(scope="session")
def tiny_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    directory = tmp_path_factory.mktemp("tiny")
    model = tiny_model("llama")
    write_gguf(directory / "t.gguf", "llama", model, hf_tensors(model, directory / "hf"))
    return (directory / "t.gguf").read_bytes()


def downloads(hub: Hub) -> set[str]:
    return {path.rpartition("/")[2] for method, path, _ in hub.asked if method == "GET" and "/resolve/" in path}


def test_a_safetensors_repository_is_fetched_without_code_pickles_and_second_copies(server: Hub) -> None:
    useless = {
        "modeling_x.py": b"!",
        "pytorch_model.bin": b"\x80",
        "consolidated.safetensors": b"x",
        "onnx/m.json": b"{}",
    }
    server.repos["Owner/Tiny"] = {
        "config.json": CONFIG,
        "model.safetensors": save(EMBED),
        "README.md": b"hi",
        **useless,
    }
    model = ModelDir.open(pull("hub:Owner/Tiny"))
    assert downloads(server) == {"config.json", "model.safetensors", "README.md"}
    assert (model.name, model.lineage["source"], model.lineage["licence"]) == (
        "tiny", f"hub:Owner/Tiny@{COMMIT}", "apache-2.0",
    )  # fmt: skip


def test_a_connection_cut_in_the_middle_is_resumed_not_restarted(
    server: Hub, tiny_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    # huggingface_hub keeps whole chunks (10 MB) of a broken download; ours must have some.
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 4096)
    server.repos["owner/tiny-GGUF"] = {"tiny.gguf": tiny_bytes}
    server.cut["tiny.gguf"] = len(tiny_bytes) // 2
    place = pull("hub:owner/tiny-GGUF")
    assert (place.name, (place / "model.gguf").read_bytes()) == ("tiny", tiny_bytes)
    starts = [int(asked.removeprefix("bytes=").rstrip("-")) for _, _, asked in server.asked if asked]
    assert len(starts) == 1
    assert 0 < starts[0] <= len(tiny_bytes) // 2


def test_one_of_several_gguf_files_must_be_named(server: Hub, tiny_bytes: bytes) -> None:
    server.repos["o/t"] = {"a.Q4.gguf": tiny_bytes, "b.Q8.gguf": tiny_bytes}
    with pytest.raises(ModelDirError, match=r"2 GGUF files; say which with --file: a\.Q4\.gguf, b\.Q8\.gguf"):
        pull("hub:o/t")
    pull("hub:o/t", file="b.Q8.gguf")
    assert downloads(server) == {"b.Q8.gguf"}


def test_a_repository_of_pickles_is_refused_and_nothing_fetched(server: Hub) -> None:
    server.repos["o/t"] = {"config.json": CONFIG, "pytorch_model.bin": b"\x80"}
    with pytest.raises(ModelDirError, match=r"o/t: pytorch_model\.bin is a pickle"):
        pull("hub:o/t")
    assert downloads(server) == set()


def test_a_file_that_is_not_what_the_hub_says_is_refused(server: Hub) -> None:
    server.repos["o/t"] = {"config.json": CONFIG, "model.safetensors": save(EMBED)}
    server.lie.add("model.safetensors")
    with pytest.raises(DownloadError, match=r"model\.safetensors: sha256 is .* the hub says 000"):
        pull("hub:o/t")
    assert list_models() == []


def test_a_missing_repository_is_said_to_be_missing(server: Hub) -> None:
    with pytest.raises(DownloadError, match=r"answers 404.*HF_TOKEN"):
        pull("hub:no/body")
    with pytest.raises(DownloadError, match="is not hub:OWNER/REPO"):
        pull("hub:nobody")


def test_a_catalogue_entry_comes_from_the_hub_when_it_can(
    server: Hub, tiny_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.repos["owner/tiny"] = {"t.gguf": tiny_bytes}
    digest = hashlib.sha256(tiny_bytes).hexdigest()
    entry = Entry("tiny", "A test.", HubFile("owner/tiny", "t.gguf", "v1"), (), len(tiny_bytes), digest, "MIT", "here")
    monkeypatch.setitem(CATALOGUE, "tiny", entry)
    assert ModelDir.open(pull("tiny")).lineage["source"] == "hub:owner/tiny@v1/t.gguf"


def test_a_file_on_the_hub_with_another_hash_is_refused(
    server: Hub, tiny_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.repos["owner/tiny"] = {"t.gguf": tiny_bytes + b"!"}
    entry = Entry("tiny", "A test.", HubFile("owner/tiny", "t.gguf"), (), len(tiny_bytes), "1" * 64, "MIT", "here")
    monkeypatch.setitem(CATALOGUE, "tiny", entry)
    with pytest.raises(DownloadError, match=r"sha256 is .*expected 111.*refused"):
        pull("tiny")


def test_without_the_hub_package_the_error_says_which_extra_to_install(
    server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DownloadError, match=r"pip install 'myna\[hub\]'"):
        pull("hub:owner/tiny")
    assert server.asked == []
