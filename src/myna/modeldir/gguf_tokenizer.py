"""GGUF metadata -> tokenizer.json, tokenizer_config.json and generation_config.json.

Three tokenizers are in use: "gpt2" (byte-level BPE), "llama" (SentencePiece BPE with scores) and "bert" (WordPiece).
Pre-tokenizer rules: llama.cpp's llama-vocab.cpp, by the name in `tokenizer.ggml.pre`, and the original repositories'
tokenizer.json where they say more (qwen2's NFC).
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from myna.modeldir.gguf import GGUF
from myna.modeldir.pretokenizers import PRETOKENIZERS, byte_level
from myna.records import ModelDirError

Json = dict[str, Any]

LONGEST_PIECE = 4096  # characters; cutting a piece in every way takes time with the square of its length
# tokenizer.ggml.token_type
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

# Control tokens that end a turn or an answer in the families we know; a file's eos_token_id names only one of them.
END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>", "<|endoftext|>", "<|end_of_text|>")

# What llama.cpp assumes where a file written before `tokenizer.ggml.pre` existed does not say.
_PRE_BY_ARCHITECTURE = {"gpt2": "gpt-2", "qwen2": "qwen2", "qwen2moe": "qwen2", "qwen3": "qwen2", "qwen3moe": "qwen2"}


@dataclass(frozen=True)
class Vocabulary:
    """The tokenizer part of a file's metadata, checked to fit together."""

    gguf: GGUF
    model: str
    tokens: list[str]
    types: list[int]

    @classmethod
    def of(cls, gguf: GGUF) -> "Vocabulary":
        model = gguf.get("tokenizer.ggml.model", str)
        tokens = gguf.list_of("tokenizer.ggml.tokens", str)
        types = gguf.list_of("tokenizer.ggml.token_type", int, [NORMAL] * len(tokens))
        if not tokens or len(types) != len(tokens):
            raise ModelDirError(f"{gguf.path}: {len(tokens)} tokens and {len(types)} token types do not fit together.")
        if len(set(tokens)) != len(tokens):
            twice = Counter(tokens).most_common(1)[0][0]
            raise ModelDirError(f"{gguf.path}: token {twice[:200]!r} appears twice in the vocabulary.")
        return cls(gguf, model, tokens, types)

    def special(self, name: str) -> int | None:
        """A token id such as "bos"; None when the file does not name one."""
        token = self.gguf.metadata.get(f"tokenizer.ggml.{name}_token_id")
        if token is None:
            return None
        if not isinstance(token, int) or not 0 <= token < len(self.tokens):
            raise ModelDirError(f"{self.gguf.path}: {name}_token_id is {token!r}; there are {len(self.tokens)} tokens.")
        return token

    def adds(self, end: str, default: bool) -> bool:
        """Whether bos / eos is put around every text."""
        return self.gguf.get(f"tokenizer.ggml.add_{end}_token", bool, default) and self.special(end) is not None

    @property
    def pre(self) -> str:
        arch = self.gguf.get("general.architecture", str)
        return self.gguf.get("tokenizer.ggml.pre", str, _PRE_BY_ARCHITECTURE.get(arch, "default"))

    @property
    def adds_bos(self) -> bool:
        return self.adds("bos", self.model == "llama" or self.pre in ("llama-bpe", "llama3", "llama-v3"))


def tokenizer_from_gguf(gguf: GGUF) -> Json:
    """tokenizer.json, as the `tokenizers` library reads it."""
    vocab = Vocabulary.of(gguf)
    builders = {"gpt2": _byte_level_bpe, "llama": _sentencepiece_bpe, "bert": _wordpiece}
    if vocab.model not in builders:
        raise ModelDirError(
            f"{gguf.path}: tokenizer model {vocab.model!r} is not supported; these are: {', '.join(builders)}. "
            "Pull the original Hugging Face directory instead: `myna pull hub:OWNER/REPO`."
        )
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(vocab),
    } | builders[vocab.model](vocab)


def tokenizer_config_from_gguf(gguf: GGUF) -> Json:
    """tokenizer_config.json: what transformers wants beside tokenizer.json."""
    vocab = Vocabulary.of(gguf)
    config: Json = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": vocab.adds_bos,
        "add_eos_token": vocab.adds("eos", False),
        "clean_up_tokenization_spaces": False,
    }
    names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding", "cls": "cls", "sep": "seperator"}
    names["mask"] = "mask"
    for ours, theirs in names.items():  # "seperator" is how the specification spells it
        if (token := vocab.special(theirs)) is not None:
            config[f"{ours}_token"] = vocab.tokens[token]
    return config


def generation_config_from_gguf(gguf: GGUF) -> Json:
    """generation_config.json: every id that ends an answer, and the sampling the file recommends, if it does."""
    vocab = Vocabulary.of(gguf)
    ends = [token for name in ("eos", "eot", "eom") if (token := vocab.special(name)) is not None]
    ids = {token: i for i, token in enumerate(vocab.tokens)}
    for text in END_OF_TURN:
        if (token := ids.get(text)) is not None and vocab.types[token] in (CONTROL, USER_DEFINED):
            ends.append(token)
    config: Json = {"eos_token_id": list(dict.fromkeys(ends))}
    for ours, theirs in (("bos", "bos"), ("pad", "padding")):
        if (token := vocab.special(theirs)) is not None:
            config[f"{ours}_token_id"] = token
    sampling = {"temperature": "temp", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p"}
    sampling["repetition_penalty"] = "penalty_repeat"
    for ours, theirs in sampling.items():
        if (value := gguf.metadata.get(f"general.sampling.{theirs}")) is not None:
            config[ours] = value
    return config


def _added_tokens(vocab: Vocabulary) -> list[Json]:
    """Tokens that are found in a text before anything else: control tokens (special) and user-defined ones (not)."""
    return [
        {
            "id": i,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind != USER_DEFINED,
        }
        for i, (token, kind) in enumerate(zip(vocab.tokens, vocab.types, strict=True))
        if kind in (CONTROL, USER_DEFINED) or (kind == UNKNOWN and vocab.model != "gpt2")
    ]


def _bpe(vocab: Vocabulary, merges: list[list[str]], **more: Any) -> Json:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": {token: i for i, token in enumerate(vocab.tokens)},
        "merges": merges,
    } | more


def _byte_level_bpe(vocab: Vocabulary) -> Json:
    if vocab.pre not in PRETOKENIZERS:
        raise ModelDirError(
            f"{vocab.gguf.path}: pre-tokenizer {vocab.pre!r} is not supported; these are: {', '.join(PRETOKENIZERS)}. "
            "Pull the original Hugging Face directory instead: `myna pull hub:OWNER/REPO`."
        )
    merges = [merge.split(" ") for merge in vocab.gguf.list_of("tokenizer.ggml.merges", str)]
    if bad := next((merge for merge in merges if len(merge) != 2), None):
        raise ModelDirError(f"{vocab.gguf.path}: {' '.join(bad)!r} in tokenizer.ggml.merges is not a pair.")
    rule = PRETOKENIZERS[vocab.pre]
    return {
        "normalizer": {"type": "NFC"} if rule.nfc else None,
        "pre_tokenizer": rule.to_json(),
        "post_processor": _around(vocab) or byte_level(trim=False),
        "decoder": byte_level(),
        "model": _bpe(vocab, merges, ignore_merges=rule.ignore_merges),
    }


def _sentencepiece_bpe(vocab: Vocabulary) -> Json:
    """SentencePiece's BPE as BPE: spaces become ▁, merges follow the scores, unknown characters become bytes.

    SentencePiece puts its dummy prefix before the text and, as llama.cpp does, after every control token.
    """
    prefix = vocab.gguf.get("tokenizer.ggml.add_space_prefix", bool, True)
    space = [{"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]
    unknown = vocab.special("unknown")
    fallback = BYTE in vocab.types
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    return {
        "normalizer": {
            "type": "Sequence",
            "normalizers": ([{"type": "Prepend", "prepend": "▁"}] if prefix else []) + space,
        },
        "pre_tokenizer": None,
        "post_processor": _around(vocab),
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                *(strip if prefix else []),
            ],
        },
        "model": _bpe(
            vocab,
            _merges_from_scores(vocab),
            byte_fallback=fallback,
            fuse_unk=True,
            unk_token=None if unknown is None else vocab.tokens[unknown],
        ),
    }


def _merges_from_scores(vocab: Vocabulary) -> list[list[str]]:
    """SentencePiece merges the neighbours whose union is the best-scored piece. So: every way to cut every piece in
    two known pieces, best score first (ties: lower id)."""
    scores = vocab.gguf.list_of("tokenizer.ggml.scores", float)
    if len(scores) != len(vocab.tokens):
        raise ModelDirError(f"{vocab.gguf.path}: {len(scores)} scores for {len(vocab.tokens)} tokens.")
    ids = {token: i for i, token in enumerate(vocab.tokens) if vocab.types[i] == NORMAL}
    if (longest := max(map(len, ids), default=0)) > LONGEST_PIECE:
        raise ModelDirError(f"{vocab.gguf.path}: a token of {longest} characters; at most {LONGEST_PIECE} are allowed.")
    merges = []
    for token in sorted(ids, key=lambda token: (-scores[ids[token]], ids[token])):
        cuts = [(token[:k], token[k:]) for k in range(1, len(token))]
        known = [(ids[a], ids[b], a, b) for a, b in cuts if a in ids and b in ids]
        merges += [[a, b] for _, _, a, b in sorted(known)]
    return merges


def _wordpiece(vocab: Vocabulary) -> Json:
    """llama.cpp marks words with ▁ where BERT marks continuations with ##."""

    def bert(token: str) -> str:
        if token.startswith("[") and token.endswith("]"):
            return token
        return token[1:] if token.startswith("▁") else "##" + token

    unknown, cls, sep = vocab.special("unknown"), vocab.special("cls"), vocab.special("seperator")
    if cls is None:
        cls = vocab.special("bos")
    if unknown is None or cls is None or sep is None:
        raise ModelDirError(f"{vocab.gguf.path}: a bert tokenizer needs unknown, cls and seperator token ids.")
    pieces = {bert(token): i for i, token in enumerate(vocab.tokens)}
    if len(pieces) != len(vocab.tokens):
        raise ModelDirError(f"{vocab.gguf.path}: two tokens become one when written as WordPiece.")
    return {
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": _template([cls], [sep], vocab),
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": vocab.tokens[unknown],
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": pieces,
        },
    }


def _around(vocab: Vocabulary) -> Json | None:
    """The post-processor that adds bos and eos, or None when neither is added."""
    before = [vocab.special("bos")] if vocab.adds_bos else []
    after = [vocab.special("eos")] if vocab.adds("eos", False) else []
    first, last = ([i for i in side if i is not None] for side in (before, after))
    return _template(first, last, vocab) if first or last else None


def _template(before: list[int], after: list[int], vocab: Vocabulary) -> Json:
    def special(ids: list[int], segment: int) -> list[Json]:
        return [{"SpecialToken": {"id": vocab.tokens[i], "type_id": segment}} for i in ids]

    first = [*special(before, 0), {"Sequence": {"id": "A", "type_id": 0}}, *special(after, 0)]
    second = [*special(before, 1), {"Sequence": {"id": "B", "type_id": 1}}, *special(after, 1)]
    return {
        "type": "TemplateProcessing",
        "single": first,
        "pair": first + second,
        "special_tokens": {
            vocab.tokens[i]: {"id": vocab.tokens[i], "ids": [i], "tokens": [vocab.tokens[i]]} for i in before + after
        },
    }
