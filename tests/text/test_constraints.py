import json

import numpy as np
import pytest

from m6rec.errors import ConfigError
from m6rec.text.constraints import Series, TitleTrie, Unquoted
from tests import tiny

TOKENIZER = tiny.foundation().tokenizer


def texts(trie):
    """All texts that a trie allows."""
    found, paths = [], [(trie.start, [])]
    while paths:
        state, ids = paths.pop()
        if trie.may_end(state):
            found.append(TOKENIZER.decode(ids))
        paths += [(trie.advance(state, token), [*ids, token]) for token in trie.allowed(state).tolist()]
    return sorted(found)


def test_a_trie_allows_its_texts_and_no_others():
    titles = ["then", "the", "them", "Alien", "Aliens", "Alien 3", "Zoë", "<|im_end|>", "the"]
    trie = TitleTrie(TOKENIZER, titles)
    assert texts(trie) == sorted(set(titles))
    assert trie.longest == max(len(ids) for ids in TOKENIZER.encode(titles))
    assert not trie.may_end(trie.start)


def test_ten_thousand_random_titles():
    rng = np.random.default_rng(0)
    titles = {"".join(rng.choice(list("abcthe "), rng.integers(1, 12))) for _ in range(10_000)}
    trie = TitleTrie(TOKENIZER, titles)
    assert texts(trie) == sorted(titles)
    assert sum(array.nbytes for array in (trie._tokens, trie._first, trie._whole)) < 17 * 60_000


@pytest.mark.parametrize("titles", [[], [""], ["a", ""]])
def test_texts_that_are_not_there(titles):
    with pytest.raises(ConfigError, match="at least one text"):
        TitleTrie(TOKENIZER, titles)


def follow(constraint, text):
    """The state after a text, token by token."""
    state = constraint.start
    for token in TOKENIZER.encode([text])[0]:
        assert token in constraint.allowed(state)
        state = constraint.advance(state, token)
    return state


def test_unquoted_allows_every_line_without_a_quote():
    line = Unquoted(TOKENIZER)
    allowed = line.allowed(line.start).tolist()
    assert allowed == sorted(set(allowed))
    assert not set(allowed) & set(TOKENIZER.control_ids)
    said = {TOKENIZER.decode([token]) for token in allowed}
    assert {"a", " ", " t", "'", "{"} <= said
    assert not {"", '"', "\\", "\n", "\t", "\ufffd"} & said
    assert not line.may_end(line.start)
    assert line.may_end(follow(line, "the man"))


def test_a_series_allows_a_text_of_each_part_and_no_others():
    first, second = ["a", "an", "ant"], ["t", "nt", "x"]
    series = Series([TitleTrie(TOKENIZER, first), TitleTrie(TOKENIZER, second), TitleTrie(TOKENIZER, ["."])])
    assert set(texts(series)) == {f"{a}{b}." for a in first for b in second}
    for state in (series.start, follow(series, "a"), follow(series, "an"), follow(series, "ant")):
        allowed = series.allowed(state).tolist()
        assert allowed == sorted(set(allowed))
        assert not series.may_end(state)
    assert series.may_end(follow(series, "antnt."))
    with pytest.raises(ConfigError, match="at least one part"):
        Series([])


def test_json_is_whole_whatever_is_drawn():
    """An object whose category exists and whose title is new, from tokens drawn at random among those allowed."""
    categories = ["Drama", "Dramatic", "Sci-Fi"]
    series = Series(
        [
            TitleTrie(TOKENIZER, [f'{{"category": {json.dumps(name)}, "title": "' for name in categories]),
            Unquoted(TOKENIZER),
            TitleTrie(TOKENIZER, ['"}']),
        ]
    )
    rng = np.random.default_rng(0)
    closing = TOKENIZER.encode(['"'])[0][0]
    for _ in range(50):
        state, ids = series.start, list[int]()
        while not series.may_end(state):
            allowed = series.allowed(state).tolist()
            token = closing if closing in allowed and rng.random() < 0.2 else int(rng.choice(allowed))
            state, ids = series.advance(state, token), [*ids, token]
        said = json.loads(TOKENIZER.decode(ids))
        assert list(said) == ["category", "title"]
        assert said["category"] in categories
        assert said["title"]
