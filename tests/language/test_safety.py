import doctest

import pytest

from m6rec.errors import ConfigError
from m6rec.language import safety
from m6rec.language.safety import Blocklist, safety_violation

PLAIN = Blocklist()


def told(text, longest=80, blocked=PLAIN, **known):
    return safety_violation(text, longest=longest, blocked=blocked, **known)


def test_worked_examples():
    failed, attempted = doctest.testmod(safety)
    assert attempted >= 6
    assert failed == 0


@pytest.mark.parametrize("text", ["Heat", "Die Hard 2", "Natural Born Killers", "20,000 Leagues", "Amélie", "2001"])
def test_ordinary_titles_pass(text):
    assert told(text) is None


@pytest.mark.parametrize(
    "text",
    [
        *"shit SHIT Shít shiiit 5hit sh1t s.h.i.t s-h-i-t sh*t s**t what-shit! sh\u200bit ｓｈｉｔ".split(),
        *("s h i t", "oh, s h i t!", "(shit)", "'shit'"),
    ],
)
def test_a_blocked_word_is_seen_through_its_disguise(text):
    assert told(text) is not None


@pytest.mark.parametrize("text", ["Scunthorpe", "shitake", "grape", "cocoon", "a * b", "***", "S Club 7", "class of 5"])
def test_a_word_that_only_holds_one_passes(text):
    assert told(text) is None


def test_an_operator_adds_words_and_phrases(tmp_path):
    file = tmp_path / "blocked.txt"
    file.write_text("# ours\nAcme   # a competitor\n\nnight club\n", encoding="utf-8")
    blocked = Blocklist.load(file)
    for text in ("an ACME film", "4cme", "the night club", "shit"):
        assert told(text, blocked=blocked) == "it holds a blocked word"
        assert text == "shit" or told(text) is None
    for text in ("acmes", "night of the club", "ours", "a competitor"):
        assert told(text, blocked=blocked) is None
    with pytest.raises(ConfigError, match="can't be read"):
        Blocklist.load(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("write to zoe@example.org", "e-mail"),
        ("see http://x.example", "web"),
        ("www.example", "web"),
        ("films at shop.com", "web"),
        ("+44 (0)20 7946 0958", "telephone"),
        ("555-123-4567", "telephone"),
        ("customer 123456", "long number"),
    ],
)
def test_addresses_and_numbers_of_anybody_are_no_words(text, what):
    assert what in told(text)


def test_what_is_known_of_the_user_is_not_said():
    private = ["196", "24", "M", "writer", "The user is a male writer in their early twenties."]
    for text in ("for user 196", "24 hours", "Writer’s choice", "fun in their EARLY days", "a male writer"):
        assert told(text, private=private) == "it echoes what is known of the user", text
    for text in ("M", "early films", "1960", "writers", "for a user"):
        assert told(text, private=private) is None, text


def test_a_title_of_the_history_is_neither_invented_nor_searched_for():
    taken = ["Heat", "Toy Story", "Amélie", "!"]
    for text in ("heat", "Toy story", "films like TOY  STORY 2", "amelie"):
        assert told(text, taken=taken) == "it echoes a title of the user's history", text
    for text in ("heat of summer", "a story of a toy", "!?x"):
        assert told(text, taken=taken) is None, text


@pytest.mark.parametrize("text", ["", "  ", "x" * 81, "a\nb", "a\u202eb", "half a �"])
def test_texts_that_can_not_be_shown(text):
    assert told(text) is not None


def test_a_fault_repeats_nothing():
    secrets = {"private": ["Zorblax"], "taken": ["Quuxly Days"]}
    for text in ("Zorblax", "Quuxly days", "mail zq@zq.example", "shit zq"):
        assert not {"zorblax", "quuxly", "zq", "shit"} & set(told(text, **secrets).split())
