import gzip

import pytest

from m6rec.domains.domain import load
from m6rec.domains.steam import DOMAIN
from m6rec.errors import DataError
from m6rec.types import Event

# As published, with Python 2's marks of text.
REVIEWS = """\
{u'username': u'Zoë', u'hours': 0.1, u'product_id': u'725280', u'date': u'2017-12-17', u'text': u"It's \\"fine\\"", u'user_id': u'7656'}
{u'username': u'Ann', u'product_id': u'328100', u'date': u'2017-08-02', u'text': u'', u'early_access': False}
{u'username': u'Ann', u'product_id': u'328100', u'date': u'2017-08-02', u'text': u'', u'early_access': False}
"""  # noqa: E501
GAMES = """\
{u'genres': [u'Action', u'Indie'], u'app_name': u'Lost Kitty', u'price': 4.99, u'id': u'725280', u'developer': u'Kotoshiro', u'sentiment': u'Mixed'}
{u'tags': [u'RPG'], u'title': u'Realm', u'price': u'Free To Play', u'id': u'328100'}
{u'app_name': u'No id'}
"""  # noqa: E501


def test_reviews_are_signs_of_play(tmp_path):
    for name, text in (("reviews", REVIEWS), ("games", GAMES)):
        (tmp_path / f"{name}.json.gz").write_bytes(gzip.compress(text.encode()))
    log = load(DOMAIN, tmp_path / "reviews.json.gz", tmp_path / "games.json.gz")
    assert log.events == (
        Event("Ann", "328100", 1_501_632_000, 1),
        Event("7656", "725280", 1_513_468_800, 1, 'It\'s "fine"'),
    )
    assert log.dropped == {"events: an earlier one is the same in all": 1}
    words = [f"The user {DOMAIN.action(event, DOMAIN.item(log.items[event.item]))}." for event in log.events]
    assert words == [
        'The user played the game "Realm" (RPG, free).',
        'The user played the game "Lost Kitty" by "Kotoshiro" (Action and Indie, under $5).',
    ]
    assert all(DOMAIN.positive(event) for event in log.events)


def test_without_games_and_with_a_line_that_runs_code(tmp_path):
    path = tmp_path / "reviews.json"
    path.write_text(REVIEWS, encoding="utf-8")
    assert {DOMAIN.item(item) for item in load(DOMAIN, path).items.values()} == {"the game"}
    path.write_text(REVIEWS + "{u'user_id': __import__('os').getcwd()}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"reviews\.json: line 4 can't be read.*give reviews of Steam"):
        load(DOMAIN, path)
