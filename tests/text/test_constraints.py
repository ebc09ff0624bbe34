import numpy as np
import pytest

from m6rec.errors import ConfigError
from m6rec.text.constraints import TitleTrie
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
