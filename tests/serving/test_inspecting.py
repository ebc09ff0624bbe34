from collections import Counter

import numpy as np
import pytest

from m6rec.data.log import Log
from m6rec.domains.domain import named
from m6rec.errors import DataError, UnknownError
from m6rec.features.interactions import EVENT_FEATURES, InteractionStore
from m6rec.readouts import ScoreModel, TaskModelConfig
from m6rec.retrieval.blend import fit, reciprocal_rank_fusion
from m6rec.serving.backend import MIN_CROWD, Filters, InspectRequest, Request
from m6rec.serving.recommender import Recommender
from m6rec.serving.search import SearchIndex
from m6rec.tasks.task import ask
from m6rec.text.batch import Example
from m6rec.types import Event, Item, Segment, User
from tests import tiny

KINDS = ("Drama", "Comedy", "War")
ITEMS = {f"i{n}": Item(f"i{n}", f"Film {n}", (KINDS[n % 3],), {"year": 1980 + n}) for n in range(130)}
USERS = {f"u{n}": User(f"u{n}", {"age": 20 + n}) for n in range(6)}
EVENTS = tuple(Event(f"u{n % 6}", f"i{n * 7 % 50}", n, float(1 + n % 5)) for n in range(120))
LIKE = (Event("", "i100", 0, kind="like"),)


def observed():
    return InteractionStore(ITEMS, named("movielens").feedback).update_all(EVENTS)


@pytest.fixture(scope="module")
def models():
    foundation = tiny.foundation(num_layers=4)
    rank = ScoreModel.create(TaskModelConfig(task="like", domain="movielens", foundation="tiny"), foundation)
    tiny.as_if_trained(rank.adapter.parameters(), scale=0.3)
    retrieve = tiny.retrieval(foundation, list(ITEMS.values()), "movielens")
    retrieve.blend = fit((one.user, one.item, one.value >= 4) for one in EVENTS)
    return retrieve, rank


@pytest.fixture
def recommender(models):
    return Recommender(*models, Log(events=EVENTS, items=ITEMS, users=USERS), observed())


def placement(recommender, **asked):
    found = recommender.inspect(InspectRequest(**asked)).placement
    assert found is not None
    return found


def ids(ranked):
    return [one.item.id for one in ranked]


@pytest.mark.parametrize("user", ["u0", "u3", "nobody"])
def test_an_item_stands_where_the_recommendation_has_it(recommender, user):
    page = recommender.recommend(user, 100)
    for place in (0, 3, len(page.items) - 1):
        one = page.items[place]
        found = placement(recommender, user=user, item=one.item.id)
        assert (found.rank, found.retrieved, found.filtered_by) == (place + 1, True, ())
        assert found.score == pytest.approx(one.score, abs=1e-5)


@pytest.mark.parametrize(("user", "history"), [("u0", ()), ("u3", LIKE), ("", LIKE), ("nobody", ())])
def test_what_a_device_ranks_by_has_the_order_of_the_recommendation(recommender, models, user, history):
    filters = Filters(exclude_categories=("War",))
    told = recommender.ranking_inputs(Request(user=user, history=history, filters=filters, count=3, diversity=1.0))
    count = len(told.candidates)
    row = Example(
        context=told.context,
        visible=np.full(count, len(told.context)),
        candidates=tuple(one.segments for one in told.candidates),
        features=np.array([one.features for one in told.candidates], np.float32),
        labels=np.zeros(count, np.int64),
        events=np.zeros(count, np.int64),
        event_features=np.array(told.event_features, np.float32).reshape(-1, len(EVENT_FEATURES)),
    )
    [scores] = models[1].scores([row]).reshape(1, -1)
    by_score = [told.candidates[place].item.id for place in np.argsort(-scores, kind="stable")]
    assert bool(told.orders) == (user == "nobody")
    order = reciprocal_rank_fusion([*told.orders, by_score]) if told.orders else by_score
    assert order[:100] == ids(recommender.recommend(user, 100, filters=filters, history=history).items)
    rank = models[1]
    assert (told.model, told.tuning) == (rank.foundation.model.id, rank.adapter.digest())


def test_what_a_filter_leaves_out_is_told_with_the_place_it_would_have(recommender):
    seen = EVENTS[0].item
    assert seen not in ids(recommender.recommend("u0", 100).items)
    assert placement(recommender, user="u0", item=seen).filtered_by == ("seen",)
    assert placement(recommender, user="u0", item=seen, filters=Filters(seen=True)).filtered_by == ()
    filters = Filters(categories=("War",), exclude=frozenset({"i3"}), ranges={"year": (2000, 2100)})
    found = placement(recommender, user="u0", item="i3", filters=filters)
    assert found.filtered_by == ("exclude", "categories", "ranges")
    hidden = Filters(exclude_categories=("Drama", "War"))
    assert placement(recommender, user="u0", item="i3", filters=hidden).filtered_by == ("exclude_categories",)
    assert found.retrieval_rank is not None
    assert found.rank <= found.num_ranked


def test_what_is_not_retrieved_is_told_with_its_place(recommender):
    retrieved = ids(recommender.retrieve("u1", 1_000))
    missed = retrieved[-1]
    assert len(retrieved) > 100
    found = placement(recommender, user="u1", item=missed)
    assert (found.retrieved, found.retrieval_rank, found.num_ranked) == (False, len(retrieved), 101)
    scores = {one.item.id: one.score for one in recommender.rank("u1", [*retrieved[:100], missed]).items}
    assert found.rank == 1 + sum(score > scores[missed] for score in scores.values())


def test_the_sources_add_up_to_the_retrieval_score(recommender, models):
    retrieved = recommender.retrieve("u2", 1_000)
    by_text = ids(recommender.retrieve("u2", 1_000, source="text"))
    assert by_text != ids(retrieved)
    for one in (retrieved[0], retrieved[50]):
        sources = placement(recommender, user="u2", item=one.item.id).sources
        assert sum(source.score for source in sources) == pytest.approx(one.score, rel=2e-3)
        assert sources[0].source == "text"
        assert sources[0].rank == by_text.index(one.item.id) + 1
        assert {source.source for source in sources} <= {"text", *models[0].blend.arrays}


def test_the_base_score_is_that_of_the_numbers_alone(recommender, models):
    rank = models[1]
    row = ask(rank.task, observed(), USERS["u1"], [ITEMS["i60"]], rank.domain, ITEMS)
    base, text = (part[0].double().numpy() for part in rank.logits([row]))
    found = placement(recommender, user="u1", item="i60")
    for score, logits in ((found.base_score, base), (found.score, base + text)):
        assert score == pytest.approx(np.exp(logits)[1] / np.exp(logits).sum(), abs=1e-5)
    assert found.score != pytest.approx(found.base_score, abs=1e-6)


def plain(inspection):
    """The texts as segments."""
    return tuple(Segment(one.text, one.slot) for one in inspection.segments)


def test_the_texts_are_those_that_the_model_reads_and_nothing_is_kept(recommender, models):
    rank, before = models[1], recommender.get_user("u1")
    row = ask(rank.task, observed(), USERS["u1"], [ITEMS["i60"]], rank.domain, ITEMS)
    whole = plain(recommender.inspect(InspectRequest(user="u1", item="i60", history=LIKE)))
    end = len(row.context)
    assert whole[:end] == row.context
    assert "Film 100" in whole[end].text
    assert whole[end + 1 :] == row.candidates[0]
    alone = recommender.inspect(InspectRequest(user="u1"))
    assert (plain(alone), alone.placement) == (row.context, None)
    assert recommender.inspect(InspectRequest(user="new", history=LIKE)).segments
    assert recommender.get_user("u1") == before
    assert "new" not in recommender.find_users("", 100)


def cached(recommender, **request):
    return [one.cached for one in recommender.inspect(InspectRequest(user="u1", **request)).segments]


def test_it_is_told_where_the_state_of_each_text_is(recommender, models):
    cache = models[1].cache
    context = [one.text for one in recommender.inspect(InspectRequest(user="u1")).segments]
    cache.forget(context)
    assert cached(recommender) == ["absent"] * len(context)
    assert cached(recommender) == ["absent"] * len(context)  # asking computes nothing
    cache.fetch(context[:2])
    assert cached(recommender) == ["memory"] * 2 + ["absent"] * (len(context) - 2)
    recommender.rank("u1", ["i60"])
    assert cached(recommender) == ["context"] * len(context)
    *before, item = cached(recommender, item="i60")
    assert (before, item) == (["context"] * len(context), "memory")
    assert "context" not in cached(recommender, history=LIKE)  # which is asked by the way
    recommender.ingest([Event("u1", "i61", 2_000_000_000 - 400_000_000, 5.0)])
    *before, fresh = cached(recommender)
    assert (set(before), fresh) == ({"context"}, "absent")


def test_unknown_items_are_refused(recommender):
    for asked in (
        lambda: recommender.inspect(InspectRequest(user="u0", item="i999")),
        lambda: recommender.neighbours("i999"),
        lambda: recommender.get_item("i999"),
    ):
        with pytest.raises(UnknownError, match="'i999'"):
            asked()


def test_neighbours_by_text_and_by_behaviour(recommender, models):
    vectors = models[0].item_vectors(list(ITEMS.values()))
    nearest = [f"i{n}" for n in np.argsort(-vectors @ vectors[21]) if n != 21][:5]
    assert ids(recommender.neighbours("i21", 5)) == nearest
    by_behaviour = ids(recommender.neighbours("i21", 5, by="behaviour"))
    assert len(by_behaviour) == 5
    assert by_behaviour != nearest
    assert "i21" not in by_behaviour
    assert recommender.neighbours("i129", 5, by="behaviour") == []  # nobody liked it
    recommender.delete(by_behaviour[:1])
    assert ids(recommender.neighbours("i21", 4, by="behaviour")) == by_behaviour[1:]


def test_a_draft_lands_where_it_does_once_it_is_stored(recommender, models):
    draft = Item("draft", "Film 7 and more", ("Drama",), {"year": 2001})
    before = models[0].cache.statistics().misses
    landed = ids(recommender.neighbours(draft, 5))
    assert models[0].cache.statistics().misses == before  # what others share takes no draft in
    assert recommender.find_items(ids=["draft"]) == []
    recommender.upsert([draft])
    assert ids(recommender.neighbours("draft", 5)) == landed
    with pytest.raises(DataError, match="no id"):
        recommender.neighbours(Item("", ""))


def test_candidates_by_text_alone_and_what_is_liked_most(recommender):
    assert ids(recommender.retrieve("u0", 5, source="text", history=LIKE)) != ids(
        recommender.retrieve("u0", 5, source="text")
    )
    popular = recommender.retrieve("u0", 5, source="popular", filters=Filters(seen=True))
    likes = [sum(one.item == item and one.value >= 4 for one in EVENTS) for item in ids(popular)]
    assert likes == sorted(likes, reverse=True)
    assert not set(ids(recommender.retrieve("u0", 50, source="popular"))) & {one.item for one in EVENTS[::6]}


def test_items_are_found_by_words_and_ids_the_most_liked_first(recommender):
    found = [one.id for one in recommender.find_items("fil", 100)]
    assert len(found) == 100
    likes = Counter(one.item for one in EVENTS if one.value >= 4)
    assert [likes[item] for item in found] == sorted((likes[item] for item in found), reverse=True)
    assert recommender.find_items()[0].id == ids(recommender.retrieve("", 1, source="popular"))[0]
    assert {one.id for one in recommender.find_items("film 12", 100)} == {"i12", *(f"i12{n}" for n in range(10))}
    assert recommender.find_items("i17", 1)[0].id == "i17"
    assert recommender.find_items("film nothing") == []
    assert [one.id for one in recommender.find_items(ids=["i5", "gone", "i2"])] == ["i5", "i2"]
    assert {one.id for one in recommender.find_items("", 1_000)} == set(ITEMS)
    recommender.upsert([Item("new", "Ça ira, 霸王别姬")])
    for query in ("ca", "ÇA IR", "霸王", "别姬 ira"):
        assert [one.id for one in recommender.find_items(query)] == ["new"]
    recommender.upsert([Item("new", "Another")])
    assert recommender.find_items("霸王") == []
    recommender.delete(["new"])
    assert recommender.find_items("another") == []


def test_users_are_found_by_the_beginning_of_their_ids(recommender):
    assert recommender.find_users("U", 3) == ["u0", "u1", "u2"]
    recommender.ingest([Event("Ulla", "i1", 5)])
    recommender.put_user(User("ulf%"))
    assert recommender.find_users("ul") == ["ulf%", "Ulla"]
    assert recommender.find_users("ulf%") == ["ulf%"]
    recommender.forget("Ulla")
    assert recommender.find_users("ul") == ["ulf%"]


def test_few_people_are_not_counted(recommender):
    fans = [Event(f"fan{n}", "i120", 200 + n, 5.0) for n in range(MIN_CROWD)]
    recommender.ingest(fans[:-1])
    assert recommender.get_item("i120") == (ITEMS["i120"], None)
    recommender.ingest(fans[-1:])
    assert recommender.get_item("i120") == (ITEMS["i120"], MIN_CROWD)


def test_reasons_heed_what_is_told_with_the_request(recommender):
    told = tuple(Event("", f"i{n}", 0, kind="like") for n in (0, 3, 6))
    about = ("i9", "i12", "i15", "i21", "i28")
    assert any(recommender.explain("", one) != recommender.explain("", one, history=told) for one in about)


def test_a_search_index_takes_any_text():
    index = SearchIndex([Item("a", 'Say "Hi" OR NOT (this)'), Item("b", "")], ["x"])
    for query in ('"', 'say "hi', "NOT", "title:", "*", "a AND", "\x00", "-", "OR", "\U0010ffff"):
        assert set(index.items(query, 5)) <= {"a"}
        assert index.users(query, 5) == []
    assert index.items('"hi"', 5) == ["a"]
    index.put_items([Item("a", "twice"), Item("a", "Other")])
    assert index.items("say", 5) == index.items("twice", 5) == []
    assert index.items("oth", 5) == ["a"]
