"""What a run is told. A key's default is here and nowhere else; options.py reads keys from files and flags."""

from dataclasses import dataclass, field
from typing import Any, Literal

from myna.train.ranges import Amount, Count, Part, Positive, Seed, Share, Whole


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """What is trained.

    start      a model directory or a pulled model to start from; without one a new model is made
    tokenizer  of a new model: a directory whose tokenizer and chat template it takes
    depth      of a new model: layers; all other sizes follow from it (train/shape.py)
    experts    of a new model: experts in each layer, of which a token sees two; 0 is a plain MLP
    balance    of experts: how fast those with few tokens are made likelier to be chosen; 0 leaves it to the router
    precision  what products are computed in: float32 or bfloat16; weights and moments are float32 either way
    recompute  keep only each layer's input for the way back and compute the rest again: less memory, a third more time
    compile    translate the model with torch.compile first: a minute, then faster
    save       what the finished model's numbers are written as: float32 or bfloat16
    """

    start: str = ""
    tokenizer: str = ""
    depth: Whole = 0
    experts: Whole = 0
    balance: Amount = 0.001
    precision: Literal["float32", "bfloat16"] = "float32"
    recompute: bool = False
    compile: bool = False
    save: Literal["float32", "bfloat16"] = "float32"


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """What is learned from.

    train     files and folders; "PATH:3" weighs three times what "PATH:1" does, by tokens
    eval      files and folders to be evaluated on; they must share nothing with `train`
    context   tokens in a row
    overlong  what becomes of an example longer than a row: error, split, drop or truncate; all but error are counted
    """

    train: tuple[str, ...] = ()
    eval: tuple[str, ...] = ()
    context: Count = 512
    overlong: Literal["error", "split", "drop", "truncate"] = "error"


@dataclass(frozen=True, kw_only=True, slots=True)
class Optim:
    """How weights are changed.

    kind          adamw (Loshchilov and Hutter 2019), or muon (Jordan et al. 2024) for matrices and adamw for the rest
    lr            the highest learning rate
    schedule      wsd (warm up, stay, decay; Hu et al. 2024), cosine, linear or constant
    warmup        steps from 0 to lr; below 1, a share of all steps
    decay         of wsd: the share of all steps in which the rate falls
    floor         where it ends, as a share of lr
    weight_decay  of matrices; vectors have none
    beta1         how much of the mean gradient a step keeps
    beta2         how much of the mean squared gradient a step keeps
    clip          the largest norm of a step's gradient; 0 lets any pass
    ema           how much of their running mean the averaged weights keep at each step; 0 keeps no average
    """

    kind: Literal["adamw", "muon"] = "adamw"
    lr: Positive = 3e-4
    schedule: Literal["wsd", "cosine", "linear", "constant"] = "wsd"
    warmup: Amount = 0.02
    decay: Share = 0.2
    floor: Share = 0.0
    weight_decay: Amount = 0.1
    beta1: Part = 0.9
    beta2: Part = 0.95
    clip: Amount = 1.0
    ema: Part = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Lora:
    """Train small matrices beside frozen ones (Hu et al. 2021) instead of all weights.

    rank     of the small matrices; 0 trains all weights
    start    an adapter's folder to go on from, instead of new small matrices: rank, alpha, kind and targets are its own
    alpha    they count alpha / rank
    kind     lora; rslora, which counts alpha / sqrt(rank) (Kalajdzievski 2023); or dora (Liu et al. 2024)
    targets  which linear layers: Hugging Face's names or their ends, or patterns of whole names, "model.layers.1?.mlp.*";
             all, or all-linear, is every one but embedding, head, routers and experts
    dropout  the share of a layer's input that its small matrices do not see
    base     what the frozen weights are kept as: float32; stored, in the few bits of a quantized file; or nf4, which makes
             QLoRA of it (Dettmers et al. 2023)
    """

    rank: Whole = 0
    start: str = ""
    alpha: Positive = 16.0
    kind: Literal["lora", "rslora", "dora"] = "lora"
    targets: tuple[str, ...] = ("all",)
    dropout: Part = 0.0
    base: Literal["float32", "stored", "nf4"] = "float32"

    @property
    def adapts(self) -> bool:
        return bool(self.rank or self.start)


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """How long, how often, where.

    out       the run directory, which must not exist
    seed      of the new weights, the order of the data and whatever is drawn
    epochs    how often the data is seen
    steps     how many steps, whatever `epochs` says; 0 is as many as the epochs take
    rows      rows a step learns from
    micro     rows computed at once, over all ranks together; 0 is all of a step's. Changes memory and speed alone
    tensor    of several processes, how many compute each layer together, each some of its heads and channels (docs/scale.md)
    sum       of several processes: when their gradients are summed. step sends least; micro, with run.micro, leaves no process a
              whole gradient to hold
    send      of several processes: what weights travel as, float32, or with model.precision bfloat16 that
    evaluate  steps between evaluations; 0 evaluates at the end alone
    save      steps between checkpoints; 0 saves at the end alone
    keep      checkpoints kept, beside the best
    patience  evaluations without improvement after which to stop; the model is then that of the best one; 0 never stops
    prompts   a file of conversations or texts that are answered at each evaluation, to be read by people
    sinks     where the log goes besides log.jsonl: tensorboard, wandb, trackio
    """

    out: str = ""
    seed: Seed = 0
    epochs: Amount = 1.0
    steps: Whole = 0
    rows: Count = 16
    micro: Whole = 0
    tensor: Count = 1
    sum: Literal["step", "micro"] = "step"
    send: Literal["float32", "bfloat16"] = "float32"
    evaluate: Whole = 0
    save: Whole = 0
    keep: Count = 2
    patience: Whole = 0
    prompts: str = ""
    sinks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """A run, whole. `options` are the method's own keys, under its name on disk and in flags."""

    method: str
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    optim: Optim = field(default_factory=Optim)
    lora: Lora = field(default_factory=Lora)
    run: Run = field(default_factory=Run)
    options: Any = None
