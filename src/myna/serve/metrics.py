"""What /metrics tells, under names close to vLLM's (`myna:` for `vllm:`), so that its dashboards need one replacement."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
ANSWER_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0)
MODEL = ("model_name",)

# What an engine counts (provider's `stats()`): name there -> (name here, what it says, whether it only grows).
ENGINE = {
    "sequences_running": ("num_sequences_running", "Candidates being computed.", False),
    "sequences_waiting": ("num_sequences_waiting", "Candidates that hold no blocks yet, or none any more.", False),
    "sequences_held": ("num_sequences_held", "Candidates that stand still until a slow reader has caught up.", False),
    "queued_tokens": ("num_tokens_waiting", "Prompt tokens of requests that have no first token yet.", False),
    "kv_usage": ("kv_cache_usage_perc", "The share of key-value blocks in use; 1 is all.", False),
    "prefix_queries": ("prefix_cache_queries", "Prompt tokens looked for in the prefix cache.", True),
    "prefix_hits": ("prefix_cache_hits", "Prompt tokens found there.", True),
    "preemptions": ("num_preemptions", "Candidates that lost their blocks to older ones.", True),
    "steps": ("engine_steps", "Steps of the engine.", True),
    "step_seconds": ("engine_step_seconds", "Time spent in steps.", True),
    "host_seconds": ("engine_step_host_seconds", "The part of it outside the forward pass.", True),
    "mask_seconds": ("grammar_mask_seconds", "Time spent on masks of grammars, beside the forward pass.", True),
    "forms_compiled": ("grammar_compilations", "Grammars that were compiled, or refused.", True),
    "compile_seconds": ("grammar_compilation_seconds", "Time spent on that.", True),
}


class Counted(Protocol):
    """A model as a scrape sees it."""

    @property
    def name(self) -> str: ...
    @property
    def waiting(self) -> int: ...
    @property
    def running(self) -> int: ...
    def stats(self) -> Mapping[str, float]: ...


class Metrics:
    """The server's own registry: several servers in one process, as in tests, count apart."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.http = self._counter("http_requests", "HTTP requests, by route and status.", ("path", "status"))
        self.requests = self._counter("requests", "Answers asked of a model.")
        self.succeeded = self._counter(
            "request_success", "Answers that came to their end.", (*MODEL, "finished_reason")
        )
        self.cancelled = self._counter("num_aborted_requests", "Answers nobody waited for any more.")
        self.failed = self._counter("request_failure", "Answers that failed.")
        self.refused = self._counter("request_refused", "Answers refused before the first token.")
        self.prompt_tokens = self._counter("prompt_tokens", "Prompt tokens of finished answers.")
        self.generation_tokens = self._counter("generation_tokens", "Tokens generated.")
        self.first_token = self._histogram("time_to_first_token_seconds", "Arrival to first token.", ANSWER_SECONDS)
        self.between_tokens = self._histogram("inter_token_latency_seconds", "Token to token.", TOKEN_SECONDS)
        self.queued = self._histogram(
            "request_queue_time_seconds", "Arrival at the engine to first step.", ANSWER_SECONDS
        )
        self.prefilled = self._histogram("request_prefill_time_seconds", "First step to first token.", ANSWER_SECONDS)
        self.decoding = self._histogram("request_decode_time_seconds", "First token to last.", ANSWER_SECONDS)
        self.whole = self._histogram("e2e_request_latency_seconds", "Arrival to last token.", ANSWER_SECONDS)

    def watch(self, models: Iterable[Counted]) -> None:
        """Tell, at each scrape, what these models count themselves. `models` is read anew each time."""
        self.registry.register(_Engines(models))

    def write(self) -> tuple[bytes, str]:
        """(body, content type) of a scrape."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST

    def _counter(self, name: str, about: str, labels: tuple[str, ...] = MODEL) -> Counter:
        return Counter(f"myna:{name}", about, labels, registry=self.registry)

    def _histogram(self, name: str, about: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"myna:{name}", about, MODEL, buckets=buckets, registry=self.registry)


class _Engines(Collector):
    def __init__(self, models: Iterable[Counted]):
        self._models = models

    def collect(self) -> Iterator[Metric]:
        rows: list[tuple[str, str, bool, dict[str, float]]] = []
        models = {model.name: model for model in self._models}
        stats = {name: model.stats() for name, model in models.items()}
        waiting = {name: float(model.waiting) for name, model in models.items()}
        running = {name: float(model.running) for name, model in models.items()}
        rows.append(("num_requests_waiting", "Answers that wait for their first token.", False, waiting))
        rows.append(("num_requests_running", "Answers after their first token.", False, running))
        for key, (name, about, grows) in ENGINE.items():
            rows.append((name, about, grows, {model: s[key] for model, s in stats.items() if key in s}))
        for name, about, grows, values in rows:
            family = (CounterMetricFamily if grows else GaugeMetricFamily)(f"myna:{name}", about, labels=MODEL)
            for model, value in values.items():
                family.add_metric([model], value)
            yield family
