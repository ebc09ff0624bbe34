"""Games that were reviewed on Steam, each review a sign of play: version 2 of the set (Kang & McAuley, ICDM 2018).

``load`` takes ``steam_reviews.json.gz`` and, where there is one, ``steam_games.json.gz``, both Python literals. A
review names a day and no verdict, so each is a like; a user without an id goes by name. Hours of play and a game's
sentiment were counted when the page was fetched, know the future, and are left out.
"""

import re
from pathlib import Path

import polars as pl

from m6rec.data.log import Log
from m6rec.domains.domain import Domain
from m6rec.domains.genres import GENRES
from m6rec.domains.reviews import Record, read_reviews
from m6rec.text.verbalise import choice, cost, listed, quote
from m6rec.types import Item


def _load(reviews: Path, games: Path | None = None) -> Log:
    return read_reviews("Steam", reviews, _review, games, _describe, {"developer": pl.String, "price": pl.Float64})


def _review(row: Record) -> tuple[object, ...]:
    return row.get("user_id") or row["username"], row["product_id"], row["date"], 1.0, row["text"]


def _describe(row: Record) -> tuple[object, ...]:
    asked = row.get("price")  # a number, or words such as "Free to Play"
    amount = 0.0 if re.match("(?i)free", str(asked)) else asked if isinstance(asked, float | int) else None
    title = row.get("app_name") or row.get("title")
    return row.get("id"), title, row.get("genres") or row.get("tags"), row.get("developer"), amount


def _item(item: Item) -> str:
    title = f" {quote(item.title)}" if item.title != item.id else ""
    maker = f" by {quote(str(item.details['developer']))}" if "developer" in item.details else ""
    facts = ", ".join(filter(None, (listed(item.categories[:3]), cost(item.details.get("price")))))
    return f"the game{title}{maker}" + (f" ({facts})" if facts else "")


DOMAIN = Domain(
    name="steam",
    noun="game",
    synonyms=GENRES,
    assets=(),
    load=_load,
    item=_item,
    user=lambda user: "",
    rating=choice("played", "passed over"),
    happened="played {}",
    values=(0, 1),
)
