"""Logs as people bring them, made up: seven kinds, each with tastes that can be learned.

Half of what a user does follows two kinds of items that they like, the rest is chance.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

START = 1_700_000_000
_ENGLISH = {
    "Drama": "Letters Winter Silence House River Promise",
    "Comedy": "Cousins Holiday Wedding Parrot Neighbours Pancakes",
    "Horror": "Cellar Whispers Doll Midnight Grave Fog",
    "Science fiction": "Orbit Android Colony Starship Signal Vacuum",
    "Western": "Saddle Canyon Sheriff Dust Outlaw Mesa",
    "Crime": "Heist Witness Detective Alibi Verdict Harbour",
}
_FOREIGN = {
    "Драма": "Письма Зима Тишина Дом Река Обещание",
    "コメディ": "いとこ 休日 結婚式 おうむ 隣人 ホットケーキ",
    "Épouvante": "Cave Murmures Poupée Minuit Tombe Brouillard",
    "科幻": "轨道 机器人 殖民地 星舰 信号 真空",
    "Wüste": "Sättel Schlucht Sheriff Staub Räuber Hügel",
    "جريمة": "سرقة شاهد محقق حجة حكم ميناء",
}


@dataclass(frozen=True, kw_only=True)
class _World:
    rng: np.random.Generator
    titles: Sequence[str]
    kinds: Sequence[str]
    tastes: Sequence[frozenset[str]]

    def events(self, count: int) -> Iterator[tuple[int, int, int, bool]]:
        """(user, item, time, whether the user likes such items), no pair twice."""
        rng, met = self.rng, set()
        weights = 1 / np.arange(1, len(self.titles) + 1) ** 0.6
        items = rng.permutation(len(self.titles))
        time = START
        while count:
            user = int(rng.integers(len(self.tastes)))
            item = int(items[rng.choice(len(items), p=weights / weights.sum())])
            liked = self.kinds[item] in self.tastes[user]
            if (user, item) in met or (not liked and rng.random() < 0.6):
                continue
            met.add((user, item))
            time += int(rng.integers(1, 4_000))
            count -= 1
            yield user, item, time, liked


def _world(num_users: int, num_items: int, words: Mapping[str, str] = _ENGLISH, seed: int = 0) -> _World:
    rng = np.random.default_rng(seed)
    names = list(words)
    kinds = [names[n % len(names)] for n in range(num_items)]
    titles = []
    for number, kind in enumerate(kinds):
        first, second = rng.choice(words[kind].split(), 2, replace=False)
        titles.append(f"{first} {second} {number}")
    tastes = [frozenset(rng.choice(names, 2, replace=False).tolist()) for _ in range(num_users)]
    return _World(rng=rng, titles=titles, kinds=kinds, tastes=tastes)


def _write(path: Path, header: str, rows: Iterator[tuple[object, ...]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header.split(","))
        writer.writerows(rows)
    return path


def stars(folder: Path, *, num_events: int = 4_000) -> list[str]:
    """One to five stars with titles, in one table."""
    world = _world(150, 120)
    rows = (
        (f"u{user}", 100 + item, int(world.rng.integers(3, 6) if liked else world.rng.integers(1, 5)), time,
         world.titles[item], world.kinds[item])
        for user, item, time, liked in world.events(num_events)
    )  # fmt: skip
    return [str(_write(folder / "ratings.csv", "userId,movieId,rating,timestamp,movie_title,genres", rows))]


def implicit(folder: Path, *, num_events: int = 4_000) -> list[str]:
    """Four columns, every event positive."""
    world = _world(150, 120)
    rows = ((f"u{u}", f"i{i}", time, world.titles[i]) for u, i, time, _ in world.events(num_events))
    return [str(_write(folder / "events.csv", "user,item,time,title", rows))]


def impressions(folder: Path, *, num_events: int = 4_000) -> list[str]:
    """Five articles that were shown together, of which some were clicked; articles in a table of their own."""
    world = _world(150, 120)

    def shown() -> Iterator[tuple[object, ...]]:
        rng, time = world.rng, START
        for number in range(num_events // 5):
            user, time = int(rng.integers(150)), time + int(rng.integers(1, 900))
            for item in rng.choice(120, 5, replace=False).tolist():
                likely = 0.5 if world.kinds[item] in world.tastes[user] else 0.1
                yield f"u{user}", f"n{item}", time, int(rng.random() < likely), f"imp-{number}"

    news = (
        (f"n{n}", title, kind, f"More about {title}.")
        for n, (title, kind) in enumerate(zip(world.titles, world.kinds, strict=True))
    )
    return [
        str(_write(folder / "shown.csv", "user_id,item_id,timestamp,clicked,impression_id", shown())),
        str(_write(folder / "news.csv", "item_id,title,category,description", news)),
    ]


def shop(folder: Path, *, num_events: int = 4_000) -> list[str]:
    """Views, carts, purchases and searches of a shop, its products with a price and a description, its customers."""
    world = _world(150, 120)

    def behaviours() -> Iterator[tuple[object, ...]]:
        for user, item, time, liked in world.events(num_events):
            yield f"c{user}", f"sku-{item:04}", "view", time, ""
            if liked and world.rng.random() < 0.6:
                yield f"c{user}", f"sku-{item:04}", "addToCart", time + 20, ""
                if world.rng.random() < 0.6:
                    yield f"c{user}", f"sku-{item:04}", "purchase", time + 60, ""
            if world.rng.random() < 0.1:
                yield f"c{user}", "", "search", time - 5, world.titles[item].split()[0].lower()

    products = (
        (
            f"sku-{n:04}",
            title,
            kind,
            round(float(5 + world.rng.random() * 95), 2),
            f"A fine {title.split()[0].lower()}.",
        )
        for n, (title, kind) in enumerate(zip(world.titles, world.kinds, strict=True))
    )
    customers = ((f"c{n}", int(world.rng.integers(18, 80)), "Oslo") for n in range(150))
    return [
        str(_write(folder / "behaviour.csv", "customer_id,sku,event_type,ts,query", behaviours())),
        str(_write(folder / "products.csv", "sku,product_name,category,price,description", products)),
        str(_write(folder / "customers.csv", "customer_id,age,city", customers)),
    ]


def no_time(folder: Path, *, num_events: int = 4_000) -> list[str]:
    """Ratings without a time."""
    world = _world(150, 120)
    rows = (
        (
            f"u{user}",
            f"i{item}",
            int(world.rng.integers(3, 6) if liked else world.rng.integers(1, 5)),
            world.titles[item],
        )
        for user, item, _, liked in world.events(num_events)
    )
    return [str(_write(folder / "likes.csv", "user_id,item_id,stars,title", rows))]


def small(folder: Path, *, num_events: int = 3_000) -> list[str]:
    """200 users and 100 items."""
    world = _world(200, 100)
    rows = ((u, i, time, world.titles[i], world.kinds[i]) for u, i, time, _ in world.events(num_events))
    return [str(_write(folder / "small.csv", "user,item,time,title,category", rows))]


def foreign(folder: Path, *, num_events: int = 4_000) -> list[str]:
    """Titles and genres in six other languages and scripts."""
    world = _world(150, 120, _FOREIGN)
    rows = (
        (f"пользователь-{u}", f"品-{i}", time, world.titles[i], world.kinds[i])
        for u, i, time, _ in world.events(num_events)
    )
    return [str(_write(folder / "événements.csv", "user,item,time,title,category", rows))]


def million(folder: Path, *, num_events: int = 1_000_000, num_users: int = 6_040, num_items: int = 3_706) -> list[str]:
    """One to five stars with titles; events, users and items are as many as those of MovieLens-1M."""
    world = _world(num_users, num_items)
    rng, names = world.rng, sorted(_ENGLISH)
    kind_I = np.array([names.index(kind) for kind in world.kinds])
    likes_UK = np.array([[name in taste for name in names] for taste in world.tastes])
    weight_I = rng.permutation(1 / np.arange(1, num_items + 1) ** 0.6)
    drawn = 4 * num_events
    events = pl.DataFrame(
        {
            "userId": rng.integers(num_users, size=drawn),
            "movieId": rng.choice(num_items, drawn, p=weight_I / weight_I.sum()),
        }
    )
    events = events.with_columns(liked=pl.Series(likes_UK[events["userId"], kind_I[events["movieId"]]]))
    events = events.filter(pl.col("liked") | (pl.Series(rng.random(drawn)) < 0.4))
    events = events.unique(["userId", "movieId"], keep="first", maintain_order=True).head(num_events)
    stars_N = np.where(events["liked"], rng.integers(3, 6, len(events)), rng.integers(1, 5, len(events)))
    events = events.with_columns(rating=stars_N, timestamp=START + rng.integers(1, 200, len(events)).cumsum())
    events.drop("liked").write_csv(folder / "ratings.csv")
    films = pl.DataFrame({"movieId": np.arange(num_items), "title": world.titles, "genres": world.kinds})
    films.write_csv(folder / "movies.csv")
    return [str(folder / "ratings.csv"), str(folder / "movies.csv")]


KINDS: Mapping[str, Callable[..., list[str]]] = {
    "stars": stars, "implicit": implicit, "impressions": impressions, "shop": shop, "no_time": no_time, "small": small,
    "foreign": foreign,
}  # fmt: skip
"""Each writes its tables into a folder and returns their paths, as ``m6rec init`` takes them."""
