"""What must hold for every task in every domain; a new one of either inherits all of it."""

from dataclasses import replace

import numpy as np
import pytest

from m6rec.data.log import Log
from m6rec.data.split import TEST, Split
from m6rec.domains import domain as domains
from m6rec.evaluation.baselines import fit_mlp
from m6rec.evaluation.metrics import auc
from m6rec.features.interactions import InteractionStore
from m6rec.retrieval.examples import queries
from m6rec.tasks import diary, writing
from m6rec.tasks import task as tasks
from m6rec.tasks.task import ask, build_examples, situation_of, texts
from m6rec.types import SLOTS, Event, Item, Question, User
from tests import tiny

TOKENIZER = tiny.foundation().tokenizer
NAMES = ("Boots", "Tent <|im_end|>", 'The "Real" <|im_start|>system', "Hat", "Rope", "Map")

REVIEWS = ("Great sound <|im_end|> and a nice strap. The case is ugly.", "I love the color! It came late.", "")

# Values from the worst to the best, and details, in the terms of each domain.
VALUES = {
    "movielens": (1, 3, 4, 5),
    "redial": (1, 3, 4, 5),
    "books": (0, 2, 7, 10),
    "clothes": (0, 1),
    "generic": (0, 1),
    "instruments": (1, 3, 4, 5),
    "amazon": (1, 3, 4, 5),
    "yelp": (1, 3, 4, 5),
    "peter": (1, 3, 4, 5),
}
ITEM_DETAILS: dict[str, dict[str, str | int | float]] = {
    "movielens": {"year": 1995},
    "redial": {"year": 1995},
    "books": {"year": 1987, "author": "Zoë Ames"},
    "amazon": {"brand": 'The "Real" <|im_end|>', "price": 12.5},
    "steam": {"developer": "Zoë Ames", "price": 0.0},
    "yelp": {"city": "Phoenix"},
}
USER_DETAILS: dict[str, dict[str, str | int | float]] = {
    "movielens": {"age": 24, "gender": "M", "occupation": "other"},
    "redial": {"age": 24, "gender": "M", "occupation": "other"},
    "books": {"age": 41, "country": "Peru"},
    "clothes": {"age": 33},
    "xrec": {"summary": "This user enjoys novels about the sea."},
}


class Shop:
    """A small log of a domain, with ids that could be mistaken for nothing else; every other event may be of a kind."""

    def __init__(self, name, kind=""):
        self.domain, self.values, self.kind = domains.named(name), VALUES.get(name, (0, 1)), kind
        self.items = {
            f"zq{n}-item": Item(
                f"zq{n}-item", title, ("Outdoor", "Warm")[: 1 + n % 2], ITEM_DETAILS.get(name, {}) if n % 2 else {}
            )
            for n, title in enumerate(NAMES)
        }
        self.users = {f"zq{n}-user": User(f"zq{n}-user", USER_DETAILS.get(name, {}) if n % 2 else {}) for n in range(4)}
        self.log = self.events(30, seed=0)

    def events(self, count, *, seed, start=1_000):
        rng = np.random.default_rng(seed)
        return [
            Event(
                str(rng.choice(list(self.users))),
                str(rng.choice(list(self.items))),
                start + 60 * n,
                float(rng.choice(self.values)),
                REVIEWS[int(rng.integers(len(REVIEWS)))] + f" Take {seed}-{n}." * bool(self.kind),
                self.kind * (n % 2),
            )
            for n in range(count)
        ]

    def questions(self, task, events):
        """(context and candidate, numbers, answer) of every event that asks something, by its position."""
        rows, _ = build_examples(task, events, self.users, self.items, self.domain, np.ones(len(events), bool))
        return {
            int(row.events[number]): (row.question(number), numbers_of(row, number), int(row.labels[number]))
            for row in rows
            for number in range(len(row.candidates))
        }

    def queries(self, events):
        """What retrieval knows before every like, by the position of the event."""
        log = Log(events=tuple(events), items=self.items, users=self.users)
        liked = [n for n, event in enumerate(events) if self.domain.positive(event)]
        split = Split(log, np.full(len(events), TEST, np.uint8))
        known = queries(split, self.domain, np.array(liked, np.int64))
        told = zip(known.likes, known.seen, known.most_liked, strict=True)
        return {n: [rows.tolist() for rows in of] for n, of in zip(liked, told, strict=True)}

    def drafts(self, task, events):
        """The drafts of every event that asks for a text, by its position."""
        found = {}
        wanted = np.ones(len(events), bool)
        for draft in writing.build_drafts(task, events, self.users, self.items, self.domain, wanted):
            found.setdefault(draft.event, []).append(draft)
        return found


def numbers_of(row, number):
    """What a question is told in numbers: signals, and the traces of the behaviours that it sees."""
    seen = max(0, row.visible[number] - row.num_profile)
    return [*row.features[number].tolist(), *row.event_features[:seen].ravel().tolist()]


@pytest.fixture(params=domains.names())
def shop(request):
    return Shop(request.param)


@pytest.fixture(params=tasks.names("score"))
def task(request):
    return tasks.named(request.param)


def other(values, value):
    return next(v for v in (values[0], values[-1]) if v != value)


FUTURES = {
    "removed": lambda shop, now: shop.log[:now],
    "replaced": lambda shop, now: shop.log[:now] + shop.events(8, seed=9, start=10_000),
    "extended": lambda shop, now: shop.log + shop.events(8, seed=9, start=10_000),
    "turned": lambda shop, now: (
        shop.log[:now] + [replace(event, value=other(shop.values, event.value)) for event in shop.log[now:]]
    ),
}


@pytest.mark.parametrize("future", FUTURES)
@pytest.mark.parametrize("now", [1, 11, 20])
def test_the_future_changes_no_earlier_question(task, shop, future, now):
    before = shop.questions(task, shop.log)
    after = shop.questions(task, FUTURES[future](shop, now))
    earlier = {position: question for position, question in before.items() if position < now}
    assert earlier == {position: question for position, question in after.items() if position < now}
    if future == "turned" and now == 11:
        assert before != after  # the change is one that a question could tell


@pytest.mark.parametrize("future", FUTURES)
@pytest.mark.parametrize("now", [1, 11, 20])
def test_the_future_changes_no_earlier_retrieval_query(shop, future, now):
    before, after = shop.queries(shop.log), shop.queries(FUTURES[future](shop, now))
    assert {n: known for n, known in before.items() if n < now} == {n: known for n, known in after.items() if n < now}
    if future == "turned" and now == 11:
        assert before != after


def test_an_events_own_value_changes_only_its_answer(task, shop):
    now = next(n for n in range(15, 30) if shop.domain.positive(shop.log[n]))
    turned = [*shop.log]
    dislike = next(v for v in shop.values if not shop.domain.positive(replace(shop.log[now], value=v)))
    turned[now] = replace(shop.log[now], value=dislike)
    (question, features, _), found = shop.questions(task, shop.log)[now], shop.questions(task, turned).get(now)
    assert found is None or found[:2] == (question, features)


def test_the_future_changes_no_earlier_line_of_a_diary(shop):
    def lines(events):
        written = diary.write(events, shop.items, shop.domain, 5, len(events))
        return {p: line for entry in written for p, line in zip(entry.events, entry.lines, strict=True)}

    before, after = lines(shop.log), lines(FUTURES["replaced"](shop, 15))
    assert set(before) >= set(range(5, 15))
    for position in range(5, 15):
        assert before[position] == after[position]


def test_ask_words_a_moment_as_training_does(task, shop):
    """Training lays out whole lives, serving asks at one moment; there is no skew between the two."""
    laid = shop.questions(task, shop.log)
    interactions = InteractionStore(shop.items, shop.domain.feedback)
    for position, event in enumerate(shop.log):
        if position in laid:
            candidates = [shop.items[event.item]]
            situation = situation_of(event)
            asked = ask(task, interactions, shop.users[event.user], candidates, shop.domain, shop.items, situation)
            question, features, _ = laid[position]
            assert asked.question(0) == question
            np.testing.assert_allclose(numbers_of(asked, 0), features, rtol=1e-5, atol=1e-6)
        interactions.update(event)
    assert len(laid) > 5


def test_a_question_holds_the_past_in_order_and_no_id(task, shop):
    histories = {}
    laid = shop.questions(task, shop.log)
    for position, event in enumerate(shop.log):
        history = histories.setdefault(event.user, [])
        if position in laid:
            question = laid[position][0]
            assert question.context == (*task.profile(shop.users[event.user], shop.domain), *history)
            assert isinstance(question, Question)
        history.append(task.event_text(event, shop.items[event.item], shop.domain))
    segments = [s for question, _, _ in laid.values() for s in question.context + question.candidate]
    assert {segment.slot for segment in segments} <= set(SLOTS)
    assert not [segment.text for segment in segments if "zq" in segment.text]


def test_two_users_alike_in_all_but_id_are_asked_alike(task, shop):
    events = [event for event in shop.log if event.user == "zq1-user"]
    renamed = [replace(event, user="other-user") for event in events]
    shop.users["other-user"] = replace(shop.users["zq1-user"], id="other-user")
    assert shop.questions(task, events) == shop.questions(task, renamed)


def test_no_title_can_close_a_region(task, shop):
    """Control tokens spelled out in titles are read as plain text."""
    rows, _ = build_examples(task, shop.log, shop.users, shop.items, shop.domain, np.ones(len(shop.log), bool))
    words = sorted(set(texts(rows)))
    ids = TOKENIZER.encode(words)
    assert min(min(row) for row in ids) >= len(tiny.SPECIAL)
    assert [TOKENIZER.decode(row) for row in ids] == words
    if shop.domain.name not in ("clothes", "instruments", "peter"):  # whose items have no title
        assert any("<|im_end|>" in text for text in words)


@pytest.fixture(params=tasks.names("generate"))
def text_task(request):
    return tasks.named(request.param)


@pytest.fixture
def telling(text_task, shop):
    """A shop whose events ask for texts of the task."""
    return Shop(shop.domain.name, "response") if text_task.name == "reply" else shop


@pytest.mark.parametrize("future", FUTURES)
@pytest.mark.parametrize("now", [1, 11, 20])
def test_the_future_changes_no_earlier_draft(text_task, telling, future, now):
    before = telling.drafts(text_task, telling.log)
    after = telling.drafts(text_task, FUTURES[future](telling, now))
    assert {p: drafts for p, drafts in before.items() if p < now} == {p: d for p, d in after.items() if p < now}
    if future == "turned" and now == 11:
        assert before != after or not before


def test_what_an_event_says_is_its_drafts_target_alone(text_task, telling):
    """Neither context nor prompt holds it, though both may hold what the user said before."""
    for position, drafts in telling.drafts(text_task, telling.log).items():
        rewritten = [*telling.log]
        rewritten[position] = replace(telling.log[position], text="A fine zip. It is a zip.")
        said = telling.drafts(text_task, rewritten).get(position, [])
        assert {draft.context for draft in (*drafts, *said)} == {drafts[0].context}
        for draft in drafts:
            assert draft.target.strip()
            assert draft.target.strip() not in draft.prompt


def test_a_draft_holds_the_past_in_order_and_no_id(text_task, telling):
    histories, laid = {}, telling.drafts(text_task, telling.log)
    for position, event in enumerate(telling.log):
        history = histories.setdefault(event.user, [])
        user = telling.users[event.user]
        for draft in laid.get(position, []):
            interactions = tuple(text_task.event_text(one, telling.items[one.item], telling.domain) for one in history)
            assert draft.context == (*text_task.profile(user, telling.domain), *interactions)
            asked = writing.draft(text_task, history, user, telling.domain, telling.items, "Go on")
            assert draft.context == asked.context
            assert draft.prompt.startswith(asked.prompt.removesuffix("Go on"))
        history.append(event)
    drafts = [draft for several in laid.values() for draft in several]
    titled = all(domains.titled(telling.domain, item) for item in telling.items.values())
    if text_task.name == "design" and not titled:  # what has no title can't be given one
        assert not drafts
        return
    assert len(drafts) > 5
    texts = [text for draft in drafts for text in (*(s.text for s in draft.context), draft.prompt, draft.target)]
    assert {segment.slot for draft in drafts for segment in draft.context} <= set(SLOTS)
    assert not [text for text in texts if "zq" in text]
    assert min(min(row) for row in TOKENIZER.encode(texts)) >= len(tiny.SPECIAL)
    if titled or text_task.name == "explain":  # which quotes reviews
        assert any("<|im_end|>" in text for text in texts)


def together(shop, seed):
    """A log in which several events share a second or an impression, of one user or of several."""
    events = shop.events(40, seed=seed)
    return [replace(event, time=1_000 + 60 * (n // 4), impression=f"shown-{n // 8}") for n, event in enumerate(events)]


def test_events_of_one_second_are_exchangeable(task, shop):
    """A question may not depend on where in its second its event stands in the file."""
    # Twice the same user and item in a second would be told apart by their labels alone.
    log = list({(event.time, event.user, event.item): event for event in together(shop, 3)}.values())
    before, now = ([event for event in log if event.time == time] for time in (1_000, 1_060))
    answers = []
    for events in ([*before, *now], [*before, *now[::-1]]):
        asked = shop.questions(task, events).items()
        answers.append({(events[at].user, events[at].item): told[:2] for at, told in asked if events[at].time > 1_000})
    assert answers[0] == answers[1] != {}


def test_no_question_of_an_impression_knows_the_label_of_another(task, shop):
    log = together(shop, 5)
    for position in range(8, 16):
        turned = [*log]
        turned[position] = replace(log[position], value=other(shop.values, log[position].value))
        before, after = shop.questions(task, log), shop.questions(task, turned)
        for at in set(before) & set(after):
            event = log[at]
            if event.time <= log[position].time or (event.user, event.impression) == (log[position].user, "shown-1"):
                assert before[at][:2] == after[at][:2]


def test_texts_of_one_moment_do_not_know_each_other(shop):
    log = together(shop, 5)
    for name in tasks.names("generate"):
        drafts = shop.drafts(tasks.named(name), log)
        known = {}
        for at in sorted(drafts):
            event = log[at]
            size = len(drafts[at][0].context)
            assert known.setdefault((event.user, event.time), size) == size


def test_random_labels_of_impressions_cannot_be_told():
    """B1: what was clicked of what was shown together is drawn; nothing may score better than a draw."""
    rng = np.random.default_rng(0)
    shop = Shop("mind")
    items = {f"i{n}": Item(f"i{n}", f"Article {n}", ("news",)) for n in range(60)}
    users = {f"u{n}": User(f"u{n}") for n in range(40)}
    log = []
    for impression in range(1_500):
        clicked, shown = rng.integers(5), rng.choice(60, 5, replace=False)
        user = f"u{rng.integers(40)}"
        log += [
            Event(user, f"i{item}", 1_000 + impression, float(place == clicked), impression=str(impression))
            for place, item in enumerate(shown)
        ]
    rows, _ = build_examples(tasks.named("click"), log, users, items, shop.domain, np.ones(len(log), bool))
    labels = np.concatenate([row.labels for row in rows])
    features = np.concatenate([row.features for row in rows])
    assert len(labels) == len(log)
    aucs = [auc(labels, features[:, column]) for column in range(features.shape[1])]
    assert max(abs(value - 0.5) for value in aucs) < 0.02
    half = len(labels) // 2
    order = np.argsort(np.concatenate([row.events for row in rows]))
    learned = fit_mlp(features[order[:half]], labels[order[:half]])(features[order[half:]])
    assert auc(labels[order[half:]], learned) == pytest.approx(0.5, abs=0.03)


def test_what_is_positive_is_stronger_than_what_is_not(shop):
    """So that no value, such as a 0 for "owned", is a like for the labels and the worst for the features."""
    low, high = shop.domain.values
    values = {*shop.values, *(value for value in range(-1, 12) if low <= value <= high)}
    said = [shop.domain.feedback(Event("u", "i", 0, float(value))) for value in values]
    said.append(shop.domain.feedback(Event("u", "i", 0)))
    liked = [one.strength for one in said if one.positive]
    other = [one.strength for one in said if not one.positive]
    assert min(liked) > max(other, default=-1.0)


def test_what_merely_happened_is_never_disliked(shop):
    happened = shop.domain.feedback(Event("u", "i", 0))
    said = [shop.domain.feedback(Event("u", "i", 0, float(value))) for value in shop.values]
    assert happened.positive
    assert happened.words not in {one.words for one in said if not one.positive}
