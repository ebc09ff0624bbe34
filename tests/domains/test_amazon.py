import gzip
import json

import pytest

from m6rec.domains.amazon import DOMAIN
from m6rec.domains.domain import load
from m6rec.errors import ConfigError, DataError
from m6rec.types import Event

OLD = [
    {"reviewerID": "U2", "asin": "B1", "overall": 2.0, "unixReviewTime": 90, "summary": "good",
     "reviewText": "It does."},
    {"reviewerID": "U1", "asin": "B2", "overall": 5.0, "unixReviewTime": 80, "reviewText": "Best", "style": {"a": "b"}},
    {"reviewerID": "U1", "asin": "B2", "overall": 5.0, "unixReviewTime": 80, "reviewText": "Best"},
]  # fmt: skip
NEW = [
    {"user_id": "U2", "parent_asin": "B1", "asin": "V7", "rating": 2.0, "timestamp": 90_500, "title": "good",
     "text": "It does."},
    {"user_id": "U1", "parent_asin": "B2", "rating": 5.0, "timestamp": 80_999, "title": "", "text": "Best"},
    {"user_id": "U1", "parent_asin": "B2", "rating": 5.0, "timestamp": 80_000, "title": "", "text": "Best"},
]  # fmt: skip
PRODUCTS = {
    "2014": [
        {"asin": "B1", "title": "Rock &amp; Roll", "brand": "OPI", "price": 4.5, "categories": [["Beauty", "Nails"]]},
        {"asin": "B0", "title": "Never reviewed", "categories": [["Beauty"]]},
        {"asin": "B2", "categories": [["Beauty"]], "salesRank": {"Beauty": 3}},
    ],
    "2018": [
        {"asin": "B1", "title": "Rock & Roll", "brand": "OPI", "price": "$4.50", "category": ["Beauty", "Nails"],
         "rank": "7 in Beauty"},
        {"asin": "B1", "title": "Again", "brand": "", "price": "", "category": []},
        {"asin": "B2", "title": "", "brand": "", "price": ".a-box{background-color:#fff}", "category": ["Beauty"]},
    ],
    "2023": [
        {"parent_asin": "B1", "title": "Rock & Roll", "store": "OPI", "price": 4.5, "categories": ["Beauty", "Nails"],
         "average_rating": 4.9},
        {"parent_asin": "B2", "title": None, "store": None, "price": None, "categories": ["Beauty"]},
    ],
}  # fmt: skip


def write(path, rows, how=json.dumps):
    text = "".join(how(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


@pytest.mark.parametrize("year", PRODUCTS)
def test_three_years_give_one_log(tmp_path, year):
    reviews = write(tmp_path / "reviews.json.gz", NEW if year == "2023" else OLD)
    products = write(tmp_path / "meta.json.gz", PRODUCTS[year], repr if year == "2014" else json.dumps)
    log = load(DOMAIN, reviews, products)
    assert log.events == (Event("U1", "B2", 80, 5, "Best"), Event("U2", "B1", 90, 2, "good\nIt does."))
    assert log.dropped == {"events: an earlier one is the same in all": 1}
    words = [f"The user {DOMAIN.action(event, DOMAIN.item(log.items[event.item]))}." for event in log.events]
    assert words == [
        'The user loved the product of category "Beauty".',
        'The user disliked the product of category "Nails" named "Rock & Roll" by "OPI", under $5.',
    ]
    assert log.items["B1"].categories == ("Nails", "Beauty")
    assert set(log.items) == {"B1", "B2"}
    assert [DOMAIN.positive(event) for event in log.events] == [True, False]


def test_without_metadata_the_words_name_no_asin(tmp_path):
    log = load(DOMAIN, write(tmp_path / "reviews.json", OLD))
    assert DOMAIN.item(log.items["B1"]) == "the product"
    assert log.items["B1"].title == "B1"  # for a person


@pytest.mark.parametrize(
    ("published", "amount"),
    [("$1,234.50", 1234.5), ("$8.99 - $14.99", 8.99), (None, None), ("from 12.99", None), ("—", None), (0.0, 0.0)],
)
def test_prices_as_they_are_published(tmp_path, published, amount):
    product = {"asin": "B1", "title": "T", "price": published, "category": []}
    log = load(DOMAIN, write(tmp_path / "r.json", OLD[:1]), write(tmp_path / "m.json", [product]))
    assert log.items["B1"].details.get("price") == amount


def test_what_is_wrong_is_named(tmp_path):
    reviews = write(tmp_path / "reviews.json", [OLD[0], {"reviewerID": "U", "asin": "B"}])
    with pytest.raises(DataError, match=r"reviews\.json: line 2 lacks 'unixReviewTime'; give reviews of Amazon"):
        load(DOMAIN, reviews)
    write(tmp_path / "reviews.json", OLD)
    with pytest.raises(DataError, match=r"meta\.json: line 1 lacks 'asin'; give descriptions of what was reviewed"):
        load(DOMAIN, reviews, write(tmp_path / "meta.json", [{"title": "T"}]))
    with pytest.raises(ConfigError, match="'amazon' can't be read from 3 paths"):
        load(DOMAIN, reviews, reviews, reviews)
