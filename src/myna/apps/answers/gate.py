"""Whether to search, and whether what was found is enough. Three ways out, each with its reason: none, retrieve, abstain.

Searching is the default: a question that was taken for small talk gets an answer out of the air, which is worse than a needless search.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from myna.apps.index.words import fold, is_cjk, words

# Of the question's own words, how many the passages must have: of XQuAD's questions to the index 98 % have so many, of questions about what is not
# in it 51 % (English) and 47 % (docs/answers.md has the curves). Pairs of characters are found less often than words.
ENOUGH, ENOUGH_PAIRS = 0.55, 0.28
LONGEST = 60  # characters of small talk

_GREETING = (
    r"hi|hello|hey|hiya|yo|howdy|greetings|good (?:morning|afternoon|evening|day|night)|"
    r"你好|您好|嗨|哈[喽啰]|早上好|早安|中午好|下午好|晚上好|晚安|早|大家好|在吗|在不在"
)
_THANKS = (
    r"thanks?|thank you|thx|ty|cheers|much appreciated|many thanks|that helps|that (?:was|is) (?:very )?helpful|"
    r"谢谢|多谢|感谢|谢啦|谢了|太感谢|非常感谢|辛苦|辛苦了|有帮助|很有用"
)
_BYE = r"bye|bye bye|goodbye|see you|see you later|take care|have a nice day|再见|拜拜|回头见|回见|下次见|祝你愉快"
_MOOD = (
    r"ok|okay|great|cool|nice|perfect|awesome|good|well done|good job|got it|i see|sure|yes|no|haha+|lol|wow|never mind|sorry|"
    r"好|好的|好吧|行|可以|明白|明白了|知道了|懂了|不错|太好了|太棒了|真棒|很好|棒|哈哈+|嗯+|是的|对|没事|没关系|算了|对不起|抱歉"
)
_ABOUT_YOU = (
    r"how are you(?: doing)?(?: today)?|how is it going|how's it going|what's up|who are you|what are you|what is your name|what's your name|"
    r"what can you do|how can you help(?: me)?|can you help me|are you (?:a )?(?:bot|robot|human|an ai|ai)|nice to meet you|tell me a joke|"
    r"你(?:今天)?(?:好吗|怎么样|还好吗|是谁|是什么|叫什么(?:名字)?|会什么|会做什么|能做什么|可以做什么)|最近怎么样|你是(?:机器人|人工智能|ai|真人|人)吗|"
    r"很高兴认识你|能帮(?:我|忙)吗|你能帮我吗|给我讲个笑话|讲个笑话|吃了吗|你吃了吗"
)
_FILLER = r"there|everyone|all|again|so much|very much|a lot|for your help|you|your help|friend|myna|very|really|then|啊|呀|呢|吧|啦|了|哦|的|你|您|大家|朋友|真的|太|非常|你的帮助|帮忙"
_CORE = rf"{_GREETING}|{_THANKS}|{_BYE}|{_MOOD}|{_ABOUT_YOU}"
_COMMON = frozenset(
    """a an and any are as at be been but by can could did do does for from had has have he her him his how i if in into is it its many may
    me might more most much must my name no not of on one or other our out over shall she should so some such tell than that the their them
    then there these they this those to too under up us was we were what when where which while who whom whose why will with would you your
    的 了 是 在 和 与 及 或 吗 呢 什么 谁 哪 哪里 哪个 哪些 哪年 怎么 怎样 如何 为什么 多少 几 何 何时 请 问 我 你 他 她 它 有 被 把 对 于 从 到 个 这 那 些 年 人""".split()
)


@dataclass(frozen=True, slots=True)
class Decision:
    """none: small talk, no search; retrieve: answered from passages; abstain: the documents do not say."""

    way: Literal["none", "retrieve", "abstain"]
    reason: str


def before(question: str) -> Decision:
    """Small talk through and through is not searched for; all else is."""
    bare = re.sub(r"[^\w\s']+", " ", fold(question)).strip()
    if 0 < len(bare) <= LONGEST and _is_talk(" ".join(bare.split())):
        return Decision("none", "small talk")
    return Decision("retrieve", "a question")


@cache  # compiled when the first question is asked: 4 ms
def _talk() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What small talk begins with, and what follows it."""
    return re.compile(rf"(?:{_CORE})\s*"), re.compile(rf"(?:{_CORE}|{_FILLER})\s*")


def _is_talk(text: str) -> bool:
    """Whether such words follow one another from beginning to end. Looked at place by place: one expression that repeats them
    takes time exponential in the length of "嗯嗯嗯嗯…x"."""
    first, further = _talk()
    reached = {0}
    for start in range(len(text)):
        if start in reached:
            word = further if start else first
            reached |= {end for end in range(start + 1, len(text) + 1) if word.fullmatch(text, start, end)}
    return len(text) in reached


def after(question: str, passages: Sequence[str], enough: float | None = None) -> Decision:
    """Whether the passages have enough of the question's words; how many are enough depends on the script, if nobody says."""
    if not passages:
        return Decision("abstain", "nothing was found")
    found, enough = coverage(question, passages), _enough(question) if enough is None else enough
    if found < enough:
        return Decision("abstain", f"the passages have {found:.0%} of the question's words; {enough:.0%} is needed")
    return Decision("retrieve", f"the passages have {found:.0%} of the question's words")


def coverage(question: str, passages: Sequence[str]) -> float:
    """The share of the question's different words that the passages have together; 1 where it has none of its own. Of Chinese,
    pairs of characters."""
    own = _own(question)
    there = {word for text in passages for word in words(text)}
    return len(own & there) / len(own) if own else 1.0


def _own(question: str) -> set[str]:
    return {word for word in words(question) if word not in _COMMON and not (len(word) == 1 and is_cjk(word))}


def _enough(question: str) -> float:
    own = _own(question)
    pairs = sum(is_cjk(word[0]) for word in own) / len(own) if own else 0.0
    return ENOUGH * (1 - pairs) + ENOUGH_PAIRS * pairs
