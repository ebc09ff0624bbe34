"""The page of `m6rec serve` in a real browser, over a recommender of a tiny model: what people do there."""

import gzip
import json

import httpx
import pytest

from m6rec.serving.api.page import FOLDER
from m6rec.serving.backend import InspectRequest
from m6rec.serving.settings import make_key
from tests import running
from tests.visits import ALL_SCREENS, HOSTILE, ITEMS, USERS, check_screen, pick, visit


def titles(page, where=".card"):
    return page.locator(f"{where} .title").all_inner_texts()


def changed(page, before):
    page.wait_for_function(
        "before => [...document.querySelectorAll('.card .title')].map((one) => one.innerText).join() != before",
        arg=",".join(before),
    )
    page.locator(".cards[aria-busy=false]").wait_for()
    return titles(page)


def test_opinions_move_the_list_at_once_and_nothing_is_kept(page, backend):
    before = titles(page)
    assert len(before) == 12
    page.get_by_role("button", name=f"Not this: {before[0]}").click()
    after = changed(page, before)
    assert before[0] not in after
    assert page.evaluate("document.activeElement.ariaLabel") == f"Not this: {after[0]}"  # its place keeps the focus
    assert "The list changed" in page.locator(".recommended [role=status]").inner_text()
    assert page.locator(".step").count() > 0
    page.get_by_role("button", name=f"Seen it: {after[0]}").click()
    less = changed(page, after)
    assert after[0] not in less
    page.get_by_role("button", name=f"Undo: {after[0]}").click()
    assert changed(page, less) == after
    page.get_by_role("button", name=f"More like this: {after[1]}").click()
    changed(page, after)
    assert page.locator(".timeline .here").count() == 2
    page.get_by_role("button", name=f"disliked – change: {before[0]}").click()
    page.get_by_role("button", name=f"liked – change: {before[0]}").wait_for()
    page.get_by_role("button", name="Start as somebody new").click()
    page.locator(".timeline").wait_for(state="detached")
    assert changed(page, less) == before
    assert len(backend.find_users("", 100)) == len(USERS)
    assert page.locator(".stages dd").count() == 4


def test_a_category_is_hidden_and_shown_again(page):
    before = titles(page)
    category = page.locator(".card .chips li").first.inner_text().split("\n")[0]
    page.get_by_role("button", name=f"Hide category {category}: {before[0]}").click()
    after = changed(page, before)
    assert after
    assert all(category_of(title) != category for title in after)
    page.get_by_role("button", name=f"Undo: {category}").click()
    assert changed(page, after) == before


def category_of(title):
    return next(item.categories[0] for item in ITEMS.values() if item.title == title)


def test_a_user_is_found_by_keyboard_and_a_copy_of_the_history_can_be_edited(page, backend):
    nobody = titles(page)
    pick(page, "Find a user by id", "U")
    page.get_by_text("User u0", exact=True).wait_for()
    of_user = changed(page, nobody)
    assert of_user == [one.item.title for one in backend.recommend("u0", 12).items]
    for name in ("diversity", "calibration"):
        page.get_by_role("slider", name=name.title()).fill("1")
        of_user = changed(page, of_user)
        assert of_user == [one.item.title for one in backend.recommend("u0", 12, **{name: 1.0}).items]
    stored = backend.get_user("u0")[1]
    assert page.get_by_text(f"{len(stored)} events", exact=True).count() == 1
    assert "rated" in page.locator(".timeline li").nth(0).inner_text()
    page.get_by_role("searchbox", name="Filter by title").fill("film 1")
    assert all("Film 1" in one for one in titles(page, ".timeline li"))
    page.get_by_role("searchbox", name="Filter by title").fill("")
    page.get_by_role("button", name="Edit a copy").click()
    page.get_by_text("Somebody new", exact=True).wait_for()
    page.locator(".timeline .cross").first.click()
    page.get_by_text(f"{len(stored) - 1} events", exact=True).wait_for()
    assert len(backend.get_user("u0")[1]) == len(stored)


def test_the_keyboard_goes_on_where_what_it_pressed_is_gone(chromium, url):
    page, faults, _ = visit(chromium, url, "desk, light")
    page.locator(".card").first.wait_for()

    def press(name):
        """Presses the first button of a name by keyboard, and tells in which section the focus is when it is gone."""
        button = page.get_by_role("button", name=name).first
        count = page.get_by_role("button", name=name).count()
        page.locator("body").press("Tab")  # from here on it is a keyboard that has the focus
        button.focus()
        button.press("Enter")
        page.wait_for_function(
            "([name, count]) => [...document.querySelectorAll('button')].filter((one) => "
            "(one.ariaLabel ?? one.innerText).includes(name)).length < count",
            arg=[name, count],
        )
        page.locator(".cards[aria-busy=false]").wait_for()
        return page.evaluate("document.activeElement.closest('section')?.getAttribute('aria-labelledby')")

    first = titles(page)[0]
    page.get_by_role("button", name=f"Seen it: {first}").click()
    page.get_by_role("button", name=f"Undo: {first}").wait_for()
    assert press(f"Undo: {first}") == "history"
    page.get_by_role("button", name="More like this").first.click()
    page.locator(".timeline .here").wait_for()
    assert press("Remove: ") == "history"
    page.get_by_role("button", name="More like this").first.click()
    page.locator(".timeline .here").wait_for()
    assert press("Start as somebody new") in ("who", "history")
    page.get_by_role("button", name="Paste a history").click()
    assert press("Close") == "history"
    page.context.close()
    assert faults == []


def test_a_history_is_pasted_by_ids_titles_and_as_json(page):
    before = titles(page)
    page.get_by_role("button", name="Paste a history").click()
    area = page.get_by_role("textbox", name="One item a line")
    area.fill("i3\nFilm 7 (1987) | 5\nno such film at all")
    page.get_by_role("button", name="Use this history").click()
    page.get_by_text("Not in the catalogue: no such film at all").wait_for()
    changed(page, before)
    assert titles(page, ".timeline li") == ["Film 7 (1987)", "Film 3 (1983)"]
    area.fill(json.dumps([{"item": "霸王", "kind": "like"}, {"kind": "search", "text": "war"}]))
    page.get_by_role("button", name="Use this history").click()
    area.wait_for(state="detached")
    assert titles(page, ".timeline li") == ["Search: war", "霸王别姬 (1993)"]


def test_why_not_tells_what_held_an_item_back(page, backend):
    pick(page, "Find a user by id", "u1")
    page.get_by_text("User u1", exact=True).wait_for()
    last = backend.recommend("u1", 100).items[-1].item
    pick(page, "Find an item by title or id", last.id)
    placement = backend.inspect(InspectRequest(user="u1", item=last.id)).placement
    page.get_by_text(f"Ranked {placement.rank} of {placement.num_ranked} candidates.").wait_for()
    assert page.get_by_text("The text adds").count() == 1
    seen = backend.get_user("u1")[1][0].item
    pick(page, "Find an item by title or id", seen)
    page.get_by_text("Filtered out: it is in the history already.").wait_for()
    page.get_by_text("What the model reads").click()
    page.locator(".segments li").first.wait_for()
    told = [one.text for one in backend.inspect(InspectRequest(user="u1")).segments]
    assert page.locator(".segments .said").all_inner_texts() == told
    # What the page asked for first has been ranked with this user's context.
    assert set(page.locator(".segments .cached").all_inner_texts()) == {"kept with this user's context"}
    page.get_by_text(f"{len(told)} of {len(told)} cached").wait_for()


def test_a_reason_is_told_of_a_card(page):
    before = titles(page)
    page.get_by_role("button", name=f"More like this: {before[0]}").click()
    page.get_by_role("button", name=f"Why?: {changed(page, before)[0]}").click()
    page.locator(".why li, .why p").first.wait_for()


def test_an_item_has_neighbours_and_a_draft_lands_before_it_is_stored(page, backend):
    page.get_by_role("link", name="Item").click()
    pick(page, "Find an item by title or id", "film 4 ")
    page.get_by_role("heading", name="Film 4 (1984)").wait_for()
    near = page.locator("section", has=page.get_by_role("heading", name="Near by text")).locator("li .title")
    near.first.wait_for()
    assert near.all_inner_texts() == [one.item.title for one in backend.neighbours("i4", 10)]
    editor = page.get_by_role("complementary", name="Edit or add an item")
    editor.get_by_label("Id", exact=True).fill("new")
    editor.get_by_label("Title").fill(HOSTILE)
    editor.locator("li .title").first.wait_for()
    assert backend.find_items(ids=["new"]) == []
    editor.get_by_role("button", name="Write it to the catalogue").click()
    page.get_by_role("heading", name=HOSTILE).wait_for()
    assert backend.find_items(ids=["new"])[0].title == HOSTILE
    page.get_by_role("button", name="Recommend to someone who liked it").click()
    page.locator(".timeline .here").wait_for()
    assert titles(page, ".timeline li") == [HOSTILE]


def test_texts_of_others_are_shown_and_never_run(page, backend):
    pick(page, "Find a user by id", "<img")
    page.get_by_text(f"User {HOSTILE}", exact=True).wait_for()
    pick(page, "Find an item by title or id", "onerror")
    page.locator(".held h3", has_text=HOSTILE).wait_for()
    page.goto(page.url.split("#")[0] + "#/item/evil")
    page.get_by_role("heading", name=HOSTILE).wait_for()
    assert page.get_by_text("Liked by 6 people").count() == 1
    assert page.locator("img").count() == 0
    page.goto(page.url.split("#")[0] + "#/item/霸王")
    page.get_by_text("Liked by fewer than five people").wait_for()


def test_it_speaks_chinese_and_keeps_the_choice(page):
    page.get_by_role("combobox", name="Language").select_option("zh")
    page.get_by_role("heading", name="推荐", exact=True).wait_for()
    assert page.evaluate("document.documentElement.lang") == "zh-Hans"
    pick(page, "按标题或编号查找物品", "霸王")
    page.locator(".verdict").wait_for()
    page.get_by_role("combobox", name="主题").select_option("light")
    page.reload()
    page.get_by_role("heading", name="推荐", exact=True).wait_for()
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light"


def test_what_fails_is_told_and_tried_again(chromium, url):
    page, faults, _ = visit(chromium, url, "desk, light")
    page.locator(".card").first.wait_for()
    before = titles(page)
    page.route("**/v1/recommend", lambda route: route.abort())
    page.get_by_role("button", name=f"Not this: {before[0]}").click()
    trouble = page.locator(".recommended [role=alert]")
    trouble.get_by_text("The service can't be reached.").wait_for()
    page.unroute("**/v1/recommend")
    trouble.get_by_role("button", name="Try again").click()
    assert before[0] not in changed(page, before)
    page.context.close()
    assert all("ERR_FAILED" in fault for fault in faults)


def test_a_key_is_asked_for_and_stays_in_the_tab(chromium, backend, tmp_path):
    key = make_key(tmp_path / "keys")
    with running.service(backend, keys=tmp_path / "keys", deadline_s=60.0) as url:
        page, faults, _ = visit(chromium, url, "phone, dark")
        field = page.get_by_label("API key")
        field.fill("wrong")
        page.get_by_role("button", name="Sign in").click()
        page.get_by_text("That key was not accepted.").wait_for()
        field.fill(key)
        page.get_by_role("button", name="Sign in").click()
        page.locator(".card").first.wait_for()
        assert page.evaluate("Object.values(sessionStorage)") == [key]
        assert key not in page.evaluate("JSON.stringify([localStorage, document.cookie, location.href])")
        page.reload()
        page.locator(".card").first.wait_for()
        page.get_by_role("button", name="Sign out").click()
        page.get_by_label("API key").wait_for()
        assert page.evaluate("Object.values(sessionStorage)") == []
        page.context.close()
        assert all("401" in fault for fault in faults)


@pytest.mark.parametrize("screen", ALL_SCREENS)
def test_every_view_is_accessible_and_fits_its_screen(chromium, url, screen):
    page, faults, _ = visit(chromium, url, screen)
    page.locator(".card").first.wait_for()
    pick(page, "Find a user by id", "u2")
    pick(page, "Find an item by title or id", "i5")
    page.locator(".facts").wait_for()
    page.locator("summary").click()
    page.locator(".segments li").first.wait_for()
    page.locator(".card").first.get_by_role("button", name="Why?").click()
    page.locator(".why li, .why p").first.wait_for()
    page.get_by_role("button", name="Paste a history").click()
    check_screen(page)
    page.get_by_role("combobox", name="Find a user by id").fill("u")
    page.locator("[role=option]:visible").first.wait_for()
    check_screen(page)
    page.goto(f"{url}/#/item/evil")
    page.locator(".both .lines li").first.wait_for()
    page.locator("aside .lines li").first.wait_for()
    check_screen(page)
    page.context.close()
    assert faults == []


def test_it_is_small_and_under_a_strict_policy(chromium, url):
    own = [file for file in FOLDER.iterdir() if file.is_file()]  # what ranks in the page is in a folder of its own
    assert sum(len(gzip.compress(file.read_bytes())) for file in own) < 300_000
    for path in ("/", "/page/main.js", "/page/style.css"):
        headers = httpx.get(f"{url}{path}").headers
        policy = headers["content-security-policy"]
        assert "script-src 'self';" in policy
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
    page, _, _ = visit(chromium, url, "desk, light")
    page.locator(".card").first.wait_for()
    refused = page.evaluate(
        """new Promise((done) => {
            addEventListener("securitypolicyviolation", (event) => done(event.violatedDirective));
            const script = document.createElement("script");
            try { script.text = "window.hurt = 1"; document.head.append(script); } catch { done("trusted types"); }
        })"""
    )
    page.context.close()
    assert refused
