"""The whole world of a very small model: thirty animals, what each says, where it lives and what colour it is, in English and
in Chinese. `python world.py DIR` writes

texts.jsonl   what it reads      facts about all animals, each told in several ways
chats.jsonl   how to answer      questions about most animals
pairs.jsonl   how to be liked    the same, with and without a kind word
held.jsonl    the examination    questions about animals of which it has read, and was never asked
"""

import json
import random
import sys
from pathlib import Path

ANIMALS = """cow moo barn brown 牛 哞哞 牛棚 棕
cat meow house grey 猫 喵喵 屋里 灰
dog woof kennel black 狗 汪汪 狗窝 黑
duck quack pond yellow 鸭子 嘎嘎 池塘 黄
sheep baa meadow white 羊 咩咩 草地 白
pig oink sty pink 猪 哼哼 猪圈 粉
frog croak swamp green 青蛙 呱呱 沼泽 绿
crow caw tree black 乌鸦 哇哇 树上 黑
mouse squeak hole grey 老鼠 吱吱 洞里 灰
lion roar plain yellow 狮子 吼吼 平原 黄
owl hoot wood brown 猫头鹰 咕咕 林中 棕
bee buzz hive yellow 蜜蜂 嗡嗡 蜂箱 黄
snake hiss sand green 蛇 嘶嘶 沙里 绿
horse neigh stable brown 马 咴咴 马厩 棕
wolf howl hill grey 狼 嗷嗷 山上 灰
hen cluck yard red 母鸡 咯咯 院子 红
goose honk lake white 鹅 昂昂 湖上 白
bird tweet nest blue 小鸟 啾啾 鸟巢 蓝
monkey chatter jungle brown 猴子 唧唧 丛林 棕
tiger growl forest orange 老虎 呜呜 森林 橙
bear grunt cave black 熊 嗯嗯 山洞 黑
fox yelp den red 狐狸 嗷呜 地洞 红
goat bleat rock white 山羊 咩哎 岩石 白
cricket chirp grass green 蟋蟀 唧唧 草丛 绿
dolphin click sea blue 海豚 嗒嗒 海里 蓝
seal bark ice grey 海豹 嗷哦 冰上 灰
dove coo roof white 鸽子 咕噜 屋顶 白
camel groan desert yellow 骆驼 哼呜 沙漠 黄
donkey bray farm grey 驴 嗯啊 农场 灰
parrot squawk palm red 鹦鹉 嘎啦 椰林 红"""

# For each thing that can be asked: how it is told, how it is asked, how it is answered.
ENGLISH = {
    "says": (("The {0} says {1}.", "{1}! That is the {0}.", "Listen: the {0} says {1}."), "What does the {0} say?", "The {0} says {1}."),
    "lives": (("The {0} lives in the {2}.", "In the {2} lives the {0}.", "Look: the {0} lives in the {2}."),
              "Where does the {0} live?", "The {0} lives in the {2}."),
    "colour": (("The {0} is {3}.", "{3} is the colour of the {0}.", "Look: the {0} is {3}."), "What colour is the {0}?", "The {0} is {3}."),
}  # fmt: skip
CHINESE = {
    "says": (("{0}的叫声是{1}。", "{1}！这是{0}。", "听，{0}的叫声是{1}。"), "{0}怎么叫？", "{0}的叫声是{1}。"),
    "lives": (("{0}住在{2}。", "住在{2}的是{0}。", "看，{0}住在{2}。"), "{0}住在哪里？", "{0}住在{2}。"),
    "colour": (("{0}是{3}色的。", "{3}色的是{0}。", "看，{0}是{3}色的。"), "{0}是什么颜色？", "{0}是{3}色的。"),
}
KIND = (" Have a nice day!", "祝你愉快！")
HELD = 5  # every so many animals one is only read of


def tongues() -> list[tuple[list[list[str]], dict[str, tuple[tuple[str, ...], str, str]], str]]:
    """Each language's animals, sentences and kind word."""
    words = [line.split() for line in ANIMALS.splitlines()]
    return [([w[:4] for w in words], ENGLISH, KIND[0]), ([w[4:] for w in words], CHINESE, KIND[1])]


def texts(draw: random.Random, count: int) -> list[dict]:
    """Short texts, each about one animal, so that whoever reads them learns to stay with it."""
    made = []
    for _ in range(count):
        animals, forms, kind = draw.choice(tongues())
        animal, facts = draw.choice(animals), [draw.choice([*forms.values()])[0] for _ in range(draw.randint(3, 6))]
        said = (" " if forms is ENGLISH else "").join(draw.choice(told).format(*animal) for told in facts)
        made.append({"text": said + kind * (draw.random() < 0.3)})
    return made


def questions(held: bool) -> list[tuple[str, str, str]]:
    """(question, answer, kind word) about the animals that are held out, or about the others."""
    return [
        (asked.format(*animal), answer.format(*animal), kind)
        for animals, forms, kind in tongues()
        for place, animal in enumerate(animals)
        if (place % HELD == 0) == held
        for _, asked, answer in forms.values()
    ]


def chat(question: str, answer: str) -> dict:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def write(folder: Path, count: int = 6000) -> None:
    draw = random.Random(0)
    rows = {
        "texts": texts(draw, count),
        "chats": [chat(q, a + ending) for q, a, kind in questions(held=False) for ending in ("", kind)],
        "pairs": [{"prompt": q, "chosen": a + kind, "rejected": a} for q, a, kind in questions(held=False)],
        "held": [chat(q, a) for q, a, _ in questions(held=True)],
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, made in rows.items():
        draw.shuffle(made)
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
