import doctest
import sys
from time import process_time

import pytest

from m6rec.errors import ExtraError
from m6rec.language import opinions
from m6rec.language.opinions import Statement, agree, mine, sentences


def found(text):
    return [(one.aspect, one.opinion, one.polarity) for one in mine(text)]


def test_worked_examples():
    assert doctest.testmod(opinions) == (0, 4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Great sound.", [("sound", "great", 1)]),
        ("It has a really nice, comfortable grip.", [("grip", "really nice", 1), ("grip", "comfortable", 1)]),
        ("The fabric is very soft.", [("fabric", "very soft", 0)]),
        ("The sleeves are too long.", [("sleeves", "too long", -1)]),
        ("The fabric isn't good.", [("fabric", "not good", -1)]),
        ("The quality of the fabric is awful!", [("quality", "awful", -1)]),
        ("The dress is beautiful and comfortable.", [("dress", "beautiful", 1), ("dress", "comfortable", 1)]),
        ("The strings sound great.", [("strings", "great", 1)]),
        ("I love the color", [("color", "love", 1)]),
        ("I really hated this fabric", [("fabric", "hated", -1)]),
        ("We do not like the pattern", [("pattern", "not like", -1)]),
        ("This is not a great guitar.", [("guitar", "not great", -1)]),
        ("Good price but poor quality", [("price", "good", 1), ("quality", "poor", -1)]),
    ],
)
def test_forms_of_a_statement(text, expected):
    assert found(text) == expected


@pytest.mark.parametrize(
    ("said", "known", "expected"),
    [
        (("color", "nice", 1), ("colors", "really great", 1), True),
        (("dress", "nice", 1), ("dresses", "nice", 1), True),
        (("battery", "bad", -1), ("batteries", "awful", -1), True),
        (("dress", "nice", 1), ("dres", "nice", 1), False),
        (("color", "nice", 1), ("color", "ugly", -1), False),
        (("sound", "good", 1), ("sound quality", "good", 1), False),
        (("sleeves", "long", 0), ("sleeve", "long", 0), True),
        (("sleeves", "long", 0), ("sleeves", "short", 0), False),
        (("sleeves", "long", 0), ("sleeves", "nice", 1), False),
    ],
)
def test_statements_agree_on_aspect_and_polarity(
    said: tuple[str, str, int], known: tuple[str, str, int], expected: bool
):
    first, second = Statement(*said, "One."), Statement(*known, "Another.")
    assert agree(first, second) is agree(second, first) is expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "_____ :-)",
        "Is the sound good?",
        "I would love a nice color.",
        "If you want a great sound, look elsewhere.",
        "The sound could be better.",
        "It looks like a bag.",
        "A black case, the other strap.",
        "It was a great thing.",
    ],
)
def test_what_says_nothing(text):
    assert mine(text) == ()


def test_a_statement_keeps_its_sentence_and_comes_once():
    text = "Nice case.\nNice case. The bag’s color is NOT good;  the price is great"
    assert mine(text) == (
        Statement("case", "nice", 1, "Nice case."),
        Statement("bag color", "not good", -1, "The bag’s color is NOT good"),
        Statement("price", "great", 1, "the price is great"),
    )
    assert sentences(" \n ") == ()


def test_slashes_and_marks_of_the_tagger_are_plain_text():
    assert found("Great sound/NN and <b>nice</b> case|JJ &slash; /") == [("sound", "great", 1)]


def test_a_long_text_takes_no_long_time():
    began = process_time()
    mine("very " * 3_000 + "not " * 3_000 + "great , " * 3_000)
    assert process_time() - began < 5


def test_an_absent_library_is_named_with_its_install_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "textblob.taggers", None)
    opinions._lexicons.cache_clear()
    try:
        with pytest.raises(ExtraError, match=r"pip install 'm6rec\[text\]'"):
            mine("Great sound.")
    finally:
        opinions._lexicons.cache_clear()
