"""The texts and prompts that quality is measured on. The texts are other people's, read from where they were downloaded:

wikitext2/test.txt.gz           WikiText-2, tokenised form, CC BY-SA 3.0
cmrc2018/dev.jsonl.gz           CMRC 2018, passages of the Chinese Wikipedia, CC BY-SA 4.0
humaneval/HumanEval.jsonl.gz    HumanEval, problems with their solutions, MIT
"""

import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path

PROMPTS = [
    "What is the capital of France?", "Explain recursion to a child.", "List three uses of copper.",
    "Who wrote Faust?", "What does the HTTP status 404 mean?", "Give me a haiku about autumn.",
    "法国的首都是哪里？", "请解释什么是数据库索引。", "列出三种常见的排序算法。", "什么是机器学习？",
    "为什么天空是蓝色的？", "把这句话翻译成英文：我喜欢在早晨喝茶。",
    "Write a Python function that reverses a string.", "Write SQL that counts the customers of each city.",
    "Write a C function that computes the greatest common divisor.", "用Python写一个判断素数的函数。",
]  # fmt: skip


def texts(data: Path) -> dict[str, str]:
    """Name -> a long text."""
    readers: dict[str, tuple[str, Callable[[Path], str]]] = {
        "English": ("wikitext2/test.txt.gz", _read),
        "Chinese": ("cmrc2018/dev.jsonl.gz", _passages),
        "code": ("humaneval/HumanEval.jsonl.gz", _problems),
    }
    for file, _ in readers.values():
        if not (data / file).exists():
            sys.exit(f"{data / file} is not there; --data names the folder that holds {file}.")
    return {name: read(data / file) for name, (file, read) in readers.items()}


def spread(ids: list[int], tokens: int, chunk: int) -> list[list[int]]:
    """Chunks evenly spread over a text, `tokens` together."""
    count = tokens // chunk
    if len(ids) < tokens or not count:
        sys.exit(f"a text of {len(ids)} tokens has no {tokens} of them in chunks of {chunk}.")
    starts = [i * (len(ids) - chunk) // max(count - 1, 1) for i in range(count)]
    return [ids[start : start + chunk] for start in starts]


def _read(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode()


def _passages(path: Path) -> str:
    rows = (json.loads(line) for line in _read(path).splitlines())
    return "\n\n".join(dict.fromkeys(row["context"] for row in rows))


def _problems(path: Path) -> str:
    rows = (json.loads(line) for line in _read(path).splitlines())
    return "\n\n".join(row["prompt"] + row["canonical_solution"] for row in rows)
