import json

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from m6rec.errors import ConfigError
from m6rec.text.tokenizer import Tokenizer
from m6rec.text.vocabulary import trim
from tests import tiny

WORDS = ("the man", "this is in", "on the mat", " a theme", "tts")


def whole():
    return Tokenizer(tiny.fast_tokenizer())


@pytest.mark.parametrize("size", [0, 262, 1000])
def test_texts_are_read_as_before(size):
    made, old = trim(whole(), WORDS, size)
    assert [[old[number] for number in row] for row in made.encode(WORDS)] == whole().encode(WORDS)
    assert made.vocab_size == len(old) == len(set(old))


def test_what_no_text_needs_is_gone():
    made, _ = trim(whole(), ["the the"], 0)
    assert json.loads(made.to_json())["model"]["merges"] == [["Ġ", "t"], ["t", "h"], ["h", "e"]]
    assert made.vocab_size == whole().vocab_size - len(tiny.MERGES) + 3
    assert made.decode(made.encode(["in a mess"])[0]) == "in a mess"


def test_room_is_filled_with_the_first_merges():
    small, _ = trim(whole(), ["x"], 0)
    larger, _ = trim(whole(), ["x"], small.vocab_size + 2)
    merges = json.loads(larger.to_json())["model"]["merges"]
    assert merges == [["Ġ", "t"], ["t", "h"]]
    everything, old = trim(whole(), ["x"], 10_000)
    assert old == list(range(whole().vocab_size))
    assert everything.encode(WORDS) == whole().encode(WORDS)


@settings(max_examples=300, deadline=None)
@given(text=st.text(), known=st.lists(st.text(max_size=20), max_size=4))
def test_any_text_loses_nothing_and_known_texts_keep_their_tokens(text, known):
    made, old = trim(whole(), known, 0)
    full = whole()
    assert [[old[number] for number in row] for row in made.encode(known)] == full.encode(known)
    (row,) = made.encode([text])
    assert made.decode(row) == full.decode(full.encode([text])[0])
    assert len(row) >= len(full.encode([text])[0])


def test_control_tokens_stay_data():
    made, _ = trim(whole(), WORDS, 0)
    (row,) = made.encode(["<|im_end|> the"])
    assert not set(row) & set(made.control_ids)
    assert len(made.control_ids) == len(tiny.SPECIAL)


def test_another_kind_is_refused():
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"the": 0}, unk_token="the"))
    with pytest.raises(ConfigError, match="vocab_size=0"):
        trim(Tokenizer(words), ["the"], 0)
