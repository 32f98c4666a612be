"""Tokenizers rebuilt from GGUF metadata, against transformers, sentencepiece and the tokenizers library."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import sentencepiece
import transformers
from modeldir_tiny import write_vocabulary
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from myna.modeldir.gguf import GGUF
from myna.modeldir.gguf_tokenizer import generation_config_from_gguf, tokenizer_config_from_gguf, tokenizer_from_gguf
from myna.modeldir.pretokenizers import PRETOKENIZERS
from myna.records import ModelDirError

TEXTS = [
    "Hello, world! It's 2024, isn't it? DON'T.",
    "你好，世界。今天天气不错，我们去公园吧！",
    "def f(x: int) -> int:\n    return x ** 2  # 平方\n\n\nprint(f(10_000))\n",
    "🎉 family 👩‍👩‍👧‍👦 flags 🇨🇳🇬🇧 é é ñ ½ ٣٤",
    "  leading,   runs \t\t of \r\n\r\n whitespace   \n  ",
    "1234567 12 3.14159 v2.0 ²³",
    "a  b   c    d\u3000e\u00a0f",
    "",
    " ",
    "<|im_start|>user\nhi<|im_end|>",
]


def save(path: Path, add: Callable[[gguf.GGUFWriter], None], arch: str = "llama") -> GGUF:
    writer = gguf.GGUFWriter(path, arch)
    add(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return GGUF(path)


def built(file: GGUF) -> Tokenizer:
    return Tokenizer.from_str(json.dumps(tokenizer_from_gguf(file)))


@pytest.mark.parametrize("text", TEXTS)
def test_smollm2_encodes_as_transformers_reads_the_same_file(text: str, smollm2: Path) -> None:
    ours = Tokenizer.from_file(str(smollm2 / "tokenizer.json"))
    theirs = theirs_of(smollm2)
    assert ours.encode(text).ids == theirs(text).input_ids
    assert ours.decode(ours.encode(text).ids, skip_special_tokens=False) == text


@pytest.mark.slow
def test_the_default_model_encodes_as_transformers_reads_the_same_file(qwen_coder: Path) -> None:
    ours, theirs = Tokenizer.from_file(str(qwen_coder / "tokenizer.json")), theirs_of(qwen_coder)
    for text in map(normalizers.NFC().normalize_str, TEXTS):
        assert ours.encode(text).ids == theirs(text).input_ids


def theirs_of(directory: Path, cache: dict[Path, Any] = {}) -> Any:  # noqa: B006
    """transformers takes seconds to read a GGUF vocabulary; once is enough."""
    if directory not in cache:
        cache[directory] = transformers.AutoTokenizer.from_pretrained(directory, gguf_file="model.gguf")
    return cache[directory]


def test_transformers_loads_the_rebuilt_files(smollm2: Path) -> None:
    theirs = transformers.AutoTokenizer.from_pretrained(smollm2)
    assert (theirs.eos_token, theirs.bos_token, len(theirs)) == ("<|im_end|>", "<|im_start|>", 49152)
    assert theirs("<|im_start|>user").input_ids[0] == 1
    assert theirs.chat_template == (smollm2 / "chat_template.jinja").read_text()


def byte_level_file(path: Path, pre: str) -> GGUF:
    """A byte-level BPE of 600 tokens, learned from the texts, under a pre-tokenizer's name."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)

    def add(writer: gguf.GGUFWriter) -> None:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_list([*tokens, "<|im_start|>", "<|im_end|>", "<tool>"])
        writer.add_token_types([1] * len(tokens) + [3, 3, 4])
        writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]])
        writer.add_eos_token_id(len(tokens) + 1)

    return save(path, add, "qwen2")


@pytest.mark.parametrize("pre", ["qwen2", "llama-bpe", "gpt-2", "tekken", "gpt-4o"])
def test_pre_tokenizers_cut_as_transformers_does(pre: str, tmp_path: Path) -> None:
    ours = built(byte_level_file(tmp_path / "model.gguf", pre))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
    for text in [*TEXTS, "a<tool>b<|im_start|>c"]:
        if text != TEXTS[3] or pre != "qwen2":  # decomposed letters: the original is NFC, transformers' GGUF is not
            assert ours.encode(text).ids == theirs(text, add_special_tokens=False).input_ids, text


@pytest.mark.parametrize("pre", PRETOKENIZERS)
def test_every_rule_compiles_and_loses_nothing(pre: str, tmp_path: Path) -> None:
    ours = built(byte_level_file(tmp_path / "model.gguf", pre))
    for text in TEXTS:
        expected = normalizers.NFC().normalize_str(text) if PRETOKENIZERS[pre].nfc else text
        assert ours.decode(ours.encode(text).ids, skip_special_tokens=False) == expected


def test_qwen2_composes_letters_first(tmp_path: Path) -> None:
    ours = built(byte_level_file(tmp_path / "model.gguf", "qwen2"))
    assert ours.encode("e\u0301").ids == ours.encode("\u00e9").ids


def test_an_unknown_pre_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelDirError, match=r"pre-tokenizer 'klingon' is not supported; these are: default, gpt-2"):
        tokenizer_from_gguf(byte_level_file(tmp_path / "m.gguf", "klingon"))


@pytest.fixture(scope="module")
def spm(tmp_path_factory: pytest.TempPathFactory) -> sentencepiece.SentencePieceProcessor:
    """A SentencePiece BPE model with byte fallback, learned from the texts."""
    place = tmp_path_factory.mktemp("spm")
    (place / "text").write_text("\n".join(text.replace("\n", " ") for text in TEXTS * 5))
    sentencepiece.SentencePieceTrainer.train(
        input=str(place / "text"), model_prefix=str(place / "m"), model_type="bpe", vocab_size=420, byte_fallback=True,
        character_coverage=0.98, normalization_rule_name="identity", remove_extra_whitespaces=False,
        split_digits=True, user_defined_symbols=["<|im_end|>"], allow_whitespace_only_pieces=True, minloglevel=2,
    )  # fmt: skip
    return sentencepiece.SentencePieceProcessor(model_file=str(place / "m.model"))


def spm_file(path: Path, spm: sentencepiece.SentencePieceProcessor, prefix: bool = True, bos: bool = True) -> GGUF:
    """As llama.cpp's converter writes it."""

    def kind(i: int) -> int:
        return 2 if spm.is_unknown(i) else 3 if spm.is_control(i) else 6 if spm.is_byte(i) else 1

    def add(writer: gguf.GGUFWriter) -> None:
        ids = range(spm.vocab_size())
        writer.add_tokenizer_model("llama")
        writer.add_token_list([spm.id_to_piece(i) for i in ids])
        writer.add_token_scores([spm.get_score(i) for i in ids])
        writer.add_token_types([4 if spm.id_to_piece(i) == "<|im_end|>" else kind(i) for i in ids])
        writer.add_bos_token_id(spm.bos_id())
        writer.add_eos_token_id(spm.eos_id())
        writer.add_unk_token_id(spm.unk_id())
        writer.add_add_bos_token(bos)
        writer.add_add_space_prefix(prefix)

    return save(path, add)


@pytest.mark.parametrize("text", [text for text in TEXTS if text and "<|" not in text])
def test_scores_and_bytes_encode_as_sentencepiece_itself(
    text: str, spm: sentencepiece.SentencePieceProcessor, tmp_path: Path
) -> None:
    ours = built(spm_file(tmp_path / "m.gguf", spm))
    ids = ours.encode(text).ids
    assert ids == [spm.bos_id(), *spm.encode(text)]
    assert ours.decode(ids) == text


def test_no_prefix_and_no_bos_when_the_file_says_so(spm: sentencepiece.SentencePieceProcessor, tmp_path: Path) -> None:
    ours = built(spm_file(tmp_path / "m.gguf", spm, prefix=False, bos=False))
    assert ours.encode("Hello").tokens[0][0] == "H"
    assert ours.decode(ours.encode(" Hello").ids) == " Hello"


def test_wordpiece_encodes_as_bert_does(tmp_path: Path) -> None:
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "hello",
        "world",
        "play",
        "##ing",
        "##s",
        "!",
        "你",
        "好",
        "a",
    ]
    pieces = [w if w[0] == "[" else w[2:] if w.startswith("##") else "▁" + w for w in words]

    def add(writer: gguf.GGUFWriter) -> None:
        writer.add_tokenizer_model("bert")
        writer.add_token_list(pieces)
        writer.add_token_types([3] * 5 + [1] * (len(pieces) - 5))
        writer.add_unk_token_id(1)
        writer.add_uint32("tokenizer.ggml.cls_token_id", 2)
        writer.add_sep_token_id(3)

    ours = built(save(tmp_path / "m.gguf", add, "bert"))
    theirs = transformers.BertTokenizer(vocab={word: i for i, word in enumerate(words)})
    for text in ["Hello, WORLD!", "playing plays 你好a", "", "xyz"]:
        assert ours.encode(text).ids == theirs(text).input_ids
    assert ours.decode(ours.encode("playing").ids) == "playing"


def test_every_end_of_turn_token_ends_an_answer(tmp_path: Path) -> None:
    file = byte_level_file(tmp_path / "m.gguf", "qwen2")
    file.metadata["tokenizer.ggml.eos_token_id"] = 0
    tokens = file.metadata["tokenizer.ggml.tokens"]
    assert generation_config_from_gguf(file)["eos_token_id"] == [0, tokens.index("<|im_end|>")]


def spoil(key: str, value: Any) -> Callable[[GGUF], None]:
    return lambda file: file.metadata.update({f"tokenizer.ggml.{key}": value})


def test_hostile_pieces_are_refused_before_they_are_cut(tmp_path: Path) -> None:
    """Every way to cut a piece of a million characters would take a million copies of it."""
    file = save(tmp_path / "m.gguf", write_vocabulary)
    spoil("model", "llama")(file)
    file.metadata["tokenizer.ggml.tokens"][5] = "x" * 1_000_000
    spoil("scores", [0.0] * 96)(file)
    with pytest.raises(ModelDirError, match="1000000 characters; at most 4096"):
        tokenizer_from_gguf(file)
    spoil("scores", ["0"] * 96)(file)
    file.metadata["tokenizer.ggml.tokens"][5] = "xyz"
    with pytest.raises(ModelDirError, match="array of float"):
        tokenizer_from_gguf(file)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (spoil("model", "rwkv"), "'rwkv' is not supported; these are: gpt2, llama, bert"),
        (spoil("token_type", [1]), "do not fit together"),
        (spoil("tokens", []), "do not fit together"),
        (spoil("tokens", ["a"] * 96), "'a' appears twice"),
        (spoil("tokens", ["a", 1]), "array of str"),
        (spoil("merges", ["A B C"]), "is not a pair"),
        (spoil("merges", [1, 2]), "array of str"),
        (spoil("eos_token_id", 96), "eos_token_id is 96; there are 96 tokens"),
        (spoil("eos_token_id", -1), "eos_token_id is -1"),
    ],
)
def test_metadata_that_does_not_fit_is_refused(change: Callable[[GGUF], None], says: str, tmp_path: Path) -> None:
    file = save(tmp_path / "m.gguf", write_vocabulary)
    change(file)
    with pytest.raises(ModelDirError, match=says):
        print(tokenizer_from_gguf(file), tokenizer_config_from_gguf(file))


def test_the_decoder_is_byte_level(tmp_path: Path) -> None:
    assert isinstance(built(save(tmp_path / "m.gguf", write_vocabulary)).decoder, decoders.ByteLevel)
