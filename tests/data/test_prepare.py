"""``m6rec prepare`` on small logs: what it reads them as, says of them, and refuses."""

import json
import re

import pytest
from typer.testing import CliRunner

from m6rec import cli
from m6rec.domains import prepared


def prepare(tmp_path, rows, *words, header="user_id,item_id,rating,timestamp,movie_title"):
    (tmp_path / "events.csv").write_text("\n".join([header, *rows]) + "\n")
    out = tmp_path / "data"
    return CliRunner().invoke(cli.app, ["prepare", str(tmp_path / "events.csv"), "--out", str(out), "--json", *words])


def card(tmp_path, rows, *words, **options):
    done = prepare(tmp_path, rows, *words, **options)
    assert done.exit_code == 0, repr(done.exception)
    return json.loads(done.stdout)


ITEMS = [(3 * n + n // 10) % 40 for n in range(300)]
STARS = [
    f"u{n % 10},i{item},{1 + (n * 7 + n // 10) % 5},{1_600_000_000 + n * 60},Film {item}"
    for n, item in enumerate(ITEMS)
]


def test_stars_are_recognised_split_and_kept(tmp_path):
    facts = card(tmp_path, STARS)
    assert facts["columns"]["events"] == {
        "user": "user_id", "item": "item_id", "time": "timestamp", "value": "rating", "title": "movie_title",
    }  # fmt: skip
    assert "stars" in facts["feedback"]
    assert facts["split"] == "time"
    assert facts["times"] == ["2020-09-13 12:26:40", "2020-09-13 17:25:40"]
    for part in facts["parts"].values():
        assert part["positive"] + part["negative"] == part["events"] > 0
        assert part["positive"] > 0
    assert facts["density"] == pytest.approx(facts["events"] / 400, abs=0.4)
    assert facts["tasks"]["ranking"] == []
    assert len(facts["prompts"]) == 3
    assert all("Film" in prompt for prompt in facts["prompts"])
    made = prepared.load(tmp_path / "data")
    assert made.domain_name == "generic"
    assert made.domain.positive(made.split.log.events[0]) == (made.split.log.events[0].value >= 4)


@pytest.mark.parametrize(
    ("words", "positive"),
    [(["--positive", "rating>=5"], lambda value: value >= 5), (["--implicit"], lambda value: True)],
)
def test_what_is_positive_can_be_said_and_goes_with_the_data_set(tmp_path, words, positive):
    facts = card(tmp_path, STARS, *words)
    assert "as asked" in facts["feedback"]
    made = prepared.load(tmp_path / "data")
    events = made.split.log.events
    assert [made.domain.positive(event) for event in events] == [positive(event.value) for event in events]
    assert sum(part["positive"] for part in facts["parts"].values()) == sum(positive(event.value) for event in events)


def test_an_implicit_log_is_said_to_be_one(tmp_path):
    rows = [",".join((row.split(",")[0], row.split(",")[1], *row.split(",")[3:])) for row in STARS]
    facts = card(tmp_path, rows, header="user,item,time,title")
    assert "implicit" in facts["feedback"]
    assert any("ranking draws negatives" in warning for warning in facts["warnings"])
    assert facts["tasks"]["ranking"] == facts["tasks"]["retrieval"] == []


def test_what_is_not_read_is_told(tmp_path):
    rows = [f"{row},x{n % 3},web" for n, row in enumerate(STARS)]
    facts = card(tmp_path, rows, header="user,item,rating,time,title,zzz,device")
    assert facts["unused"] == {"events": ["zzz"]}
    assert facts["columns"]["events"]["context"] == "device"
    facts = card(tmp_path, rows, "--columns", "value=,kind=zzz", header="user,item,rating,time,title,zzz,device")
    assert facts["columns"]["events"]["kind"] == "zzz"
    assert facts["unused"] == {"events": ["rating"]}


def test_a_log_without_time_leaves_one_out(tmp_path):
    rows = [",".join((*row.split(",")[:3], row.split(",")[4])) for row in STARS]
    facts = card(tmp_path, rows, header="user,item,stars,name")
    assert (facts["split"], facts["times"]) == ("leave-one-out", [])
    assert facts["parts"]["test"]["events"] == 10
    done = prepare(tmp_path, rows, "--split", "time", header="user,item,stars,name")
    assert "no time to split by" in str(done.exception)


def test_duplicates_are_dropped_and_repeats_kept_or_dropped(tmp_path):
    again = [f"u{n},i{3 * n},5,{1_700_000_000 + n},Film {3 * n}" for n in range(10)]
    facts = card(tmp_path, [*STARS, *STARS[:5], *again])
    assert facts["dropped"] == {"events: an earlier one is the same in all": 5}
    assert facts["repeats"] >= 10
    facts = card(tmp_path, [*STARS, *again], "--repeats", "drop")
    assert facts["dropped"]["events: its user had done the same with the item before"] >= 10
    assert facts["repeats"] == 0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no rows"),
        (
            STARS[:1],
            "no task can be tuned and evaluated on this log, so nothing was saved.*the validation part is empty",
        ),
        (STARS[:3], "no task can be tuned and evaluated"),
        ([row.replace(f",{row.split(',')[2]},", ",1,", 1) for row in STARS], None),
    ],
)
def test_nothing_is_kept_where_nothing_can_be_done(tmp_path, rows, message):
    done = prepare(tmp_path, rows)
    if message is None:  # all of one star: every event is positive, as the log has no other value
        assert done.exit_code == 0
        return
    assert done.exit_code != 0
    assert not (tmp_path / "data" / "manifest.json").exists()
    assert re.search(message, str(done.exception))


def test_one_class_in_a_part_is_said_by_part_and_task(tmp_path):
    def stars(n, low, high):
        cells = STARS[n].split(",")
        return ",".join((*cells[:2], str(low if n % 2 else high), *cells[3:]))

    facts = card(tmp_path, [stars(n, 5, 4) if 240 <= n < 270 else stars(n, 1, 5) for n in range(300)])
    assert facts["tasks"]["ranking"] == ["the validation part has no negative event"]
    assert not facts["tasks"]["retrieval"]
    done = prepare(tmp_path, [stars(n, 1, 5) if n < 270 else stars(n, 1, 2) for n in range(300)])
    assert "ranking: the test part has no positive event; retrieval: the test part has no" in str(done.exception)
    done = prepare(tmp_path, [stars(n, 1, 2) for n in range(300)], "--positive", "rating>=4")
    assert "the training part has no positive event" in str(done.exception)


def test_options_that_exclude_each_other_or_do_not_fit(tmp_path):
    assert "mutually exclusive" in str(prepare(tmp_path, STARS, "--positive", "rating>=4", "--implicit").exception)
    assert "doesn't say which events" in str(prepare(tmp_path, STARS, "--positive", "good").exception)
    assert "on_error is 'ignore'" in str(prepare(tmp_path, STARS, "--on-error", "ignore").exception)
    assert "repeats 'often' is unknown" in str(prepare(tmp_path, STARS, "--repeats", "often").exception)
    done = CliRunner().invoke(cli.app, ["prepare", "movielens", "--time-format", "s", "--out", str(tmp_path / "m")])
    assert "knows its own columns and times; leave out time_format" in str(done.exception)
    done = CliRunner().invoke(cli.app, ["prepare", "movelens", "--out", str(tmp_path / "m")])
    assert "there is no domain 'movelens'. Did you mean 'movielens'?" in str(done.exception)
    done = CliRunner().invoke(cli.app, ["prepare", "evnts.csv", "--out", str(tmp_path / "m")])
    assert "there is no such file" in str(done.exception)


def test_a_bad_row_stops_or_is_dropped(tmp_path):
    rows = [*STARS, ",i1,5,1600000000,Film 1"]
    assert "row 301, column 'user_id': None is empty" in str(prepare(tmp_path, rows).exception)
    assert card(tmp_path, rows, "--on-error", "drop")["dropped"] == {"events: user_id is empty": 1}


def test_times_of_the_future_are_counted(tmp_path):
    rows = [*STARS, "u1,i1,5,4102444800,Film 1"]
    facts = card(tmp_path, rows)
    assert facts["future"] == 1
    assert any("1 events lie more than a day in the future" in warning for warning in facts["warnings"])


def test_the_card_is_text_for_people(tmp_path):
    (tmp_path / "events.csv").write_text("\n".join(["user,item,rating,time,title", *STARS]))
    done = CliRunner().invoke(cli.app, ["prepare", str(tmp_path / "events.csv"), "--out", str(tmp_path / "data")])
    for words in (
        "seconds since 1970",
        "value = 'rating'",
        "positive",
        "cold:",
        "can be tuned and measured",
        "prompt 3",
    ):
        assert words in done.stdout
