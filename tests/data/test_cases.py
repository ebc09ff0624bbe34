"""Small inputs that real people meet, each with the value or the error that is right; those of the shared folder, and
the same kinds made here, which need no folder."""

import os
from pathlib import Path

import pytest

from m6rec.data.read import read
from m6rec.data.split import TEST, leave_one_out
from m6rec.errors import DataError

FOLDER = Path(os.environ.get("M6REC_SHARED_CASES", Path(__file__).parents[3] / "shared" / "cases")) / "log"
SECONDS = 1_600_000_000
EVENTS = {  # file: (events, items, users, first title, categories of the first item, time of the first event)
    **dict.fromkeys(
        (
            "EVENTS.CSV", "blank_lines.csv", "bom.csv", "cr_only.csv", "crlf.csv", "events.csv.gz", "events.csv.zst",
            "events.txt", "gz_named.csv", "header_spaces.csv", "header_wild.csv", "ids_huge.csv", "ids_float.parquet",
            "ids_float_csv.csv", "ids_leading_zero.csv", "ids_uint64.parquet", "index_column.csv", "plain.csv",
            "pq_binary.parquet", "pq_categorical.parquet", "pq_decimal_id.parquet", "pq_index.parquet",
            "pq_multi_index.parquet", "quote_in_csv.csv", "quote_in_tsv.tsv", "semicolon.csv", "cat_null.parquet",
            "cat_nogenres.csv", "time_all_same.csv", "time_decimal.parquet", "time_iso_z.csv", "time_ms.csv",
            "time_ns.csv", "time_space.csv", "time_ts_ns.parquet", "time_ts_tz.parquet", "time_utc.csv",
            "title_changes.csv", "value_bool.parquet", "value_decimal.parquet", "value_empty.csv",
            "value_named_rating.csv", "value_nan.csv", "value_negative.csv", "value_nullable.parquet",
            "value_rating.csv", "dup_rows.csv",
        ),
        (30, 12, 5, "Title 0", (), SECONDS),
    ),
    **dict.fromkeys(("backslash.csv", "stray_two.csv", "stray_two.tsv"), (300, 40, 20, "T0", (), SECONDS)),
    **dict.fromkeys(
        ("cat_binary.parquet", "cat_fixed_list.parquet", "cat_list.parquet", "cat_missing.csv"),
        (30, 12, 5, "Title 0", ("A", "B"), SECONDS),
    ),
    **dict.fromkeys(("cat_dict.parquet", "cat_list_null.parquet"), (30, 12, 5, "Title 0", ("A",), SECONDS)),
    "bom_quoted.csv": (30, 6, 5, "t0", (), SECONDS),
    "cat_comma.csv": (30, 12, 5, "Title 0", ("Action", "Drama"), SECONDS),
    "cat_int.parquet": (30, 12, 5, "Title 0", ("1",), SECONDS),
    "cat_list_int.parquet": (30, 12, 5, "Title 0", ("1", "2"), SECONDS),
    "ids_nul.csv": (30, 12, 5, "a b", (), SECONDS),
    "ids_spaces.csv": (30, 12, 1, "Title 0", (), SECONDS),
    "ids_unicode.csv": (30, 12, 4, "Title 0", (), SECONDS),
    "latin1.csv": (30, 12, 5, "Amélie", (), SECONDS),
    "one_row.csv": (1, 1, 1, "Title 0", (), SECONDS),
    "tiny_3.csv": (3, 3, 3, "Title 0", (), SECONDS),
    "time_compact.csv": (30, 12, 5, "Title 0", (), 1_599_955_200),
    "time_date.csv": (30, 12, 5, "Title 0", (), 1_599_955_200),
    "time_date32.parquet": (30, 12, 5, "Title 0", (), 1_599_955_200),
    "time_slash.csv": (30, 12, 5, "Title 0", (), 1_599_955_200),
    "time_future.csv": (30, 12, 5, "Title 0", (), 4_102_444_800),
    "time_iso_off.csv": (30, 12, 5, "Title 0", (), SECONDS - 7_200),
    "time_iso_offc.csv": (30, 12, 5, "Title 0", (), SECONDS - 7_200),
    "time_month.csv": (30, 12, 5, "Title 0", (), 1_598_918_400),
    "time_year.csv": (30, 12, 5, "Title 0", (), 1_577_836_800),
    "time_missing.csv": (30, 12, 5, "Title 0", (), 0),
    "time_zero.csv": (30, 12, 5, "Title 0", (), 0),
    "time_position.csv": (30, 12, 5, "Title 0", (), 0),
    "title_emoji.csv": (30, 5, 5, "😀🎬 映画", (), SECONDS),
    "title_newline.csv": (30, 12, 5, 'He said "hi",\nthen left', (), SECONDS),
    "title_same.csv": (30, 12, 5, "Same", (), SECONDS),
    "title_nan.csv": (30, 12, 5, "Title 0", (), SECONDS),  # the item has its title in another row
    "users_one_event.csv": (30, 12, 30, "Title 0", (), SECONDS),
    "users_two.csv": (30, 12, 15, "Title 0", (), SECONDS),
    "time_float_subsecond.csv": (20, 20, 1, "t19", (), SECONDS),
    "time_ts_ms_sub.parquet": (10, 10, 1, "t9", (), SECONDS),
}  # fmt: skip
ERRORS = {
    "cat_list_list.parquet": r"events: column 'category' is of type List\(List\(String\)\)",
    "cat_struct.parquet": "events: column 'category' is of type Struct",
    "corrupt.parquet": "events: .*corrupt.parquet can't be read",
    "empty.csv": "events: .*empty.csv is empty",
    "header_only.csv": r"events: the table holds no rows \(its columns: user, item, time, title\)",
    "ids_float_1e20.parquet": "row 1, column 'user': 1e\\+20 is not an id that is kept exactly",
    "no_header.csv": "seems to have no header.*Put a line such as user,item,time,title at its top",
    "pq_bool_id.parquet": "column 'user' is of type Boolean; an id is a text or whole number",
    "pq_nullable_int.parquet": "row 5, column 'user': None is empty",
    "ragged_long.csv": r"row 4 of .* has 5 fields \('u3,i3,1600010800,Title, 3'\), but the header has 4.*double quotes",
    "time_duration.parquet": "column 'time' is of type Duration.*; a time is seconds, milliseconds",
    "time_negative.csv": "row 1, column 'time': '-5' is before 1970",
    "time_some_empty.csv": "row 8, column 'time': None is not a time like the others.*--time-format",
    "time_underscore.csv": "row 1, column 'time': '1_600_000_000' is not a time.*2020-09-13T12:26:40.*--time-format",
    "title_long.csv": "row 1, column 'title': 'xxx.*is longer than 2000 characters",
}
ITEMS = {
    "items8.csv": {"year": 2000, "price": 9.5, "ok": "true"},
    "items_index.csv": {"year": 2000, "price": 9.5, "ok": "true"},
    "items_binary.parquet": {"extra": "x"},
    "items_decimal.parquet": {"extra": 1.5},
    "items_dict.parquet": {"extra": "a"},
    "items_id.csv": {},
    "items_inf.parquet": {},
    "items_time.parquet": {"extra": "00:00:00"},
    "items_ts.parquet": {"extra": "2020-09-13 12:26:40"},
    "items_uint64.parquet": {"extra": "18446744073709551615"},
}
ITEM_ERRORS = {
    "items3.csv": "events: row 4, column 'item': 'i3' is not in the table of items",
    "items_dup.csv": "items: row 15, column 'item': 'i0' is a duplicate id",
    "items_embedding.parquet": "items: column 'extra' holds lists of numbers, as an embedding does.*--columns details=",
    "items_fixed_list.parquet": "items: column 'extra' holds lists of numbers",
    "items_longtext.parquet": "items: row 1, column 'extra': 'xxx.*is longer than 20000 characters",
}


def case(name: str) -> Path:
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"{name} is not in {FOLDER}; M6REC_SHARED_CASES names the folder of the small inputs")
    return path


def test_no_file_of_the_folder_is_left_out():
    if not FOLDER.is_dir():
        pytest.skip(f"there is no {FOLDER}; M6REC_SHARED_CASES names the folder of the small inputs")
    told = {*EVENTS, *ERRORS, *ITEMS, *ITEM_ERRORS, "title_1900.csv", "ev3.csv", "users.csv"}
    told |= {"ids_float_csv_ev.csv", "ids_float_csv_items.csv"}
    assert {path.name for path in FOLDER.iterdir()} == told


@pytest.mark.parametrize("name", EVENTS)
def test_a_table_of_events_is_read(name):
    log = read(case(name), now=SECONDS + 10**7)
    first = log.events[0]
    item = log.items[first.item]
    counts = (len(log.events), len(log.items), len(log.users))
    title = next(iter(log.items.values())).title
    assert (*counts, title, item.categories, first.time) == EVENTS[name]
    assert log.reading.future == (30 if name == "time_future.csv" else 0)


@pytest.mark.parametrize("name", ERRORS)
def test_a_table_of_events_is_refused_with_its_remedy(name):
    with pytest.raises(DataError, match=ERRORS[name]):
        read(case(name))


@pytest.mark.parametrize("name", ITEMS)
def test_a_table_of_items_is_read(name):
    log = read(case("ev3.csv"), case(name))
    assert (log.items["i0"].title, log.items["i0"].details) == ("T0", ITEMS[name])


@pytest.mark.parametrize("name", ITEM_ERRORS)
def test_a_table_of_items_is_refused_with_its_remedy(name):
    with pytest.raises(DataError, match=ITEM_ERRORS[name]):
        read(case("ev3.csv"), case(name))


def test_a_table_of_users_and_ids_written_as_floats():
    log = read(case("ev3.csv"), case("items8.csv"), case("users.csv"))
    assert log.users["u0"].details == {"age": 0}
    log = read(case("ids_float_csv_ev.csv"), case("ids_float_csv_items.csv"))
    assert log.events[0].item == "0"
    assert len(read(case("title_1900.csv")).items["i0"].title) == 1899  # a space at its end


@pytest.mark.parametrize(("name", "last"), [("time_float_subsecond.csv", "i19"), ("time_ts_ms_sub.parquet", "i9")])
def test_the_last_event_is_the_last_in_time_to_a_fraction_of_a_second(name, last):
    split = leave_one_out(read(case(name)))
    assert [split.log.events[at].item for at in split.indices(TEST)] == [last]


def test_exact_duplicates_are_dropped_and_counted():
    assert read(case("dup_rows.csv")).dropped == {"events: an earlier one is the same in all": 5}
