"""What readers make of time columns: order to the nanosecond, and no unit guessed in silence."""

from decimal import Decimal
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seqrec_export.data.histories import prepare
from seqrec_export.data.interactions import Interactions
from seqrec_export.data.raw_requests import RawLog
from seqrec_export.data.readers import read
from seqrec_export.errors import SeqrecError

DAY = 86_400
MIDNIGHT = 1_600_214_400  # 2020-09-16 UTC


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def log_of(folder: Path, times: list, **options: str) -> Interactions:
    """A log of one user, whose items are numbered by line, with these times, as CSV."""
    lines = [f"u,i{row},{time}\n" for row, time in enumerate(times)]
    path = write(folder / "log.csv", "user,item,time\n" + "".join(lines))
    return read(f"table:{path}", options)


def stored(folder: Path, times: pa.Array, **options: str) -> Interactions:
    """As `log_of`, from Parquet."""
    items = [f"i{row}" for row in range(len(times))]
    table = pa.table({"user": ["u"] * len(times), "item": items, "time": times})
    pq.write_table(table, folder / "log.parquet")
    return read(f"table:{folder / 'log.parquet'}", options)


def assert_newest_first(log: Interactions) -> None:
    """Each line happened before the line above it, all within one second."""
    assert log.times.tolist() == [MIDNIGHT] * len(log)
    newest_last = [f"i{row}" for row in reversed(range(len(log)))]
    histories = prepare(log, "time", held_out_from=(MIDNIGHT + 1, MIDNIGHT + 2))
    assert histories.items.decode(histories.histories.items).tolist() == newest_last
    assert RawLog(log).items.tolist() == newest_last
    assert not any("order of the file" in note for note in log.notes)


PAST = ["0.9", "0.500000002", "0.500000001", "0.25", "0.000001", "0"]


@pytest.mark.parametrize("digits", [3, 6, 9])
def test_whole_numbers_of_parts_of_a_second_keep_their_order(tmp_path, digits):
    kept = PAST if digits == 9 else [past for past in PAST if len(past) <= digits + 2]
    times = [int((MIDNIGHT + Decimal(past)) * 10**digits) for past in kept]
    assert_newest_first(log_of(tmp_path, times))
    assert_newest_first(stored(tmp_path, pa.array(times)))


def test_numbers_with_a_point_keep_their_order(tmp_path):
    exact = [MIDNIGHT + Decimal(past) for past in PAST]
    assert_newest_first(log_of(tmp_path, exact))
    assert_newest_first(stored(tmp_path, pa.array(exact, pa.decimal128(38, 9))))
    floats = [MIDNIGHT + float(past) for past in ("0.75", "0.5", "0.25", "0")]
    assert_newest_first(log_of(tmp_path, floats))
    assert_newest_first(stored(tmp_path, pa.array(floats)))
    halves = [f"{MIDNIGHT}{past}" for past in ("500.5", "500.25", "000.1")]  # milliseconds
    assert_newest_first(log_of(tmp_path, halves))


@pytest.mark.parametrize("zone", ["", "Z", "+00:00", " UTC"])
@pytest.mark.parametrize("digits", [1, 3, 6, 9])
def test_dates_with_a_fraction_keep_their_order(tmp_path, zone, digits):
    day = "2020-09-16 00:00:00"
    times = [f"{day}.{past:0{digits}d}{zone}" for past in (5, 3, 1)]
    assert_newest_first(log_of(tmp_path, [*times, day + zone]))


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "Europe/Stockholm"])
def test_parquet_timestamps_keep_their_order(tmp_path, unit, zone):
    per_second = {"ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    values = pa.array([MIDNIGHT * per_second + past for past in (9, 5, 0)])
    assert_newest_first(stored(tmp_path, values.cast(pa.timestamp(unit, zone))))


def test_hm_with_times_of_day_keeps_their_order(tmp_path):
    lines = [f"2020-09-16T{hour}:00:00,c,{hour}\n" for hour in (18, 12, 10)]
    path = write(tmp_path / "log.csv", "t_dat,customer_id,article_id\n" + "".join(lines))
    log = read(f"hm:{path}")
    assert RawLog(log).items.tolist() == ["0000000010", "0000000012", "0000000018"]


@pytest.mark.parametrize(
    ("times", "options", "seconds"),
    [
        (["0", "1500"], {"time_unit": "ms"}, [0, 1]),
        (["0", "1500"], {"time_unit": "ms", "time_origin": "2020-09-16"}, [MIDNIGHT, MIDNIGHT + 1]),
        (["1", "1.5"], {"time_unit": "d"}, [DAY, DAY + DAY // 2]),
        (["44090", "44090.25"], {"time_unit": "d", "time_origin": "1899-12-30"},
         [MIDNIGHT, MIDNIGHT + DAY // 4]),
        (["2", "3"], {"time_unit": "h"}, [7_200, 10_800]),
        (["2", "-1"], {"time_unit": "min"}, [120, -60]),
        (["86400000000000"], {"time_unit": "ns"}, [DAY]),
        (["86400000000"], {"time_unit": "microseconds"}, [DAY]),
        (["1600214400"], {"time_unit": "s"}, [MIDNIGHT]),
        (["20200916"], {"time_unit": "s"}, [20_200_916]),
        (["16/09/2020", "17/09/2020"], {"time_format": "%d/%m/%Y"}, [MIDNIGHT, MIDNIGHT + DAY]),
        (["09-16-20 00:00:01"], {"time_format": "%m-%d-%y %H:%M:%S"}, [MIDNIGHT + 1]),
        (["2020"], {"time_format": "%Y"}, [1_577_836_800]),
    ],
)  # fmt: skip
def test_the_unit_origin_and_format_of_times_can_be_said(tmp_path, times, options, seconds):
    log = log_of(tmp_path, times, **options)
    assert log.times.tolist() == seconds
    assert not any("Column time" in note for note in log.notes)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"time_unit": "weeks"}, ["weeks", "min, h, d"]),
        ({"time_origin": "2020-01-01"}, ["time_unit"]),
        ({"time_unit": "d", "time_origin": "17"}, ["time_origin", "'17'"]),
        ({"time_unit": "d", "time_origin": "soon"}, ["time_origin", "'soon'"]),
        ({"time_format": "%d/%m/%Y"}, ["line 2", "'1600214400'", "%d/%m/%Y"]),
        ({"time_format": "%!"}, ["time_format", "%!"]),
    ],
)
def test_options_of_times_that_mean_nothing_are_refused(tmp_path, options, words):
    with pytest.raises(SeqrecError) as caught:
        log_of(tmp_path, [MIDNIGHT], **options)
    for word in words:
        assert word in str(caught.value)


def test_a_unit_is_refused_for_dates(tmp_path):
    with pytest.raises(SeqrecError, match="holds dates; time_unit"):
        log_of(tmp_path, ["2020-01-01"], time_unit="ms")


@pytest.mark.parametrize(
    "times",
    [
        [0, 5, 100_000],  # seconds from an origin, it seems
        [0, 500, 2_600_000_000],  # a month of milliseconds from an origin
        [44_090, 44_091],  # days as spreadsheets count them
        [978_300_760 - 10**9, 978_300_760],
    ],
)
def test_numbers_that_may_not_be_seconds_are_noted_with_what_to_say(tmp_path, times):
    for log in (log_of(tmp_path, times), stored(tmp_path, pa.array(times))):
        assert log.times.tolist() == times
        assert any("time_unit=" in note and "time_origin=" in note for note in log.notes)


@pytest.mark.parametrize(
    "times", [[0, 10**10, 8 * 10**13], [-(10**11), 10**11], [5 * 10**9], [10**18, 0, 3]]
)
def test_numbers_of_no_known_unit_are_refused_with_what_to_say(tmp_path, times):
    with pytest.raises(SeqrecError, match="time_unit="):
        log_of(tmp_path, times)


@pytest.mark.parametrize("factor", [10**3, 10**6, 10**9])
@pytest.mark.parametrize("odd", ["first", "second"])
def test_a_column_of_two_units_is_refused_at_the_line_of_the_rarer(tmp_path, factor, odd):
    one, other = (MIDNIGHT, MIDNIGHT * factor)[:: 1 if odd == "first" else -1]
    with pytest.raises(SeqrecError, match=f"line 4: time {one} would be in .* 3 of 4 rows"):
        log_of(tmp_path, [other, other, one, other])


@pytest.mark.parametrize(
    "late",
    [[253_402_300_799], ["9999-12-31"], ["2200-01-01T00:00:00.5"], [253_402_300_799_000]],
    ids=str,
)
def test_a_time_far_ahead_is_refused_at_its_line_for_it_would_be_the_test(tmp_path, late):
    sound = MIDNIGHT * (1000 if late[0] == 253_402_300_799_000 else 1)
    sound = "2020-09-16" if isinstance(late[0], str) else sound
    with pytest.raises(SeqrecError, match=r"line 4: time is .* after 2100.* correct or drop"):
        log_of(tmp_path, [sound, sound, *late, sound])


@pytest.mark.parametrize("early", [0, -1, "1970-01-01", "0001-01-01", "1900-01-01 00:00:00"])
def test_a_time_of_long_ago_among_others_is_noted(tmp_path, early):
    sound = "2020-09-16" if isinstance(early, str) else MIDNIGHT * 1000
    log = log_of(tmp_path, [sound] * 30 + [early])
    assert any("1 of 31 times are before 1985" in note for note in log.notes)
    assert (log.times == MIDNIGHT).sum() == 30


def test_dates_of_another_century_are_noted(tmp_path):
    log = log_of(tmp_path, ["1970-01-01T00:26:40", "1970-01-01T00:26:41"])
    assert any("runs from 1970-01-01" in note for note in log.notes)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (["20200916", "20200917"], [MIDNIGHT, MIDNIGHT + DAY]),
        (["202009160000", "202009160102"], [MIDNIGHT, MIDNIGHT + 3_720]),
        (["20200916000000", "20200916010203"], [MIDNIGHT, MIDNIGHT + 3_723]),
        (["20240229", "19991231"], [1_709_164_800, 946_598_400]),
    ],
)
def test_dates_written_as_digits_are_dates_and_that_is_noted(tmp_path, written, seconds):
    for log in (log_of(tmp_path, written), stored(tmp_path, pa.array(written).cast(pa.int64()))):
        assert log.times.tolist() == seconds
        assert any("read as dates" in note for note in log.notes)


@pytest.mark.parametrize("number", ["20200931", "20210229", "20201301", "20200900"])
def test_digits_that_are_no_date_are_numbers(tmp_path, number):
    assert log_of(tmp_path, ["20200916", number]).times.tolist() == [20_200_916, int(number)]


def test_most_events_at_a_time_shared_with_another_are_noted(tmp_path):
    days = ["2020-09-17"] * 5 + ["2020-09-16"] * 5
    log = log_of(tmp_path, days)
    (note,) = (note for note in log.notes if "order of the file" in note)
    assert note.startswith("8 of 10 events have the same time as another")
    assert "newest first" in note
    (note,) = (note for note in log_of(tmp_path, days[::-1]).notes if "order of the file" in note)
    assert "newest first" not in note
    lines = [f"{user},i{row},{day}\n" for user in "abc" for row, day in enumerate(days)]
    write(tmp_path / "log.csv", "user,item,time\n" + "".join(lines))
    (note,) = (n for n in read(f"table:{tmp_path / 'log.csv'}").notes if "order of the file" in n)
    assert "newest first" in note
    apart = [f"2020-09-{day:02d}" for day in range(1, 30)]
    assert not any("order of the file" in n for n in log_of(tmp_path, apart + apart[:1]).notes)


@pytest.mark.parametrize(
    ("written", "seconds", "note"),
    [
        ("1600214400", MIDNIGHT, None),
        ("1600214400.75", MIDNIGHT, None),
        ("1600214400123", MIDNIGHT, "milliseconds"),
        ("1600214400123456", MIDNIGHT, "microseconds"),
        ("1600214400123456789", MIDNIGHT, "nanoseconds"),
        ("2020-09-16", MIDNIGHT, None),
        ("2020-09-16 00:00:01", MIDNIGHT + 1, None),
        ("2020-09-16T00:00:01.5", MIDNIGHT + 1, None),
        ("2020-09-16T02:00:00+02:00", MIDNIGHT, None),
        ("2020-09-16T00:00:00Z", MIDNIGHT, None),
    ],
)
def test_times_however_written_become_seconds_utc(tmp_path, written, seconds, note):
    path = write(tmp_path / "log.csv", f"user,item,time\nu,i,{written}\n")
    log = read(f"table:{path}")
    assert log.times.tolist() == [seconds]
    assert any(note in found for found in log.notes) if note else len(log.notes) == 1


def test_zoned_and_naive_times_may_be_mixed(tmp_path):
    text = "user,item,time\nu,i,2020-09-16T02:00:00+02:00\nu,j,2020-09-16\n"
    log = read(f"table:{write(tmp_path / 'log.csv', text)}")
    assert log.times.tolist() == [MIDNIGHT, MIDNIGHT]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "Europe/Stockholm"])
def test_parquet_timestamps_of_any_unit_and_zone_become_seconds_utc(tmp_path, unit, zone):
    times = pd.to_datetime([MIDNIGHT, MIDNIGHT + 1], unit="s").as_unit(unit)
    if zone:
        times = times.tz_localize("UTC").tz_convert(zone)
    pd.DataFrame({"user": [1, 1], "item": [2, 3], "time": times}).to_parquet(tmp_path / "log")
    assert read(f"table:{tmp_path / 'log'}").times.tolist() == [MIDNIGHT, MIDNIGHT + 1]


def test_parquet_dates_are_midnight(tmp_path):
    days = pa.array([MIDNIGHT // DAY, -1], pa.int32()).cast(pa.date32())
    pq.write_table(pa.table({"user": ["u", "u"], "item": [1, 2], "time": days}), tmp_path / "log")
    assert read(f"table:{tmp_path / 'log'}").times.tolist() == [MIDNIGHT, -DAY]
