import json
from dataclasses import replace

import pytest

from m6rec.data.log import Log
from m6rec.errors import ConfigError, UnknownError
from m6rec.features.interactions import InteractionStore
from m6rec.foundation.generate import Engine, Generated, Prompt, Sampling
from m6rec.language.safety import Blocklist
from m6rec.readouts import GenerateModel, ScoreModel, TaskModelConfig
from m6rec.serving import creating
from m6rec.serving.backend import GenerationRequest
from m6rec.serving.item_index import ItemIndex
from m6rec.serving.recommender import Recommender
from m6rec.serving.text_model_pool import TextModelPool
from m6rec.tasks import design
from m6rec.types import Draft, Event, Item, User
from tests import tiny
from tests.tiny import Tunings

TITLES = ("Alien", "Blade Runner", "Cube", "Dune", "Emma", "Fargo")
ITEMS = {
    f"i{n}": Item(f"i{n}", title, () if n == 5 else (("Sci-Fi", "Drama")[n % 2],)) for n, title in enumerate(TITLES)
}
EVENTS = tuple(Event(f"u{u}", f"i{i}", 6 * u + i, 1.0) for u in range(7) for i in range(3 if u else 2))
USERS = {f"u{n}": User(f"u{n}", {"age": 24} if not n else {}) for n in range(7)} | {"new": User("new")}
LOG = Log(events=EVENTS, items=ITEMS, users=USERS)


@pytest.fixture(scope="module")
def tunings():
    foundation = tiny.foundation()
    foundation.model.embed_tokens.weight.mul_(0.2)  # so that it isn't sure of anything
    foundation.model.config = replace(foundation.model.config, end_ids=(0,))
    rank = ScoreModel.create(TaskModelConfig(task="like", domain="generic", foundation="tiny"), foundation)
    return tiny.retrieval(foundation, list(ITEMS.values()), "generic"), rank


@pytest.fixture
def make(tunings: Tunings):
    def made(**options):
        interactions = InteractionStore(ITEMS, tunings[1].domain.feedback).update_all(EVENTS)
        return Recommender(*tunings, LOG, interactions, **options)

    return made


@pytest.fixture
def recommender(make):
    return make()


def says(monkeypatch, *words, reason="stop"):
    """Lets the model write these words, the likeliest first; returns the drafts that it is given."""
    drafts = []

    def write(self, task, given, sampling, constraints=()):
        drafts.extend(given)
        yield ""
        if task == "headline":
            return [Generated(words[0], (1,), -1.0, reason)] * len(given)
        return [Generated(text, (1,), -float(place), reason) for place, text in enumerate(words)]

    monkeypatch.setattr(TextModelPool, "write", write)
    return drafts


def test_every_design_of_the_catalogue_exists_and_is_new_to_the_user(recommender):
    """The tiny model is random, so nothing but the constraint lets it name an item."""
    found = [one for n in range(7) for one in recommender.create(f"u{n}", "design", count=10, catalogue=True)]
    assert {one.source for one in found} == {"model"}
    assert len({one.item for one in found}) > 2
    for one in found:
        assert ITEMS[one.item].title == one.text
        assert one.category in (*ITEMS[one.item].categories, design.OTHER)
    for n in range(7):
        seen = {event.item for event in EVENTS if event.user == f"u{n}"}
        assert not seen & {one.item for one in recommender.create(f"u{n}", "design", count=10, catalogue=True)}


def test_a_given_category_is_kept(recommender):
    for one in recommender.create("new", "design", category="Drama", count=10, catalogue=True):
        assert "Drama" in ITEMS[one.item].categories
        assert one.category == "Drama"
    with pytest.raises(UnknownError, match="Western"):
        recommender.create("u0", "design", category="Western")


def test_what_may_be_named_follows_the_catalogue(recommender):
    recommender.create("u1", "design", category="Drama", count=10, catalogue=True)
    recommender.upsert([Item("fresh", "Storm", ("Drama",))])
    recommender.delete(["i1", "i3"])
    assert [one.item for one in recommender.create("u1", "design", category="Drama", count=3, catalogue=True)] == [
        "fresh"
    ]


def test_a_free_design_has_a_category_of_the_catalogue(recommender, monkeypatch):
    drafts = says(monkeypatch, 'Drama" named "The Long Rain"', 'Sci-Fi" named "Orbit"')
    first, second = recommender.create("u0", "design", count=2)
    assert (first.text, first.category, first.source, first.item) == ("The Long Rain", "Drama", "model", None)
    assert (second.text, second.category) == ("Orbit", "Sci-Fi")
    lead = (
        "Of the items that the user likes, 50% are Sci-Fi, 50% are Drama. "
        'Lately the user liked "Alien" and "Blade Runner". '
    )
    assert drafts[0].prompt == f'{lead}The user now likes another item of category "'
    met = [segment.text.split('"')[3] for segment in drafts[0].context if segment.slot == "history"]
    assert met == ["Alien", "Blade Runner"]
    given = says(monkeypatch, 'Orbit"')
    assert recommender.create("u0", "design", category="Drama")[0].category == "Drama"
    assert given[0].prompt.endswith('of category "Drama" named "')


def test_a_refused_text_gives_way_to_the_next_and_says_why(recommender, monkeypatch):
    says(monkeypatch, 'Drama" named "Alien"', 'Drama" named "24 Hours"', 'Drama" named "Sh1t"', 'Drama" named "Orbit"')
    (made,) = recommender.create("u0", "design")
    assert (made.text, made.source) == ("Orbit", "model")
    assert made.rejected == (
        "it echoes a title of the user's history",
        "it echoes what is known of the user",
        "it holds a blocked word",
    )


def test_where_all_is_refused_a_template_stands_in(recommender, monkeypatch):
    says(monkeypatch, 'Sci-Fi" named "Alien"')
    (made,) = recommender.create("u0", "design", count=3)
    assert (made.text, made.source, made.category) == ("Untitled item", "template", "Sci-Fi")
    assert made.rejected == ("it echoes a title of the user's history",)
    says(monkeypatch, 'Sci-Fi" named "Alien', reason="length")
    named = recommender.create("u0", "design", count=2, catalogue=True)
    assert [one.source for one in named] == ["template", "template"]
    assert not {one.item for one in named} & {"i0", "i1"}
    says(monkeypatch, 'blade runner again"')
    assert [one.text for one in recommender.create("u0", "query", count=5)] == ["sci-fi items", "drama items"]
    assert recommender.create("new", "query")[0].text == "blade runner again"  # no title of theirs


def test_a_text_without_an_end_is_not_shown(recommender, monkeypatch):
    says(monkeypatch, "orbit and then", reason="length")
    (made,) = recommender.create("u0", "query")
    assert (made.source, made.rejected) == ("template", ("it has no end",))


def test_queries_are_lines_without_quotes(recommender):
    made = recommender.create("u0", "query", count=10)
    assert 1 <= len(made) <= 10
    assert len({one.text for one in made}) == len(made)
    for one in made:
        assert '"' not in one.text
        assert one.text == one.text.strip()
        assert len(one.text) <= 60


def test_a_headline_names_the_item_and_says_what_holds(recommender, monkeypatch):
    says(monkeypatch, " people liked it")
    (made,) = recommender.create("u0", "headline", item="i2")
    assert (made.text, made.source, made.item) == ('"Cube": People liked it.', "model", "i2")
    says(monkeypatch, " you will be rich")
    (made,) = recommender.create("u0", "headline", item="i2")
    assert made.source == "template"
    assert made.text.startswith('"Cube": ')
    assert "people" in made.text
    assert made.rejected
    (made,) = recommender.create("new", "headline", item="i5")
    assert (made.text, made.source) == ('"Fargo": Picked for you.', "template")


def test_an_operator_blocks_words_even_of_the_catalogue(make):
    recommender = make(blocked=Blocklist(["cube", "drama", "fargo", "emma"]))
    found = recommender.create("new", "design", count=10, catalogue=True)
    assert {one.text for one in found} <= {"Alien"}
    assert recommender.create("new", "headline", item="i5")[0].text == "Picked for you."
    with pytest.raises(UnknownError, match="Drama"):
        recommender.create("u0", "design", category="Drama")


def test_a_tuned_writer_is_used_where_there_is_one(make, tunings: Tunings, monkeypatch):
    rank = tunings[1]
    config = TaskModelConfig(task="query", domain="generic", foundation="tiny", depth=2)
    tuned = GenerateModel.create(config, rank.foundation)
    used = []

    inner = GenerateModel.prompts
    monkeypatch.setattr(GenerateModel, "prompts", lambda self, *given: used.append(self) or inner(self, *given))
    recommender = make(writers={"query": tuned})
    recommender.create("u0", "query")
    recommender.create("u0", "design")
    assert used[0] is tuned
    assert used[1].cache is rank.cache


def test_the_foundation_writes_as_it_is(tunings: Tunings):
    """Without a tuning, what is written is what the foundation alone would go on with."""
    rank = tunings[1]
    words, sampling = "The user now searches", Sampling(max_tokens=8)
    prompts = [Prompt(ids) for ids in rank.foundation.tokenizer.encode([words])]
    alone = Engine(rank.foundation, rank.cache.config.depth).generate(prompts, sampling)
    writers = TextModelPool(rank, {})
    written = []

    def keep():
        written.extend((yield from writers.write("query", [Draft((), words)], sampling)))

    for _ in keep():
        assert writers.active
        writers.step()
    assert not writers.active
    assert [one.ids for one in written] == [one.ids for one in alone]


@pytest.mark.parametrize(
    "given",
    [
        {"kind": "poem"},
        {"kind": "design", "count": 0},
        {"kind": "design", "count": 11},
        {"kind": "design", "item": "i1"},
        {"kind": "headline"},
        {"kind": "query", "category": "Drama"},
        {"kind": "query", "catalogue": True},
        {"kind": "headline", "item": "i1", "catalogue": True},
    ],
    ids=json.dumps,
)
def test_what_can_not_be_meant_is_refused(recommender, given):
    with pytest.raises(ConfigError):
        recommender.create("u0", **given)


def test_unknown_ids_are_told(recommender):
    assert recommender.create("nobody", "query")
    with pytest.raises(UnknownError, match="i99"):
        recommender.create("u0", "headline", item="i99")


def test_what_has_no_title_is_not_designed(tunings: Tunings):
    rank = ScoreModel.create(TaskModelConfig(task="like", domain="peter", foundation="tiny"), tunings[1].foundation)
    creator = creating.Creator(rank, ItemIndex(tunings[0]), TextModelPool(rank, {}), Blocklist())
    request = GenerationRequest(user="u0", kind="design")
    asked = creating.GenerationContext(
        request=request, user=USERS["u0"], history=(), items=ITEMS, live=ITEMS, categories=[]
    )
    with pytest.raises(ConfigError, match="has a title, so none"):
        next(creator.create(asked, InteractionStore(ITEMS, rank.domain.feedback), lambda name: []))


def test_where_the_user_has_met_all_of_a_category_it_is_said(recommender):
    dramas = [item for item in ITEMS.values() if "Drama" in item.categories]
    recommender.ingest([Event("u0", item.id, 999, 1.0) for item in dramas])
    with pytest.raises(UnknownError, match="no item of category 'Drama' left"):
        recommender.create("u0", "design", category="Drama", catalogue=True)
    assert recommender.create("u0", "design", category="Drama")
