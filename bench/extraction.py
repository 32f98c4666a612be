"""Fields out of invoices whose fields are known: what is right, and what is made up where the document does not say.

python bench/extraction.py MODEL [N]       N invoices of each language, drawn with seed 0

Each has a number, a seller and a total; a due date, an order number, a discount and a tax each stand in about half of them.
"""

import asyncio
import hashlib
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from myna.apps.answers.extract import extract
from myna.apps.index.parsed import Parsed
from myna.apps.index.reading import Document
from myna.provider.connect import connected
from myna.records import MynaError

SELLERS = {
    "en": ("Lund & Sons", "Harbour Tools Ltd", "Solveig Berg", "Northern Rope Company", "Dahl Bakery"),
    "zh": ("龙坞茶厂", "西湖纸业有限公司", "李明木器店", "北山文具公司", "青石书局"),
}
LABELS = {
    "en": {"number": "Invoice no.", "seller": "Sold by", "total": "Total due: EUR", "due": "Payable until", "order": "Your order", "discount": "Discount", "tax": "VAT included"},
    "zh": {"number": "发票号码", "seller": "销售方", "total": "价税合计：￥", "due": "付款期限", "order": "订单编号", "discount": "折扣", "tax": "其中税额"},
}  # fmt: skip
SCHEMA = {
    "type": "object",
    "properties": {
        "number": {"type": "string", "description": "of the invoice"},
        "seller": {"type": "string"},
        "total": {"type": "number"},
        "due": {"type": ["string", "null"], "description": "YYYY-MM-DD"},
        "order": {"type": ["string", "null"], "description": "number of the order"},
        "discount": {"type": ["number", "null"]},
        "tax": {"type": ["number", "null"]},
    },
    "required": ["number", "seller", "total"],
}
MAYBE = ("due", "order", "discount", "tax")


def invoice(chance: random.Random, language: str) -> tuple[Document, dict[str, Any]]:
    """A document, and its fields."""
    year, month, day = 2024 + chance.randrange(2), chance.randrange(1, 13), chance.randrange(1, 29)
    fields: dict[str, Any] = {
        "number": f"R-{chance.randrange(1000, 9999)}",
        "seller": chance.choice(SELLERS[language]),
        "total": chance.randrange(1000, 200_000) / 100,
        "due": f"{year}-{month:02}-{day:02}",
        "order": str(chance.randrange(100_000, 999_999)),
        "discount": -chance.randrange(100, 900) / 100,
        "tax": chance.randrange(100, 9_000) / 100,
    }
    fields |= {name: None for name in MAYBE if chance.random() < 0.5}
    shown = dict(fields)
    if fields["due"]:
        months = "January February March April May June July August September October November December".split()
        shown["due"] = f"{day} {months[month - 1]} {year}" if language == "en" else f"{year}年{month}月{day}日"
    lines = [f"{LABELS[language][name]} {value}" for name, value in shown.items() if value is not None]
    goods = (
        "3 kettles at 40.25 each\n12 boxes of tea at 3.10 each"
        if language == "en"
        else "水壶 3 个，每个 40.25\n茶叶 12 盒，每盒 3.10"
    )
    chance.shuffle(lines)
    text = "\n".join([lines[0], goods, *lines[1:]])
    return Document(Path("invoice.txt"), hashlib.sha256(text.encode()).hexdigest(), len(text), Parsed(text)), fields


def main(model: str, count: int) -> None:
    with connected(model) as provider:
        for language in ("en", "zh"):
            chance, outcomes = random.Random(0), Counter[str]()
            for _ in range(count):
                document, wanted = invoice(chance, language)
                found = asyncio.run(extract(provider, document, SCHEMA))
                doubts = {one.path: one.doubt for one in found.fields}
                for name, gold in wanted.items():
                    value, doubt = found.found.get(name), doubts.get(name, "")
                    if gold is None:
                        kept = "made up, and kept" if value is not None else "made up, and refused" if doubt else "null"
                        outcomes[f"not there: {kept}"] += 1
                    else:
                        as_written = name == "due" and str(value) in document.parsed.text
                        right = (
                            value == gold or as_written
                        )  # "5 March 2024" is the day, if not in the form that was asked for
                        was = "right" if right else "left out" if value is None else "wrong"
                        outcomes[f"there: {was}{', marked' if doubt and value is not None else ''}"] += 1
                    if value != gold:
                        print(f"  {language} {name}: wanted {gold!r}, found {value!r} ({doubt})", flush=True)
            print(f"{language}, {count} invoices: {dict(sorted(outcomes.items()))}", flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 20)
    except IndexError:
        sys.exit(__doc__)
    except (MynaError, OSError) as e:
        sys.exit(f"extraction.py: {e}")
