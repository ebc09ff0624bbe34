"""What a review says about what: statements of an aspect and an opinion, mined from its sentences.

Words are tagged and opinions weighed by TextBlob with the lexicons of pattern.en, which come inside its wheel. Three
forms are read: "great sound quality", "the sound is not great", "love the sound". Wishes, conditions and questions
say nothing. Other forms are missed: a target for an explanation must be right more than there must be many.
"""

import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import NamedTuple

from m6rec.errors import ExtraError

_SENTENCE_END = re.compile(r"(?<=[.!?])[\s\"')]+|(?<=[a-z][.!?])(?=[A-Z])|\s*[\r\n]\s*|;\s+")
_WORD = re.compile(r"\d+(?:[.,]\d+)+|[^\W_]+(?:[-'][^\W_]+)*|[^\w\s]")
_CONTRACTIONS = (
    (re.compile(r"n['’]t\b"), " not"),
    (re.compile(r"\b(it|that|this|there|what)['’]s\b"), r"\1 is"),
    (re.compile(r"['’]s\b"), ""),
)


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Each word of a sentence becomes one letter, and each form of a statement a pattern over these letters.
_KINDS = {
    word: kind
    for kind, words in {
        "X": "not no never without hardly",
        "R": "very really so too quite extremely pretty super absolutely incredibly fairly rather just especially",
        "L": "is are was were be been being looks looked feels felt sounds sounded seem seems seemed fits stay stays"
        " stayed",
        "S": "sound look feel fit",  # a noun or a link
        "B": "also still always all both can will has have had do does did 've",
        "H": "get got give gives make makes offer offers provide provides with",
        "W": "would could should might may if wish want wanted wanting need needed needing looking hope hoping hoped"
        " expected expecting unless until than as less",
        "V": "love loved loves adore adored enjoy enjoyed enjoys hate hated hates dislike disliked",
        "K": "like liked likes",
        "P": "i we they she he you",
        "D": "the a an this that these those my its his her their your our",
        "O": "of on in for from",
        "C": "and or but yet though although because while when where which who",
    }.items()
    for word in words.split()
}
_NOT_OPINIONS = _set(
    "able actual certain different due enough entire extra few first full further general half last latter least less"
    " main many more most much necessary new next normal old only other otherwise own particular possible previous"
    " real regular right same second several similar single specific standard such sure third total typical used usual"
    " various whole ready willing aware likely worth young live top average modern black white green red blue"
    " electric acoustic available complete final local open original separate electronic stainless free locking older"
    " exact direct active dead pure special natural true slight serious subtle minimal endless negative positive false"
    " enthusiastic wrong clean pink late early everyday raw past hidden cutting common secondary primary latest mature"
    " experienced straight"
)
# Good in one thing and bad in another: descriptions, unless there is too much of it.
_MEASURES = _set(
    "big bigger biggest small smaller smallest little tiny large larger huge long longer short shorter tall high higher"
    " low lower heavy heavier thick thicker thin thinner wide wider narrow tight tighter loose looser deep hard harder"
    " soft softer firm sharp dark darker light lighter bright brighter loud louder quiet dull rough quick slow casual"
    " cozy delicate plain pale hot cold chilly"
)
_NOT_ASPECTS = _set(
    "thing things one ones lot lots bit way ways time times day days week weeks month months year years kind sort part"
    " parts something anything everything nothing someone everyone anyone people person guy guys man woman place"
    " reason reasons idea fact problem problems issue issues job deal review reviews amazon star stars hand hands side"
    " end couple number point example luck course life world night thanks hope question choice use order addition"
    " experience friend friends husband wife son daughter item items product products purchase buy condition amount"
    " range job work hour hours minute minutes thank alternative option options sense need needs"
    " shape go stuff while all home reviewer reviewers step try word words"
)
_MISTAGGED = re.compile(r"(?<=[DJj])v")  # "the strap", which the tagger takes for what one does
_ATTRIBUTE = re.compile(r"(?P<opinion>R*J(?:,?R*J)*)j*(?P<aspect>[NS]+)")
_PREDICATE = re.compile(r"(?P<aspect>[NS]+)(?:OD?[Jj]*[NS]+)?[BR]*[LS](?P<opinion>[XBR]*J(?:[,C]+[XR]*J)*)(?![jNS])")
_LIKING = re.compile(r"(?P<opinion>(?<=[PRXBC])[VK]|^V)[RD]*[Jj]*(?P<aspect>[NS]+)")
_PLURAL = re.compile(r"(?<=ss|ch|sh)es$|(?<=x)es$|(?<=[^s])s$")
_ONE_OPINION = re.compile(r"[XBR]*[JVK]")
_NEGATED = re.compile(r"X[BHLDPR]*$")
_NOT_SAID = re.compile(r"W[^,C]*$")


@dataclass(frozen=True, slots=True)
class Statement:
    """An opinion about an aspect, and the sentence that says so.

    Attributes:
        aspect: What it is about, in small letters: "sound quality".
        opinion: What is said of it, with degree and negation: "not very good"; of an aspect that is liked, "love".
        polarity: 1 for praise, −1 for blame, 0 for a description.
        sentence: As in the review.
    """

    aspect: str
    opinion: str
    polarity: int
    sentence: str


def mine(text: str) -> tuple[Statement, ...]:
    """The statements of a review in English, in the order of the text, none twice.

    >>> for found in mine("Great sound quality, but the strap isn't very good. I love the color!"):
    ...     print(found.aspect, "|", found.opinion, "|", found.polarity)
    sound quality | great | 1
    strap | not very good | -1
    color | love | 1

    Raises:
        ExtraError: TextBlob is not installed.
    """
    return tuple(
        dict.fromkeys(
            Statement(aspect, opinion, polarity, sentence)
            for sentence in sentences(text)
            if not sentence.endswith("?")
            for aspect, opinion, polarity in _opinions(sentence)
        )
    )


def agree(said: Statement, known: Statement) -> bool:
    """Whether two statements say the same: both praise, both blame, or both describe in the same words, one aspect.

    An aspect is the same in the singular and the plural.

    >>> great, good, bad, wide = (mine(f"The strap is {word}.")[0] for word in ("great", "very good", "bad", "wide"))
    >>> agree(great, good), agree(great, bad), agree(wide, wide), agree(wide, great)
    (True, False, True, False)
    """
    same = _singular(said.aspect) == _singular(known.aspect) and said.polarity == known.polarity
    return same and (said.polarity != 0 or said.opinion == known.opinion)


def _singular(aspect: str) -> str:
    return _PLURAL.sub("", aspect[:-3] + "y" if aspect.endswith("ies") else aspect)


def sentences(text: str) -> tuple[str, ...]:
    """A text cut at its full stops and other ends of sentences, at semicolons and at new lines.

    >>> sentences("Sounds great.Looks good!  Mine came with 2.5 m of cord")
    ('Sounds great.', 'Looks good!', 'Mine came with 2.5 m of cord')
    """
    return tuple(part for part in map(str.strip, _SENTENCE_END.split(text)) if part)


def _opinions(sentence: str) -> Iterator[tuple[str, str, int]]:
    """Aspect, opinion and polarity of each statement in a sentence."""
    words = _words(sentence)
    kinds = _MISTAGGED.sub("N", "".join(_kind(*word) for word in words))
    found = [match for form in (_ATTRIBUTE, _PREDICATE, _LIKING) for match in form.finditer(kinds)]
    for match in sorted(found, key=lambda match: match.start("aspect")):
        start, end = match.span("aspect")
        if words[end - 1][0] in _NOT_ASPECTS or _NOT_SAID.search(kinds, 0, match.start()):
            continue
        aspect = " ".join(word for word, _ in words[max(start, end - 3) : end])
        negated = match.re is not _PREDICATE and _NEGATED.search(kinds, 0, match.start())
        for part in _ONE_OPINION.finditer(kinds, *match.span("opinion")):
            said = [words[n][0] for n in range(*part.span()) if kinds[n] != "B"]
            opinion = " ".join(["not", *said] if negated else said)
            polarity = _polarity(opinion)
            if polarity or match.re is not _ATTRIBUTE:  # "wooden case" tells cases apart, "the case is wooden" tells
                yield aspect, opinion, polarity


def _words(sentence: str) -> list[tuple[str, str]]:
    """The words in small letters (a capital would make "Great" a name), each with its tag of the Penn Treebank."""
    sentence = sentence.lower()
    for form, plain in _CONTRACTIONS:
        sentence = form.sub(plain, sentence)
    spaced = " ".join(_WORD.findall(sentence)).replace("/", ",")  # to the tagger, a slash divides word and tag
    return _lexicons().tag(spaced) if spaced else []


@lru_cache(maxsize=50_000)
def _kind(word: str, tag: str) -> str:
    if word in _KINDS:
        return _KINDS[word]
    if not word[0].isalnum():
        return ","
    if tag.startswith("JJ"):
        return "j" if word in _NOT_OPINIONS else "J"
    if tag in ("VBG", "VBN") and word not in _NOT_OPINIONS and _polarity(word):
        return "J"  # "amazing", "disappointed"
    return "N" if tag.startswith("NN") else "v" if tag in ("VB", "VBP") else "-"


@lru_cache(maxsize=50_000)
def _polarity(opinion: str) -> int:
    *before, word = opinion.split()
    if word in _MEASURES:
        return -1 if before == ["too"] else 0
    if _KINDS.get(word) in ("V", "K"):
        weight = -1.0 if word.startswith(("hate", "dislike")) else 1.0
        weight = -weight if before else weight
    else:
        weight = _lexicons().polarity(opinion)
    return 0 if abs(weight) < 0.1 else 1 if weight > 0 else -1


class _Lexicons(NamedTuple):
    tag: Callable[[str], list[tuple[str, str]]]
    polarity: Callable[[str], float]


@cache
def _lexicons() -> _Lexicons:
    try:
        from textblob.sentiments import PatternAnalyzer
        from textblob.taggers import PatternTagger
    except ImportError as error:
        raise ExtraError("Mining of opinions (textblob)", "text") from error
    tagger, analyzer = PatternTagger(), PatternAnalyzer()
    lexicons = _Lexicons(
        tag=lambda words: tagger.tag(words, tokenize=False),
        polarity=lambda opinion: float(analyzer.analyze(opinion).polarity),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # at the first word it reads files, and closes none
        lexicons.tag("good"), lexicons.polarity("good")
    return lexicons
