import datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m6rec.data.times import parse
from m6rec.errors import ConfigError, DataError

S = 1_600_000_000  # 2020-09-13 12:26:40
DAY = 1_599_955_200  # its midnight


@pytest.mark.parametrize(
    ("cell", "seconds", "reason"),
    [
        ("1600000000", S, "seconds since 1970, as it has 10 digits"),
        ("1600000000123", S + 0.123, "milliseconds"),
        ("1600000000123456", S + 0.123456, "microseconds"),
        ("1600000000123456789", S + 0.123456789, "nanoseconds"),
        ("1600000000.5", S + 0.5, "seconds"),
        ("1.6e9", S, "seconds"),
        ("20200913", DAY, "compact dates such as 20200913"),
        ("20200913122640", S, "compact dates and times"),
        ("202009131226", S - 40, "compact dates and times"),
        ("202009", 1_598_918_400, "compact months"),
        ("2020-09", 1_598_918_400, "dates"),
        ("2020", 1_577_836_800, "years"),
        ("2020-09-13", DAY, "UTC, as no zone is named"),
        ("2020/09/13", DAY, "dates"),
        ("2020-09-13T12:26:40", S, "dates, year-month-day"),
        ("2020-09-13 12:26", S - 40, "dates"),
        ("2020-09-13T12", S - 1_600, "dates"),
        ("2020-09-13 12:26:40.25", S + 0.25, "dates"),
        ("2020-09-13 12:26:40,25", S + 0.25, "dates"),
        ("2020-09-13T12:26:40Z", S, "with its zone"),
        ("2020-09-13 12:26:40 UTC", S, "with its zone"),
        ("2020-09-13T14:26:40+0200", S, "with its zone"),
        ("2020-09-13 14:26:40+02:00", S, "with its zone"),
        ("2020-09-13 14:26:40+02", S, "with its zone"),
        ("20200913T122640Z", S, "with its zone"),
        ("13.09.2020 12:26:40", S, "day.month.year"),
        ("09/13/2020 12:26", S - 40, "month/day/year"),
        ("13/09/2020", DAY, "day/month/year"),
        ("9/13/2020 12:26 PM", S - 40, "month/day/year"),
        ("13 Sep 2020", DAY, "in words"),
        ("Sep 13, 2020", DAY, "in words"),
        ("09 13, 2020", DAY, "in words"),
        ("Sun, 13 Sep 2020 12:26:40 GMT", S, "in words"),
        ("Sun Sep 13 12:26:40 +0000 2020", S, "in words"),
        ("42", 42, "a position"),
    ],
)
def test_a_column_is_read_as_a_whole_and_the_reason_is_said(cell, seconds, reason):
    found = parse(pl.Series("time", [cell, None, cell, ""]))
    assert found.nanoseconds.to_list() == [round(seconds * 10**9), None] * 2 or (
        found.nanoseconds[0] / 10**9 == pytest.approx(seconds, abs=1e-6)
    )
    assert reason in found.reason
    assert found.position == ("position" in reason)


@pytest.mark.parametrize("cell", ["soon", "1_600_000_000", "12:30", "2020-02-30", "2020-W10", "99999999999999999999"])
def test_what_is_no_time_is_null(cell):
    assert parse(pl.Series("time", [cell, "2020-02-03"])).nanoseconds[0] is None
    assert parse(pl.Series("time", [cell, str(S), str(S + 1)])).nanoseconds.to_list() == [
        None,
        S * 10**9,
        (S + 1) * 10**9,
    ]


def test_numbers_of_another_magnitude_than_most_are_no_times():
    assert parse(pl.Series([S, S * 1000, S + 1, 0])).nanoseconds.to_list() == [S * 10**9, None, (S + 1) * 10**9, None]


def test_unsigned_numbers_are_numbers():
    found = parse(pl.Series("t", [1, 2, 3], pl.UInt32)), parse(pl.Series("t", [1, 2, 3]))
    assert found[0].nanoseconds.to_list() == found[1].nanoseconds.to_list()


def test_dates_with_and_without_a_clock_in_one_column():
    cells = ["2020-09-13", "2020-09-13 12:26", "2020-09-13T12:26:40.5Z", "2020-09-13 14:26:40+02:00"]
    assert parse(pl.Series(cells)).nanoseconds.to_list() == [
        n * 10**8 for n in (DAY * 10, (S - 40) * 10, S * 10 + 5, S * 10)
    ]


def test_an_ambiguous_order_of_day_and_month_is_refused_and_can_be_told():
    column = pl.Series("time", ["01/02/2020 10:00", "03/04/2020 11:00"])
    with pytest.raises(DataError, match=r"'01/02/2020 10:00' may be day/month or month/day.*--time-format '%d/%m/%Y'"):
        parse(column)
    assert parse(column, "%d/%m/%Y %H:%M").nanoseconds[0] == 1_580_551_200 * 10**9
    assert parse(column, "%m/%d/%Y %H:%M").nanoseconds[0] == 1_577_959_200 * 10**9
    both = pl.Series("time", ["13/02/2020", "02/13/2020", "14/02/2020"])
    assert parse(both).nanoseconds.null_count() == 1  # named as a bad row


@pytest.mark.parametrize(("unit", "scale"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9), ("position", 1)])
def test_a_unit_that_is_given_is_taken(unit, scale):
    found = parse(pl.Series(["5", "7"]), unit)
    assert found.nanoseconds.to_list() == [5 * 10**9 // scale, 7 * 10**9 // scale]
    assert found.position == (unit == "position")


@pytest.mark.parametrize("time_format", ["seconds", "", "dd/mm/yyyy"])
def test_a_format_that_is_none_is_refused(time_format):
    with pytest.raises(ConfigError, match="give a format such as '%d/%m/%Y %H:%M', or s, ms, us, ns, position"):
        parse(pl.Series(["5"]), time_format)


@pytest.mark.parametrize("values", [[datetime.timedelta(1)], [[1]], [True], [datetime.time(1)]])
def test_types_that_hold_no_times_are_refused(values):
    with pytest.raises(DataError, match=r"column 'time' is of type .*; a time is seconds"):
        parse(pl.Series("time", values))


moments = st.datetimes(datetime.datetime(1973, 4, 1), datetime.datetime(2261, 1, 1))


@given(
    st.lists(moments, min_size=1, max_size=5), st.sampled_from([" ", "T"]), st.sampled_from(["", "Z", "+00:00", " UTC"])
)
def test_any_iso_time_is_read_to_the_microsecond(times, between, zone):
    found = parse(pl.Series([time.isoformat(between, "microseconds") + zone for time in times]))
    right = [time.replace(tzinfo=datetime.UTC) - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) for time in times]
    assert found.nanoseconds.to_list() == [span // datetime.timedelta(microseconds=1) * 1000 for span in right]


@given(st.lists(st.integers(1_100_000_000, 4_000_000_000), min_size=1, max_size=5), st.sampled_from([1, 10**3, 10**6]))
def test_any_count_is_read_exactly_in_its_unit(seconds, scale):
    numbers = [second * scale + scale // 3 for second in seconds]
    for column in (pl.Series(numbers), pl.Series(list(map(str, numbers)))):
        assert parse(column).nanoseconds.to_list() == [number * (10**9 // scale) for number in numbers]
