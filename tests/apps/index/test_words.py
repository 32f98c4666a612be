"""Words: what is cut, folded and stemmed. Porter's own examples are the oracle of the stemmer."""

import pytest

from myna.apps.index.porter import stem
from myna.apps.index.words import LONGEST, words

# From M. F. Porter, "An algorithm for suffix stripping", 1980: each step's examples, as the whole algorithm leaves them.
PUBLISHED = """caresses caress, ponies poni, ties ti, caress caress, cats cat, feed feed, agreed agre, plastered plaster, bled bled,
motoring motor, sing sing, conflated conflat, troubled troubl, sized size, hopping hop, tanned tan, falling fall, hissing hiss,
fizzed fizz, failing fail, filing file, happy happi, sky sky, relational relat, conditional condit, rational ration, valenci valenc,
digitizer digit, conformabli conform, radicalli radic, differentli differ, vileli vile, analogousli analog, vietnamization vietnam,
predication predic, operator oper, feudalism feudal, decisiveness decis, hopefulness hope, callousness callous, formaliti formal,
sensitiviti sensit, sensibiliti sensibl, triplicate triplic, formative form, formalize formal, electriciti electr, electrical electr,
hopeful hope, goodness good, revival reviv, allowance allow, inference infer, airliner airlin, gyroscopic gyroscop, adjustable adjust,
defensible defens, irritant irrit, replacement replac, adjustment adjust, dependent depend, adoption adopt, homologou homolog,
communism commun, activate activ, angulariti angular, homologous homolog, effective effect, bowdlerize bowdler, probate probat,
rate rate, cease ceas, controll control, roll roll, generalizations gener, oscillators oscil"""


@pytest.mark.parametrize("pair", [pair.split() for pair in PUBLISHED.split(",")], ids=lambda pair: pair[0])
def test_words_are_stemmed_as_porter_published(pair: list[str]) -> None:
    assert stem(pair[0]) == pair[1]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("人工智能", ["人", "工", "智", "能", "人工", "工智", "智能"]),
        ("Running QUICKLY, the runner's cats", ["run", "quickli", "the", "runner", "cat"]),
        ("ＧＰＴ－４ costs ￥１，２３４．５０", ["gpt", "4", "cost", "1234.50"]),
        ("用iPhone手机", ["用", "iphon", "手", "机", "手机"]),
        ("Café naïve Straße", ["cafe", "naiv", "strass"]),
        ("1,2 and 3.14", ["1,2", "and", "3.14"]),
        ("한국어", ["한", "국", "어", "한국", "국어"]),
        ("がぎ", ["が", "ぎ", "がぎ"]),
        ("Москва", ["москва"]),
        ("", []),
        ("—…!? \n", []),
    ],
)
def test_text_is_cut_into_words(text: str, found: list[str]) -> None:
    assert words(text) == found


def test_no_word_holds_a_blank_or_a_quote_or_outgrows_its_length() -> None:
    hostile = 'a"b OR c* NEAR(d) ' + "x" * 1000 + " " + "y" * 1000 + " " + "9" * 500 + " \u3000\u200b全\x00角"
    assert all(word and len(word) <= LONGEST and not set(word) & set(' "\n\x00') for word in words(hostile))
