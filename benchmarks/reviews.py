"""Sets of reviews to explain, the simple ways to explain them, and how all ways are scored.

A pair is a test event whose review gives something to write. Its reference is the first text that the task makes of the
review, its feature the aspect that this text praises first. What others wrote of the item before the event (in a set
without time: at any time) is the evidence; the pair's own review never is.

Simple ways, which are told the same as the model:

- nearest review: the text of the training review that is nearest, by TF-IDF of words, to what is known of the pair
  (user facts, what the user wrote before, item words, the evidence), of those on the aspect where there are any;
- template: "The {aspect} is {opinion}.", with the opinion that most often praises the aspect in training reviews.

The aspect is ``given``, the pair's feature, as in PETER+ (Li et al., ACL 2021); or ``found``: what the evidence praises
most, else training reviews of items of the class, else all training reviews.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from m6rec.data.log import Log
from m6rec.data.split import TEST, TRAIN, VALID, Split
from m6rec.domains import domain as domains
from m6rec.domains.domain import Domain
from m6rec.evaluation.metrics import words
from m6rec.tasks import writing
from m6rec.tasks.task import Task
from m6rec.text.opinions import Statement, agree, mine
from m6rec.types import Draft, Event, Item

MIN_FEATURE = 5
"""Training reviews that praise an aspect before it counts as a feature of the set."""
NUM_EVIDENCE = 50
"""Latest reviews of an item that are evidence."""
_LIKING = ("love", "like", "adore", "enjoy")
"""What one does with an aspect, which no template says that it is."""


@dataclass(frozen=True, eq=False)
class Reviews:
    """A split set.

    Attributes:
        name: Of its domain.
        split: The log in its parts.
        task: What is written.
        prompt: The beginning of a text about an event, which is to speak of an aspect.
        num_tests: Pairs that are scored, drawn at random.
    """

    name: str
    split: Split
    task: Task
    prompt: Callable[[Event, Item, Domain, str], str]
    num_tests: int

    @property
    def domain(self) -> Domain:
        """Its words."""
        return domains.named(self.name)

    @property
    def log(self) -> Log:
        """All of it."""
        return self.split.log

    def drafts(self, part: int, most: int, seed: int) -> list[Draft]:
        """So many texts of a part, drawn at random, in the order of the log."""
        return _drawn(self._drafts[part], most, [seed, part])

    @cached_property
    def tests(self) -> list[Draft]:
        """The pairs that are scored, each by its first text."""
        first = {draft.event: draft for draft in reversed(self._drafts[TEST])}
        return _drawn([first[event] for event in sorted(first)], self.num_tests, [0, TEST])

    @cached_property
    def mined(self) -> tuple[tuple[Statement, ...], ...]:
        """The statements of each review of the log."""
        return tuple(mine(event.text) for event in self.log.events)

    @cached_property
    def features(self) -> tuple[str, ...]:
        """What the reviews talk about: the aspects that enough training reviews praise, most praised first."""
        count = Counter(aspect for event in self._training for aspect in set(_praised(self.mined[event])))
        return tuple(aspect for aspect, number in count.most_common() if number >= MIN_FEATURE)

    def feature(self, draft: Draft) -> str:
        """What a reference is about; the most praised of all where it praises nothing."""
        return next(iter(_praised(mine(draft.target))), self.features[0])

    def found(self, draft: Draft) -> str:
        """The aspect to speak of without knowing the pair's own review."""
        of_class = self._praise_of_class.get(self._class_of(draft.event), Counter())
        for praise in (Counter(_praised(self.evidence(draft.event))), of_class):
            if praise:
                return praise.most_common(1)[0][0]
        return self.features[0]

    def evidence(self, position: int) -> list[Statement]:
        """What others said of the item of an event by then."""
        return [one for other in self._others(position) for one in self.mined[other]]

    def of_item(self, position: int) -> list[Statement]:
        """What all reviews say of the item of an event, its own among them."""
        return [one for other in self._of_item[self.log.events[position].item] for one in self.mined[other]]

    def asked(self, aspects: Sequence[str]) -> list[Draft]:
        """The pairs, to be written about with these aspects."""
        log = self.log
        prompts = (
            self.prompt(log.events[draft.event], log.items[log.events[draft.event].item], self.domain, aspect)
            for draft, aspect in zip(self.tests, aspects, strict=True)
        )
        return [
            Draft(draft.context, prompt, event=draft.event) for draft, prompt in zip(self.tests, prompts, strict=True)
        ]

    def templates(self, aspects: Sequence[str]) -> list[str]:
        """See the module."""
        spoken = (aspect if aspect in self._opinions else self.features[0] for aspect in aspects)
        return [f"The {aspect} is {self._opinions[aspect].most_common(1)[0][0]}." for aspect in spoken]

    def nearest(self, aspects: Sequence[str]) -> list[str]:
        """See the module."""
        training = self._drafts[TRAIN]
        events = self.log.events
        known = [f"{self._words(draft)} {events[draft.event].text}" for draft in training]
        asked = [
            " ".join([self._words(draft), *(events[other].text for other in self._others(draft.event))])
            for draft in self.tests
        ]
        vectorizer = TfidfVectorizer(sublinear_tf=True)
        known_KV = vectorizer.fit_transform(known)
        likeness_QK = (vectorizer.transform(asked) @ known_KV.T).toarray()
        spoken_K = np.array([self.feature(draft) for draft in training])
        texts = []
        for likeness_K, aspect in zip(likeness_QK, aspects, strict=True):
            suits_K = spoken_K == aspect
            best = np.where(suits_K, likeness_K, -1).argmax() if suits_K.any() else likeness_K.argmax()
            texts.append(training[int(best)].target.strip())
        return texts

    def scores(self, texts: Sequence[str]) -> dict[str, float]:
        """The columns of a table for a text a pair, "" where nothing is said.

        Of the statements in the texts, ``of pair`` are in the pair's own review, ``of item`` in any review of the item:
        the same aspect with the same praise or blame (``opinions.agree``).
        """
        references = [draft.target.strip() for draft in self.tests]
        said = [mine(text) for text in texts]
        found = {
            "ROUGE-1": words.rouge(texts, references, "1"),
            "ROUGE-2": words.rouge(texts, references, "2"),
            "BLEU-1": words.bleu(texts, references, 1),
            "BLEU-4": words.bleu(texts, references, 4),
            "USR": words.unique_sentence_ratio(texts),
            "FMR": words.feature_matching_ratio(texts, [self.feature(draft) for draft in self.tests]),
            "FCR": words.feature_coverage_ratio(texts, self.features),
            "DIV": words.feature_diversity(texts, self.features),
            "statements": sum(map(len, said)) / len(texts),
        }
        if any(said):
            own = [self.mined[draft.event] for draft in self.tests]
            of_item = [self.of_item(draft.event) for draft in self.tests]
            found["of pair"] = words.statement_precision(said, own, agree)
            found["of item"] = words.statement_precision(said, of_item, agree)
        return found

    @cached_property
    def _drafts(self) -> list[list[Draft]]:
        """The texts of each part."""
        log, everything = self.log, np.ones(len(self.log.events), np.bool_)
        drafts = writing.build_drafts(self.task, log.events, log.users, log.items, self.domain, everything)
        return [[one for one in drafts if self.split.part[one.event] == part] for part in (TRAIN, VALID, TEST)]

    @cached_property
    def _training(self) -> list[int]:
        return [int(position) for position in self.split.indices(TRAIN)]

    @cached_property
    def _of_item(self) -> dict[str, list[int]]:
        events = defaultdict(list)
        for position, event in enumerate(self.log.events):
            events[event.item].append(position)
        return dict(events)

    def _others(self, position: int) -> list[int]:
        """The events of the evidence."""
        events, event = self.log.events, self.log.events[position]
        others = (other for other in self._of_item[event.item] if other < position or not event.time)
        return [other for other in others if events[other].user != event.user][-NUM_EVIDENCE:]

    def _class_of(self, position: int) -> str:
        return next(iter(self.log.items[self.log.events[position].item].categories), "")

    @cached_property
    def _praise_of_class(self) -> dict[str, Counter[str]]:
        praise: dict[str, Counter[str]] = defaultdict(Counter)
        for position in self._training:
            praise[self._class_of(position)].update(_praised(self.mined[position]))
        return dict(praise)

    @cached_property
    def _opinions(self) -> dict[str, Counter[str]]:
        opinions: dict[str, Counter[str]] = defaultdict(Counter)
        for position in self._training:
            for one in self.mined[position]:
                if one.polarity > 0 and not one.opinion.split()[-1].startswith(_LIKING):
                    opinions[one.aspect][one.opinion] += 1
        return dict(opinions)

    def _words(self, draft: Draft) -> str:
        item = self.log.items[self.log.events[draft.event].item]
        return " ".join([*(segment.text for segment in draft.context), self.domain.item(item)])


def _drawn(drafts: Sequence[Draft], most: int, seed: Sequence[int]) -> list[Draft]:
    chosen = np.random.default_rng(seed).permutation(len(drafts))[:most]
    return [drafts[number] for number in sorted(chosen.tolist())]


def _praised(statements: Sequence[Statement]) -> list[str]:
    return [one.aspect for one in statements if one.polarity > 0]
