from dataclasses import replace
from functools import partial
from typing import cast

import numpy as np
import pytest

from m6rec.data.feedback import Rule
from m6rec.data.log import Log
from m6rec.domains import domain as domains
from m6rec.features.interactions import InteractionStore
from m6rec.foundation.generate import Generated
from m6rec.language import chat as words
from m6rec.language.chat import Message, Session
from m6rec.language.lexicon import Lexicon
from m6rec.readouts import GenerateModel, ScoreModel, TaskModelConfig
from m6rec.serving import chatting
from m6rec.serving.backend import Chat, RankRequest, Reply
from m6rec.serving.batching import Batcher, Kind
from m6rec.serving.recommender import Recommender
from m6rec.serving.text_model_pool import TextModelPool
from m6rec.text.tokenizer import Tokenizer
from m6rec.types import Event, Item, User
from tests import conversations, tiny

KINDS = ("Drama", "Comedy", "Horror", "Western")
ITEMS = {
    f"i{n}": Item(
        f"i{n}",
        f"The {KINDS[n % 4]} of Number {n}",
        (KINDS[n % 4],),
        {"year": 1960 + n % 40, "length": 80 + 7 * n % 90},
    )
    for n in range(160)
}
EVENTS = tuple(
    Event(f"u{u}", f"i{(7 * u + 3 * n) % 48}", 20 * u + n, float((u + n) % 3 > 0)) for u in range(30) for n in range(14)
)
LOG = Log(events=EVENTS, items=ITEMS, users={f"u{n}": User(f"u{n}") for n in range(30)})


@pytest.fixture(scope="module")
def recommender():
    foundation = tiny.foundation()
    rank = ScoreModel.create(TaskModelConfig(task="like", domain="generic", foundation="tiny"), foundation)
    retrieve = tiny.retrieval(foundation, list(ITEMS.values()), "generic")
    return Recommender(retrieve, rank, LOG, InteractionStore(ITEMS, rank.domain.feedback).update_all(EVENTS))


def talk(recommender, *texts, user="", **options):
    """The reply to messages of which the user says the first, the third, …"""
    messages = [Message(("user", "assistant")[n % 2], text) for n, text in enumerate(texts)]
    return recommender.chat(Chat(messages=messages, user=user, **options))


def test_what_is_recommended_exists_is_new_and_is_named(recommender):
    reply = talk(recommender, "Can you recommend something?", user="u1")
    assert (reply.intent, reply.finish_reason, len(reply.items)) == ("recommend", "stop", chatting.NUM_OFFERED)
    seen = {event.item for event in EVENTS if event.user == "u1"}
    for one in reply.items:
        assert ITEMS[one.item.id] == one.item
        assert f'"{one.item.title}"' in reply.text
        assert one.item.id not in seen
    assert reply.num_completion_tokens > 10
    assert talk(recommender, "Can you recommend something?", user="u1") == reply


def test_feedback_turns_the_next_recommendation(recommender):
    lexicon = Lexicon(ITEMS.values())
    played = [
        (case, *conversations.play(recommender, case, user))
        for case, user in zip(conversations.cases(list(ITEMS.values()), "item", 33), ["", "u2"] * 17, strict=False)
    ]
    failed = [case for case, first, second in played if not conversations.holds(case, first, second, lexicon)]
    assert {case.sort for case, _, _ in played} == set(conversations.FEEDBACK)
    assert len(failed) <= len(played) // 10, failed


def test_a_conversation_leaves_no_trace(recommender):
    before = recommender._state.interactions.history("u3"), recommender._state.interactions.features("u3", list(ITEMS))
    items = recommender.recommend("u3", 5).items
    talk(recommender, 'I loved "The Drama of Number 4" and "The Horror of Number 6". More?', user="u3")
    talk(recommender, "I loved The Western of Number 7")
    assert recommender._state.interactions.history("u3") == before[0]
    np.testing.assert_array_equal(recommender._state.interactions.features("u3", list(ITEMS)), before[1])
    assert [one.item.id for one in recommender.recommend("u3", 5).items] == [one.item.id for one in items]
    assert "" not in recommender._state.users


def test_the_much_liked_may_be_named_to_anybody_but_not_what_was_rejected(recommender):
    most = recommender._state.interactions.most_liked()[:20]
    assert set(most) <= {one.item.id for one in recommender.suggest(Session())}
    rejected = Session(shown=tuple(most), disliked=tuple(most[:10]))
    assert not {one.item.id for one in recommender.suggest(rejected)}.intersection(most)


def test_what_was_liked_counts(recommender):
    plain = talk(recommender, "Something please")
    liked = talk(recommender, "I loved The Drama of Number 4. Something please")
    assert [one.score for one in plain.items] != [one.score for one in liked.items]


def test_an_explanation_is_of_what_was_offered(recommender):
    first = talk(recommender, "Anything good?", user="u1")
    second = first.items[1].item
    why = talk(recommender, "Anything good?", first.text, "Why the second one?", user="u1")
    assert why.intent == "explain"
    assert why.items == []
    assert why.text.startswith(f'Why "{second.title}"')
    assert len(why.text) > len(f'Why "{second.title}" (1960)?')
    other = talk(recommender, "Anything good?", first.text, "Why?", why.text, "Another one?", user="u1")
    assert not {one.item.id for one in other.items} & {one.item.id for one in first.items}


def test_who_says_nothing_is_asked_and_who_is_polite_is_answered(recommender):
    for said in ("", "qwertz"):
        reply = talk(recommender, said)
        assert (reply.intent, reply.items) == ("ask", [])
        assert reply.text.startswith("What item have you liked")
    assert talk(recommender, "Hello!").text.startswith("Hello! What item")
    assert recommender.chat(Chat(messages=[])).intent == "ask"


def test_where_nothing_fits_it_is_said(recommender):
    reply = talk(recommender, "a comedy from before 1900")
    assert reply.items == []
    assert "1899" in reply.text


def test_a_stream_is_the_reply_in_pieces_and_the_first_comes_before_any_token(recommender):
    chat = Chat(messages=[Message("user", "Anything good?")], user="u1")
    pieces = recommender.stream(chat)
    assert next(pieces).startswith(words.OFFER)
    *rest, reply = pieces
    assert isinstance(reply, Reply)
    assert reply == recommender.chat(chat)
    assert all(rest)


class Drawing:
    """Stands in for the writers of a service; writes these texts."""

    tokenizer = Tokenizer(tiny.fast_tokenizer())

    def __init__(self, *texts):
        self.drawn = [Generated(text, (1,) * 9, float(-number), "stop") for number, text in enumerate(texts)]

    def tuned(self, task):
        return self if task == "reply" else None

    def write(self, task, drafts, sampling, constraints):
        yield ""
        return self.drawn


def result(generator):
    """What a generator returns at its end."""
    try:
        while True:
            next(generator)
    except StopIteration as end:
        return end.value


HEAT = [Item("heat", "Heat", ("Crime",), {"year": 1995}), Item("alien", "Alien", ("Horror",), {"year": 1979})]


@pytest.mark.parametrize(
    ("drawn", "wanted", "told"),
    [
        (["Have you seen @?"], 0, ('Have you seen "Heat" (1995)?', 1)),
        (["Maybe @ or @?"], 0, ('Maybe "Heat" (1995) or "Alien" (1979)?', 2)),
        (["I can recommend @ if you like crime."], 0, ('I can recommend "Heat" (1995) if you like crime.', 1)),
        (["@ is great!", "You could try @."], 0, ('You could try "Heat" (1995).', 1)),
        (["I have seen @."], 0, ("", 0)),
        (["I loved @."], 0, ("", 0)),
        (["You might like @, it won an Oscar."], 0, ("", 0)),
        (["How about Titanic, or @?"], 0, ("", 0)),
        (["What do you like?"], 0, ("", 0)),
        (["How about @, @ or @?"], 0, ("", 0)),
        (["Try @."], 2, ("", 0)),
        (["Try @"], 0, ("", 0)),
        (["@ is a movie about a movie."], 0, ("", 0)),
    ],
)
def test_the_model_words_a_recommendation_that_says_no_more_than_ours(drawn, wanted, told):
    draft = chatting.reply_draft(
        Chat(messages=[Message("user", "hi")]), (), User("u"), domains.named("movielens"), {}, 1
    )
    assert draft.prompt == "USER: hi SYSTEM:"
    models = cast(TextModelPool, Drawing(*drawn))
    assert result(chatting.worded_offer(models, draft, HEAT, Lexicon(HEAT), wanted, 0)) == told


def test_a_worded_recommendation_comes_with_its_reason_and_is_known_when_it_comes_back(recommender, monkeypatch):
    plain = talk(recommender, "Anything good?", user="u1")
    monkeypatch.setattr(recommender.state.models.writers, "tuned", Drawing().tuned)
    real, drawn = recommender.state.models.writers.write, Drawing("Have you seen @?", "Try @ or @.")

    def write(task, *given):
        return drawn.write(task, *given) if task == "reply" else real(task, *given)

    monkeypatch.setattr(recommender.state.models.writers, "write", write)
    reply = talk(recommender, "Anything good?", user="u1")
    title = f'"{plain.items[0].item.title}" ({plain.items[0].item.details["year"]})'
    assert reply.items == plain.items[:1]
    assert reply.text == f"Have you seen {title}? Why {title}? {reply.reasons[0].text}"
    said = [Message("user", "Anything good?"), Message("assistant", reply.text), Message("user", "ok")]
    assert words.read(said, recommender.state.lexicon).shown == (plain.items[0].item.id,)
    two = talk(recommender, "Give me just two films", user="u1")
    assert len(two.items) == 2


def test_where_nothing_that_is_drawn_may_be_said_the_rules_word_it():
    foundation = tiny.foundation()
    rank = ScoreModel.create(TaskModelConfig(task="like", domain="generic", foundation="tiny"), foundation)
    retrieve = tiny.retrieval(foundation, list(ITEMS.values()), "generic")
    config = TaskModelConfig(task="reply", domain="generic", foundation="tiny", depth=1)
    tuned = {"reply": GenerateModel.create(config, foundation)}
    interactions = InteractionStore(ITEMS, rank.domain.feedback).update_all(EVENTS)
    plain, other = (Recommender(retrieve, rank, LOG, interactions, writers=writers) for writers in ({}, tuned))
    replies = [talk(one, "I loved The Drama of Number 4. What else?", user="u1") for one in (plain, other)]
    assert replies[0] == replies[1]
    assert not other.state.models.writers.active


def test_a_reply_that_nobody_waits_for_is_given_up(recommender):
    pieces = recommender.stream(Chat(messages=[Message("user", "Anything good?")], user="u1"))
    next(pieces)
    pieces.close()
    assert not recommender.state.models.writers.active


def test_disliked_items_are_told_before_liked_ones():
    told = chatting.events(Session(liked=("a",), disliked=("b",)), "u", 7)
    assert [event.item for event in told] == ["b", "a"]


@pytest.mark.parametrize("name", domains.names())
def test_what_is_liked_in_a_conversation_is_positive_in_every_domain(name):
    domain = domains.named(name)
    liked, disliked = (chatting.events(one, "u", 7)[0] for one in (Session(liked=("a",)), Session(disliked=("a",))))
    for rule in (None, Rule(test=">=", number=7), Rule(kinds=("purchase",)), Rule()):
        ruled = replace(domain, rule=rule)
        assert (ruled.positive(liked), ruled.feedback(disliked).positive) == (True, False)


def writer(**options):
    return chatting.ReplyWriter(Chat(messages=[], **options), Tokenizer(tiny.fast_tokenizer()))


def test_a_sentence_without_room_is_not_said():
    one = writer(max_tokens=12)
    assert one.say("Twelve toks") == "Twelve toks"
    assert one.say("And more.") == ""
    assert one.say("x") == one.end() == "", "nothing comes after a gap"
    assert one.reply(Session(), [], []).finish_reason == "length"


def test_a_reply_ends_before_a_stop_string_and_none_of_it_is_told():
    one = writer(stops=("stop it", "d. C"))
    told = one.say("A and b st")
    assert "A and b st".startswith(told)
    told += one.say("and end.") + one.say("Can't be.") + one.end()
    assert told == one.reply(Session(), [], []).text == "A and b st and en"
    assert one.reply(Session(), [], []).finish_reason == "stop"


def test_orders_in_messages_titles_and_reviews_are_only_text(recommender):
    """The form is kept, and nothing but counts is told of others."""
    texts = conversations.injections()
    assert len(texts) == len(set(texts)) == 200
    for number, text in enumerate(texts[::9]):
        recommender.upsert([Item("bad", text, ("Comedy",), {"year": 1999})])
        recommender.ingest([Event("u8", "bad", 999 + number, 1.0, text)])
        own = {event.item for event in recommender._state.interactions.history("u1")} | {"bad"}
        for messages in ((text,), ("Something funny?", text, "Why?"), (f'Why "{text}"?',)):
            reply = talk(recommender, *messages, user="u1")
            assert conversations.keeps_form(reply, own), (messages, reply)
        recommender.delete(["bad"])


def test_sixteen_streams_go_on_together_and_ranking_is_answered_meanwhile(recommender):
    rounds, first, last, ranked_at = [], {}, {}, []
    batcher = Batcher(max_queue=32, max_texts=16, step=recommender.step, measure=lambda kind, n: rounds.append(n))
    chat = Chat(messages=[Message("user", "Why The Drama of Number 4?")], user="u1")
    rank = Kind("rank", recommender.rank_many, 8)

    def tell(number):
        first.setdefault(number, len(rounds))
        last[number] = len(rounds)
        if number == 15 and len(ranked_at) < 3:  # all of them are being written
            ranked_at.append((batcher.submit(rank, RankRequest(user="u1", items=("i1", "i2"))), len(rounds)))

    futures = [
        batcher.write(lambda: recommender.chatting(chat), partial(lambda number, _: tell(number), number))
        for number in range(16)
    ]
    replies = [future.result(60).value for future in futures]
    assert all(reply == replies[0] for reply in replies)
    assert replies[0].reasons
    assert max(rounds) == 16
    spans = [last[number] - first[number] for number in range(16)]
    assert max(spans) <= 1.5 * min(spans)
    assert all(len(future.result(0).value.items) == 2 for future, _ in ranked_at), "answered before the texts were done"
    batcher.close()
