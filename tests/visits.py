"""Visits to the page of `m6rec serve` in a real browser: whose data it shows, on which screens, and how one uses it."""

from m6rec.data.log import Log
from m6rec.domains.domain import named
from m6rec.features.interactions import InteractionStore
from m6rec.readouts import EmbedModel, ScoreModel, TaskModelConfig
from m6rec.serving.recommender import Recommender
from m6rec.types import Event, Item, User
from tests import browser, tiny

HOSTILE = '<img src=x onerror="window.hurt = 1"><script>window.hurt = 1</script>'
KINDS = ("Drama", "Comedy", "War")
ITEMS = {f"i{n}": Item(f"i{n}", f"Film {n} ({1980 + n})", (KINDS[n % 3],), {"length": 90 + n}) for n in range(40)}
ITEMS["evil"] = Item("evil", HOSTILE, (HOSTILE,), {"note": HOSTILE})
ITEMS["霸王"] = Item("霸王", "霸王别姬 (1993)", ("Drama",))
USERS = {name: User(name, {"age": 30, "city": HOSTILE}) for name in ("u0", "u1", "u2", "u3", "u4", "u5", HOSTILE)}
EVENTS = tuple(
    Event(f"u{n % 6}", f"i{(5 * n + n % 6) % 30}", 1_000_000 + 86_400 * n, float(1 + n * 3 % 5)) for n in range(150)
) + tuple(Event(f"u{n}", "evil", 2_000_000_000 - 400_000_000 + n, 5.0, text=HOSTILE) for n in range(6))
SCREENS = {"phone, dark": (390, "dark"), "desk, light": (1280, "light")}
ALL_SCREENS = SCREENS | {"phone, light": (390, "light"), "desk, dark": (1280, "dark")}


def models(*, num_layers: int = 4, seed: int = 0) -> tuple[EmbedModel, ScoreModel]:
    """Retrieval and ranking on a tiny foundation; the seed is that of the ranking run."""
    foundation = tiny.foundation(num_layers=num_layers)
    rank = ScoreModel.create(TaskModelConfig(task="like", domain="movielens", foundation="tiny"), foundation)
    tiny.as_if_trained(rank.adapter.parameters(), seed=seed, scale=0.3)
    return tiny.retrieval(foundation, list(ITEMS.values()), "movielens"), rank


def recommender(made: tuple[EmbedModel, ScoreModel] | None = None) -> Recommender:
    """What the page shows, fresh; the models are made where none are given."""
    interactions = InteractionStore(ITEMS, named("movielens").feedback).update_all(EVENTS)
    return Recommender(*(made or models()), Log(events=EVENTS, items=ITEMS, users=USERS), interactions)


def visit(chromium, url, screen):
    """A fresh page of the service; (page, list that gets all faults, list that gets all requests)."""
    width, scheme = ALL_SCREENS[screen]
    context = chromium.new_context(
        viewport={"width": width, "height": 844}, color_scheme=scheme, reduced_motion="reduce", locale="en-GB"
    )
    context.set_default_timeout(15_000)
    page, faults, requests = context.new_page(), [], []
    page.on("console", lambda told: faults.append(told.text) if told.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(url)
    return page, faults, requests


def pick(page, label, typed, keys=("ArrowDown", "Enter")):
    field = page.get_by_role("combobox", name=label, exact=True)
    field.fill(typed)
    page.locator("[role=option]:visible").first.wait_for()
    for key in keys:
        field.press(key)


def violations(page) -> list[tuple[str, list[str]]]:
    """What axe finds wrong: (rule, elements)."""
    axe = (browser.WEB / "node_modules" / "axe-core" / "axe.min.js").read_text()
    found = page.evaluate(f"{axe}; axe.run().then((found) => found.violations)")
    return [(one["id"], [node["html"] for node in one["nodes"]]) for one in found]


def check_screen(page) -> None:
    """It is accessible and fits its screen."""
    found = violations(page)
    assert found == [], found
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it has to be scrolled sideways"
