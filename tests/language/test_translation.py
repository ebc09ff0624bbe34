import doctest

import pytest

from m6rec.language import translation
from m6rec.language.translation import to_english


def test_worked_examples():
    failed, attempted = doctest.testmod(translation)
    assert attempted >= 2
    assert failed == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Something like Como agua para chocolate, please",
        "I loved El Mariachi and La Strada",
        "Un western",
        "Je voudrais une comédie",
    ],
)
def test_a_text_in_another_language_stays_as_it_is(text):
    assert to_english(text) == text


@pytest.mark.parametrize(
    ("text", "english"),
    [
        ("¿Me recomiendas una película sin guerra?", "¿recommend una pelicula without guerra?"),
        ("No me gustó la de terror", "I don't like la de terror"),
        ("Quiero algo como Como agua para chocolate", "I want something like Como agua para chocolate"),
        ("entre 1980 y 1985, por favor, de los noventa no", "between 1980 and 1985, por favor, from the nineties no"),
        ("我喜欢Alien，有类似的吗？", "我 I like Alien, 有 like 的吗? "),
        ("我不喜欢恐怖片。", "我 I don't like 恐怖片. "),
        ("1980年到1985年", " between 1980 and 1985 "),
        ("1999年的", " in 1999 的"),
        ("九十年代", " from the 90s "),
        ("有没有战争片？", " is there 战争片? "),
    ],
)
def test_wishes_are_told_in_english(text, english):
    assert to_english(text) == english
