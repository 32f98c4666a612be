"""Adapters over HTTP: models of their own in one batch, loaded and unloaded under way, and never from where they should not."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from live_server import Live, eventually
from transformers import AutoConfig, AutoModelForCausalLM

from adapter_cases import peft_adapter, random_modules, write_folder
from family_cases import SMALL
from myna.chat.byte_chat import byte_chat
from myna.engine.engine import engine_for
from myna.engine.loop import Loop
from myna.engine.runner import runner_for
from myna.kernels import library
from myna.model import load_model
from myna.modeldir import ModelDir
from myna.provider import complete
from myna.provider.local import Local
from myna.records import Document, ModelDirError, Sampling
from myna.serve import App, Guard, Loadable, create_app, open_desk
from myna.serve.adapters import add_adapter

NAMES = ("one", "two", "three")
SHAPES = {
    f"model.layers.{layer}.{module}": shape
    for layer in range(2)
    for module, shape in {
        "self_attn.q_proj": (48, 48), "self_attn.v_proj": (16, 48), "mlp.gate_proj": (64, 48), "mlp.down_proj": (48, 64),
    }.items()
}  # fmt: skip


def make_base(at: Path) -> torch.nn.Module:
    sizes = SMALL | {"vocab_size": 258, "intermediate_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 512}
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **sizes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    model.save_pretrained(at)
    return model


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model, and a folder of three adapters of it and one of another model."""
    root = tmp_path_factory.mktemp("house")
    make_base(root / "base")
    for seed, name in enumerate(NAMES):
        write_folder(root / "adapters" / name, random_modules(SHAPES, 2 + 3 * seed, seed))
    write_folder(root / "adapters" / "foreign", random_modules({"model.layers.0.self_attn.q_proj": (48, 49)}, 2, 0))
    write_folder(root / "secret", random_modules(SHAPES, 2, 9))
    return root


def make_local(house: Path, precision: str = "int8") -> Local:
    decoder = load_model(ModelDir.open(house / "base"), precision)
    engine = engine_for(decoder, kv_tokens=4096, runner=runner_for(precision), max_running=16)
    return Local(Loop(engine), byte_chat(), name="base", spec=decoder.spec)


class House:
    """A server whose base model may come and go."""

    def __init__(self, root: Path, **options: Any):
        self.root, self.locals = root, []
        self.desk = open_desk(**options)
        self.desk.models.add(Loadable("base", self.load, lambda: 1000))
        self.desk.adapters = root / "adapters"

    def load(self) -> Local:
        self.locals.append(make_local(self.root))
        return self.locals[-1]


@pytest.fixture
def served(house: Path) -> Iterator[tuple[httpx.Client, House]]:
    home = House(house, adapters=100_000)
    with (
        Live(App(home.desk, Guard.of("127.0.0.1", (), None))) as live,
        httpx.Client(base_url=f"{live.url}/v1/", timeout=60) as client,
    ):
        eventually(lambda: home.desk.ready)
        yield client, home


def load(client: httpx.Client, name: str, **more: Any) -> httpx.Response:
    return client.post("load_lora_adapter", json={"lora_name": name, **more})


def body(model: str, seed: int = 0, tokens: int = 12) -> dict[str, Any]:
    text = "What is said before " + "abc "[seed % 4 :] * 6
    return {
        "model": model,
        "prompt": text,
        "max_tokens": tokens,
        "ignore_eos": True,
        "seed": seed,
        "logprobs": 1,
        "temperature": seed % 2,
    }


def ask(client: httpx.Client, sent: dict[str, Any]) -> list[Any]:
    answer = client.post("completions", json=sent)
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == sent["model"]
    return answer.json()["choices"]


needs_exact = pytest.mark.skipif(library() is None, reason="torch's own kernels depend on the batch")


@needs_exact
def test_a_batch_of_base_and_adapters_is_each_alone_bit_for_bit(
    served: tuple[httpx.Client, House], house: Path
) -> None:
    client, _ = served
    for name in NAMES:
        assert load(client, name).status_code == 200
    asked = [body(("base", *NAMES)[i % 4], seed=i // 4) for i in range(24)]
    with ThreadPoolExecutor(24) as pool:
        together = [*pool.map(lambda one: ask(client, one), asked)]
    alone: dict[int, list[Any]] = {}
    for name in ("base", *NAMES):  # a server with this adapter and no other
        local = make_local(house)
        provider = local.load_adapter(house / "adapters" / name, name=name) if name != "base" else local
        with Live(create_app(provider)) as live, httpx.Client(base_url=f"{live.url}/v1/", timeout=60) as other:
            alone |= {i: ask(other, one) for i, one in enumerate(asked) if one["model"] == name}
        local.close()
    assert together == [alone[i] for i in range(24)]
    assert len({str(choices) for choices in together[:4]}) == 4, "the adapters change nothing"


def test_answers_in_reference_precision_are_pefts(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    model = peft_adapter(base, tmp_path / "adapter", ["q_proj", "v_proj", "up_proj", "down_proj"])
    local = make_local(tmp_path, "reference")
    adapted = local.load_adapter(tmp_path / "adapter")
    prompt = "Once upon a time"
    sampling = Sampling(temperature=0.0, max_tokens=24, ignore_eos=True)

    async def both() -> list[list[int]]:
        replies = await asyncio.gather(*(complete(one, Document(prompt), sampling) for one in (adapted, local)))
        return [[token.id or 0 for token in reply.sampled[0]] for reply in replies]

    mine, plain = asyncio.run(both())
    ids = torch.tensor([byte_chat().tokenizer.encode(prompt)])
    with torch.no_grad():
        for _ in range(24):
            ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
    assert mine == ids[0, -24:].tolist()
    assert mine != plain
    local.close()


def test_dora_is_refused_with_the_way_to_serve_it(tmp_path: Path) -> None:
    peft_adapter(make_base(tmp_path / "base"), tmp_path / "adapter", ["q_proj"], use_dora=True)
    local = make_local(tmp_path, "reference")
    with pytest.raises(ModelDirError, match=r"served merged: myna merge .*adapter --out"):
        local.load_adapter(tmp_path / "adapter")
    local.close()


def test_adapters_are_models_with_a_parent(served: tuple[httpx.Client, House]) -> None:
    client, home = served
    shown = load(client, "mine", lora_path="two").json()
    assert (shown["id"], shown["parent"], shown["root"], shown["ready"]) == ("mine", "base", "two", True)
    assert shown["capabilities"] == ["chat", "completions", "rerank"]
    assert shown["details"]["adapter"] == "two"
    listed = {row["id"]: (row["parent"], row["root"]) for row in client.get("models").json()["data"]}
    assert listed == {"base": (None, "base"), "mine": ("base", "two")}
    unnamed = {k: v for k, v in body("base").items() if k != "model"}
    assert client.post("completions", json=unnamed).json()["model"] == "base"
    assert client.post("embeddings", json={"model": "mine", "input": "x"}).status_code == 400
    metrics = httpx.get(str(client.base_url).replace("/v1/", "/metrics")).text
    assert metrics.count("myna:engine_steps_total{") == 1, "the engine is counted once"
    gone = client.post("unload_lora_adapter", json={"lora_name": "mine"})
    assert (gone.status_code, gone.json()["state"]) == (200, "unloaded")
    assert [*home.desk.models.slots] == ["base"]
    assert home.locals[0].loop.engine.runner.adapters == {}
    assert client.post("completions", json=body("mine")).status_code == 404
    assert ask(client, body("base"))


@pytest.mark.parametrize(
    ("order", "status", "param", "code"),
    [
        ({"lora_name": "x", "lora_path": "../secret"}, 404, "lora_path", "model_not_found"),
        ({"lora_name": "x", "lora_path": "one/../../secret"}, 404, "lora_path", "model_not_found"),
        ({"lora_name": "x", "lora_path": "SECRET"}, 404, "lora_path", "model_not_found"),
        ({"lora_name": "x", "lora_path": "/"}, 404, "lora_path", "model_not_found"),
        ({"lora_name": "x", "lora_path": ".."}, 404, "lora_path", "model_not_found"),
        ({"lora_name": "x", "lora_path": "link"}, 404, "lora_path", "model_not_found"),
        ({"lora_name": "x", "lora_path": "one\u0000"}, 404, "lora_path", "model_not_found"),
        ({"lora_name": "x"}, 404, "lora_path", "model_not_found"),
        ({"lora_name": "base", "lora_path": "one"}, 400, "lora_name", "invalid_value"),
        ({"lora_name": "../x", "lora_path": "one"}, 400, "lora_name", "invalid_value"),
        ({"lora_name": "one", "base_model": "none"}, 404, "base_model", "model_not_found"),
        ({"lora_name": "one", "load_inplace": True}, 400, "load_inplace", "unsupported_parameter"),
        ({"lora_path": "one"}, 400, "lora_name", None),
        ({"lora_name": 3}, 400, "lora_name", None),
    ],
)  # fmt: skip
def test_only_names_of_sub_folders_are_loaded(
    served: tuple[httpx.Client, House], house: Path, order: dict[str, Any], status: int, param: str, code: str | None
) -> None:
    client, home = served
    if not (house / "adapters" / "link").is_symlink():
        (house / "adapters" / "link").symlink_to(house / "secret")
    if order.get("lora_path") == "SECRET":
        order = order | {"lora_path": str(house / "secret")}
    answer = client.post("load_lora_adapter", json=order)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, param)
    assert code in (None, error["code"])
    assert [*home.desk.models.slots] == ["base"]


def test_a_folder_that_is_no_adapter_of_the_model_says_why_and_not_where(
    served: tuple[httpx.Client, House], house: Path
) -> None:
    client, home = served
    answer = load(client, "foreign")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_adapter")
    assert "A reads 49 numbers" in answer.text
    assert str(house) not in answer.text
    assert [*home.desk.models.slots] == ["base"]
    assert client.post("unload_lora_adapter", json={"lora_name": "foreign"}).status_code == 404
    assert client.post("unload_lora_adapter", json={"lora_name": "base"}).status_code == 404


def test_a_server_without_a_folder_loads_none(served: tuple[httpx.Client, House]) -> None:
    client, home = served
    home.desk.adapters = None
    answer = load(client, "one")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_configured")


def test_adapters_have_a_bound_and_give_their_room_back(served: tuple[httpx.Client, House]) -> None:
    client, home = served
    home.desk.models._adapters = 30_000
    assert load(client, "three").status_code == 200
    full = load(client, "two")
    assert (full.status_code, full.json()["error"]["code"]) == (400, "no_room")
    assert "three" in full.json()["error"]["message"]
    assert load(client, "three").status_code == 400  # it is here already
    client.post("unload_lora_adapter", json={"lora_name": "three"})
    assert load(client, "two").status_code == 200


def test_unloading_waits_for_who_is_answered_and_lets_nobody_new_in(served: tuple[httpx.Client, House]) -> None:
    client, home = served
    load(client, "one"), load(client, "two")
    engine = home.locals[0].loop.engine
    with client.stream("POST", "completions", json=body("one", tokens=400) | {"stream": True}) as stream:
        lines = stream.iter_lines()
        next(lines)
        unloading = threading.Thread(
            target=client.post, args=("unload_lora_adapter",), kwargs={"json": {"lora_name": "one"}}
        )
        unloading.start()
        eventually(lambda: home.desk.models.slots["one"].state == "unloading")
        assert client.post("completions", json=body("one")).status_code == 503
        assert ask(client, body("two")), "others go on"
        assert sum(1 for line in lines if line.startswith("data: {")) >= 399
    unloading.join(timeout=30)
    assert "one" not in home.desk.models.slots
    assert len(engine.runner.adapters) == 1


def test_a_client_that_leaves_frees_what_its_adapter_held(served: tuple[httpx.Client, House]) -> None:
    client, home = served
    load(client, "one")
    engine = home.locals[0].loop.engine
    with client.stream("POST", "completions", json=body("one", tokens=400) | {"stream": True}) as stream:
        next(stream.iter_lines())
    eventually(lambda: engine.idle and engine.scheduler.blocks.free == engine.scheduler.blocks.count)
    assert client.post("unload_lora_adapter", json={"lora_name": "one"}).status_code == 200


def test_others_are_answered_the_same_while_adapters_come_and_go(served: tuple[httpx.Client, House]) -> None:
    client, _ = served
    load(client, "one")
    wanted = {name: ask(client, body(name, tokens=40)) for name in ("base", "one")}
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            assert load(client, "two").status_code == 200
            assert ask(client, body("two", tokens=2))
            assert client.post("unload_lora_adapter", json={"lora_name": "two"}).status_code == 200

    with ThreadPoolExecutor(5) as pool:
        churning = pool.submit(churn)
        found = [*pool.map(lambda name: (name, ask(client, body(name, tokens=40))), ["base", "one"] * 6)]
        stop.set()
        churning.result(timeout=60)
    if library() is not None:
        assert all(choices == wanted[name] for name, choices in found)


def test_an_adapter_goes_with_its_model_and_comes_back_with_it(served: tuple[httpx.Client, House]) -> None:
    client, home = served
    load(client, "one")
    before = ask(client, body("one"))
    assert client.post("models/unload", json={"model": "base"}).status_code == 200
    assert {name: slot.state for name, slot in home.desk.models.slots.items()} == {
        "base": "unloaded",
        "one": "unloaded",
    }
    assert client.post("completions", json=body("one")).status_code == 503
    eventually(lambda: home.desk.models.slots["one"].state == "ready")
    assert ask(client, body("one")) == before
    assert len(home.locals) == 2


def test_adapters_of_the_start_are_there_before_the_server_is_ready(house: Path) -> None:
    home = House(house)
    parent = home.desk.models.slots["base"]
    add_adapter(home.desk.models, "first", house / "adapters" / "one", parent)
    with (
        Live(App(home.desk, Guard.of("127.0.0.1", (), None))) as live,
        httpx.Client(base_url=f"{live.url}/v1/", timeout=60) as client,
    ):
        eventually(lambda: home.desk.ready)
        assert ask(client, body("first"))
