"""Spanish and Chinese words of wishes as the English ones that the rules of this room read.

Only words that every domain needs are here: wishing, liking, negating, comparing, dating. Names of categories in other
languages are a domain's synonyms (``lexicon.Vocabulary``), and titles stay as they are: of Spanish, words that begin
with a capital within a sentence aren't touched.

>>> to_english("Quiero algo de los años ochenta, pero no anterior a 1985")
'I want something from the eighties, but no before 1985'
>>> to_english("不要1960年以前的")
' no  before 1960 的'
"""

from __future__ import annotations

import re
import unicodedata

_CHINESE = re.compile(r"[\u3400-\u9fff]")
_CUES = re.compile(
    r"\b(?:una?|unos|unas|el|los|las|de|del|que|me|nos|por|para|con|sin|algo|hay|mas|pero|pelicula|peliculas|quiero|"
    r"busco|mejor|otra|otro|hola|gracias)\b"
)
_DECADES = {
    "veinte": "twenties", "treinta": "thirties", "cuarenta": "forties", "cincuenta": "fifties",
    "sesenta": "sixties", "setenta": "seventies", "ochenta": "eighties", "noventa": "nineties",
}  # fmt: skip
_DIGITS = {digit: str(number) for number, digit in enumerate("二三四五六七八九", 2)}
_SPANISH = (
    ("no (?:me|nos) (?:gust|interes)[a-z]+", "I don't like"),
    ("(?:me|nos) (?:gust|encant)[a-z]+", "I loved"),
    ("odio|odiamos|detesto", "I hate"),
    ("(?:ya )?(?:he|hemos) visto|ya vi|ya vimos", "I have seen"),
    ("(?:quiero|queremos|quisiera|busco|buscamos|necesito)(?: ver)?", "I want"),
    ("(?:me |nos )?recomiend[a-z]+|recomendar", "recommend"),
    ("nada de|sin|excepto|salvo|menos", "without"),
    ("en vez de|en lugar de", "instead of"),
    ("parecid[oa]s? a|similar(?:es)? a|como", "like"),
    ("anterior(?:es)? a|antes de", "before"),
    ("posterior(?:es)? a|despues de", "after"),
    ("desde", "since"),
    ("hasta", "until"),
    ("entre", "between"),
    ("mas (?:antigu|viej)[a-z]+", "older"),
    ("mas (?:nuev[a-z]+|recientes?|modern[a-z]+)", "newer"),
    ("(?:del ano|del|de|en) (?=[0-9]{4})", "from "),
    ("pero", "but"),
    ("mejor", "rather"),
    ("otr[oa]s?", "another"),
    ("algo", "something"),
    ("por que", "why"),
    ("gracias", "thanks"),
    ("hola", "hello"),
    ("adios", "goodbye"),
    ("y", "and"),
    ("o", "or"),
    ("ni", "nor"),
    *((f"(?:de )?(?:los )?(?:anos )?{spoken}", f"from the {decade}") for spoken, decade in _DECADES.items()),
)
_OF_CHINESE = (
    ("有没有|有无", " is there "),
    ("不喜欢|讨厌", " I don't like "),
    ("不要|不想看?|不看|别看|除了|没有", " no "),
    ("不是太|不太", " not "),
    ("([0-9]{4})年?(?:以前|之前)", r" before \1 "),
    ("([0-9]{4})年?(?:以后|之后)", r" after \1 "),
    ("([0-9]{4})年?(?:到|至)([0-9]{4})年?", r" between \1 and \2 "),
    ("([0-9]{4})年(?!代)", r" in \1 "),
    ("([1-9]0)年代", r" from the \1s "),
    ("(?:更|再)(?:老|旧|早)|(?:老|旧|早)一点", " older "),
    ("(?:更|再)新|新一点", " newer "),
    ("换一?[部个]?|别的|其他|其它", " another "),
    ("喜欢|爱看", " I like "),
    ("看过了?", " seen "),
    ("类似|像", " like "),
    ("想看|想要|给我", " want "),
    ("推荐", " recommend "),
    ("但是?|不过|可是", " but "),
    ("为什么", " why "),
    ("谢谢", " thanks "),
    ("你好|您好", " hello "),
    ("再见", " goodbye "),
    ("，|、", ", "),
    ("。", ". "),
    ("？", "? "),
    ("！", "! "),
    ("；", "; "),
)
_RULES_OF_SPANISH = tuple((re.compile(rf"(?<!\w){words}(?!\w)"), english) for words, english in _SPANISH)
_RULES_OF_CHINESE = tuple((re.compile(words), english) for words, english in _OF_CHINESE)
_OPENED = re.compile(r"(?:^|(?<=[.!?¿¡]))\s*\w")


def to_english(text: str) -> str:
    """A message with what it wishes in English words; one in another language than these two stays as it is."""
    if _CHINESE.search(text):
        text = re.sub("([二三四五六七八九])十年代", lambda found: f"{_DIGITS[found[1]]}0年代", text)
        for rule, english in _RULES_OF_CHINESE:
            text = rule.sub(english, text)
        return text
    plain = "".join(part for part in unicodedata.normalize("NFKD", text) if not unicodedata.combining(part))
    if len(_CUES.findall(plain.lower())) < 2:
        return text
    plain = _OPENED.sub(lambda found: found.group().lower(), plain)
    for rule, english in _RULES_OF_SPANISH:
        plain = rule.sub(english, plain)
    return plain
