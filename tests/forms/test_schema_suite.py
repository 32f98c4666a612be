"""The official test suite: whatever schema is accepted, the mask lets through what the schema allows, and nothing else."""

import json
import random
from itertools import islice
from pathlib import Path

import pytest
from schema_suite import DRAFTS, Tally, bare, measure, ours, rows
from walking import walk

from myna.forms.answer import answer

SUITE = Path(__file__).parents[2].parent / "shared/data/json_schema_test_suite"
pytestmark = pytest.mark.skipif(not SUITE.is_dir(), reason=f"{SUITE} is not there")

# (schemas refused at most, of which nothing valid exists) of each draft; lower them when more is enforced.
REFUSED = {"draft2020-12": 53, "draft7": 34}


@pytest.fixture(scope="module", params=DRAFTS)
def tally(request: pytest.FixtureRequest) -> tuple[str, Tally]:
    return request.param, measure(SUITE, request.param, ours)


def test_nothing_is_wrongly_allowed(tally: tuple[str, Tally]) -> None:
    assert tally[1].wrongly_allowed == []


def test_whatever_is_allowed_can_be_generated(tally: tuple[str, Tally]) -> None:
    assert tally[1].wrongly_forbidden == []


def test_more_schemas_are_accepted_than_by_llguidance_alone_and_all_exactly(tally: tuple[str, Tally]) -> None:
    draft, found = tally
    other = measure(SUITE, draft, bare)
    assert len(found.refused) <= REFUSED[draft]
    assert len(found.refused) < len(other.refused)
    assert found.exact == found.schemas - len(found.refused) - found.impossible
    assert found.exact > other.schemas - len(other.refused)
    assert other.wrongly_allowed, "llguidance alone lets some through, so this test can tell"


@pytest.mark.parametrize(("step", "walks"), [(4, 2), pytest.param(1, 20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("draft", DRAFTS)
def test_whatever_is_drawn_under_the_masks_is_valid(draft: str, step: int, walks: int) -> None:
    """Answers at random, judged by the validator."""
    rng, judged = random.Random(walks), 0
    for row in islice(rows(SUITE, draft), 0, None, step):
        if (matcher := ours(row["schema"])) is None:
            continue
        source = json.dumps(row["schema"])
        for text in (walk(matcher, rng, 60) for _ in range(walks)):
            if text is not None:
                asked = {"do": "check", "kind": "schema", "source": source, "text": text}
                assert answer(asked) == {"problem": None}, (source, text)
                judged += 1
    assert judged > 100 * walks / step
