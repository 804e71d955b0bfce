"""Times and durations as people type them: what is understood, and what is refused with which sentence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zwheel.cli.when import describe_when, find_zone, human_count, human_duration, parse_when
from zwheel.errors import InvalidTime
from zwheel.schedules.durations import parse_duration
from zwheel.times import MAX_MS, to_datetime

BERLIN = ZoneInfo("Europe/Berlin")
NEW_YORK = ZoneInfo("America/New_York")
NOW = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)  # a Friday


def instant(text: str, *, now: datetime = NOW, default_tz: tzinfo | None = None) -> str:
    when = parse_when(text, now=now, default_tz=default_tz)
    assert when.utcoffset() is not None
    return when.astimezone(UTC).isoformat().replace("+00:00", "Z")


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("10m", 600_000),
        ("1h30m", 5_400_000),
        ("1h 30m", 5_400_000),
        ("90s", 90_000),
        ("250ms", 250),
        ("2d", 172_800_000),
        ("1w", 604_800_000),
        ("1w2d3h4m5s6ms", 788_645_006),
        ("1m1ms", 60_001),
        ("1.5h", 5_400_000),
        ("0.001s", 1),
        ("0s", 0),
        (" 5s ", 5000),
        ("PT1H30M", 5_400_000),
        ("PT0.25S", 250),
        ("P1D", 86_400_000),
        ("P1DT1S", 86_401_000),
        ("P2W", 1_209_600_000),
        ("PT0S", 0),
    ],
)
def test_a_duration_is_understood(text: str, ms: int) -> None:
    assert parse_duration(text) == ms


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("90", "say the unit, 90s for seconds or 90m for minutes"),
        ("1.5", "say the unit"),
        ("-5m", "cannot be negative"),
        ("1mo", "months and years have no fixed length"),
        ("2 months", "months and years have no fixed length"),
        ("1y", "months and years have no fixed length"),
        ("P1M", "months and years have no fixed length"),
        ("P1Y2M", "months and years have no fixed length"),
        ("", "use numbers with the units"),
        ("m", "use numbers with the units"),
        ("ten minutes", "use numbers with the units"),
        ("10M", "use numbers with the units"),
        ("10 m", "use numbers with the units"),
        ("10min", "use numbers with the units"),
        ("30m1h", "large to small"),
        ("1h1h", "large to small"),
        ("1h,5s", "use numbers with the units"),
        ("1_000s", "use numbers with the units"),
        ("٣m", "use numbers with the units"),
        ("1e3s", "use numbers with the units"),
        ("infs", "use numbers with the units"),
        ("PT", "use numbers with the units"),
        ("P", "use numbers with the units"),
        ("PT1H30", "use numbers with the units"),
        ("P1H", "use numbers with the units"),
        ("0.0001s", "finer than a millisecond"),
        ("1.5ms", "finer than a millisecond"),
        ("99999999w", "beyond the year 9999"),
        ("9" * 5000 + "s", "use numbers with the units"),
    ],
)
def test_a_duration_that_is_not_clear_is_refused(text: str, hint: str) -> None:
    with pytest.raises(InvalidTime, match=hint) as caught:
        parse_duration(text)
    assert len(str(caught.value)) < 250
    assert str(caught.value).isascii()


@given(
    st.integers(0, 5),
    st.integers(0, 6),
    st.integers(0, 30),
    st.integers(0, 90),
    st.integers(0, 90),
    st.integers(0, 1500),
)
@example(0, 0, 0, 0, 0, 0)
def test_a_duration_is_the_sum_of_its_parts(w: int, d: int, h: int, m: int, s: int, ms: int) -> None:
    total = (((w * 7 + d) * 24 + h) * 60 + m) * 60_000 + s * 1000 + ms
    assert parse_duration(f"{w}w{d}d{h}h{m}m{s}s{ms}ms") == total


@given(st.text(alphabet="0123456789.wdhmsPT :-+@ZeE/", max_size=30) | st.text(max_size=30))
def test_any_text_is_understood_or_refused(text: str) -> None:
    try:
        assert 0 <= parse_duration(text) <= MAX_MS
    except InvalidTime:
        pass
    try:
        assert parse_when(text, now=NOW, default_tz=BERLIN).utcoffset() is not None
    except InvalidTime:
        pass


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-12-01T09:00:00Z", "2026-12-01T09:00:00Z"),
        ("2026-12-01t09:00z", "2026-12-01T09:00:00Z"),
        ("2026-12-01 09:00+01:00", "2026-12-01T08:00:00Z"),
        ("2026-12-01 09:00 +0100", "2026-12-01T08:00:00Z"),
        ("2026-12-01T09:00-03", "2026-12-01T12:00:00Z"),
        ("2026-12-01T09:00:00.250Z", "2026-12-01T09:00:00.250000Z"),
        ("2026-12-01 09:00 Europe/Berlin", "2026-12-01T08:00:00Z"),
        ("2026-12-01T09:00[Europe/Berlin]", "2026-12-01T08:00:00Z"),
        ("2026-12-01T09:00+01:00[Europe/Berlin]", "2026-12-01T08:00:00Z"),
        ("2026-07-01 09:00 Europe/Berlin", "2026-07-01T07:00:00Z"),
        ("2026-12-01 09:00 UTC", "2026-12-01T09:00:00Z"),
        ("2026-12-01 9:00 Asia/Kolkata", "2026-12-01T03:30:00Z"),
        ("2026-10-25 02:30+02:00 Europe/Berlin", "2026-10-25T00:30:00Z"),
        ("2026-10-25 02:30+01:00 Europe/Berlin", "2026-10-25T01:30:00Z"),
        ("2026-03-29 02:30+01:00", "2026-03-29T01:30:00Z"),
        ("1999-01-01 00:00Z", "1999-01-01T00:00:00Z"),
        ("@1790000000", "2026-09-21T14:13:20Z"),
        ("@1790000000.123", "2026-09-21T14:13:20.123000Z"),
        ("@0", "1970-01-01T00:00:00Z"),
        ("13:00 UTC", "2026-11-20T13:00:00Z"),
        ("12:30 UTC", "2026-11-21T12:30:00Z"),
        ("12:29:59Z", "2026-11-21T12:29:59Z"),
        ("12:30:01Z", "2026-11-20T12:30:01Z"),
        ("14:00 Europe/Berlin", "2026-11-20T13:00:00Z"),
        ("13:30 Europe/Berlin", "2026-11-21T12:30:00Z"),
        ("00:30 Pacific/Kiritimati", "2026-11-21T10:30:00Z"),
        ("today 09:00Z", "2026-11-20T09:00:00Z"),
        ("Today 18:00 Europe/Berlin", "2026-11-20T17:00:00Z"),
        ("today 01:00 Pacific/Kiritimati", "2026-11-20T11:00:00Z"),
        ("tomorrow 9:00 America/New_York", "2026-11-21T14:00:00Z"),
        ("tomorrow 09:00+05:30", "2026-11-21T03:30:00Z"),
        ("fri 13:00 UTC", "2026-11-20T13:00:00Z"),
        ("fri 12:00 UTC", "2026-11-27T12:00:00Z"),
        ("Friday 12:30 UTC", "2026-11-27T12:30:00Z"),
        ("sat 00:00 UTC", "2026-11-21T00:00:00Z"),
        ("thurs 00:00 UTC", "2026-11-26T00:00:00Z"),
        ("monday 09:00 Europe/Berlin", "2026-11-23T08:00:00Z"),
        ("  2026-12-01 09:00 UTC  ", "2026-12-01T09:00:00Z"),
    ],
)
def test_a_time_is_understood(text: str, utc: str) -> None:
    assert instant(text) == utc


@pytest.mark.parametrize("text", ["2026-12-01 09:00", "2026-12-01T09:00:00", "09:00", "tomorrow 09:00", "fri 09:00"])
def test_a_time_without_a_zone_takes_the_given_one_or_is_refused(text: str) -> None:
    assert parse_when(text, now=NOW, default_tz=NEW_YORK).tzinfo is NEW_YORK
    with pytest.raises(
        InvalidTime, match=r"has no time zone: add one, as in '.* Europe/Berlin' or '.*Z', or give --tz"
    ):
        parse_when(text, now=NOW, default_tz=None)


def test_the_zone_in_the_text_wins_over_the_given_one() -> None:
    assert instant("2026-12-01 09:00Z", default_tz=NEW_YORK) == "2026-12-01T09:00:00Z"
    assert instant("2026-12-01 09:00 Europe/Berlin", default_tz=NEW_YORK) == "2026-12-01T08:00:00Z"


def test_the_zone_of_the_machine_is_never_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    for text in ("2026-12-01 09:00", "2026-12-01 09:00 localtime", "2026-12-01 09:00 local"):
        with pytest.raises(InvalidTime):
            parse_when(text, now=NOW, default_tz=None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2026-12-01", r"add the time of day, as in '2026-12-01 09:00 Europe/Berlin'"),
        ("01/02/2027 09:00Z", "year-month-day"),
        ("1.2.2027", "year-month-day"),
        ("1790000000", "are written @1790000000"),
        ("@1790000000000", "after @ come seconds, not milliseconds"),
        ("@soon", "after @ come the seconds since 1970"),
        ("@-5", "after @ come the seconds since 1970"),
        ("9am", "use 24 hours"),
        ("tomorrow 9:00 pm", "use 24 hours"),
        ("10m", "use --in"),
        ("in 1h 30m", "use --in"),
        ("", "such as '2026-12-01 09:00 Europe/Berlin'"),
        ("tomorrow", "such as"),
        ("2026-12-01T09:00:00.1234567Z", "such as"),
        ("2026-12-01 09:00 Europe/Berlin please", "such as"),
        ("someday 09:00Z", "'someday' is no day, use today, tomorrow or mon to sun"),
        ("mo 09:00Z", "'mo' is no day"),
        ("2026-02-30 09:00Z", "names a day that does not exist"),
        ("2026-13-01 09:00Z", "names a day that does not exist"),
        ("2026-12-01 23:59:60Z", "names a leap second, which clocks here do not have"),
        ("2026-12-01 24:00Z", "has no hour 24: use 00:00 of the next day"),
        ("2026-12-01 25:00Z", "has no such time of day"),
        ("2026-12-01 09:60Z", "has no such time of day"),
        ("2026-12-01 09:00+25:00", "has no valid offset"),
        ("2026-12-01 09:00+01:00 Asia/Tokyo", r"contradicts itself: Asia/Tokyo is at \+09:00 then"),
        ("2026-10-25 02:30+03:00 Europe/Berlin", r"Europe/Berlin is at \+02:00 or \+01:00 then"),
        ("1969-12-31 23:59Z", "outside 1970-01-01 to 9999-12-31"),
        ("0001-01-01 00:00 Asia/Tokyo", "outside 1970-01-01 to 9999-12-31"),
        ("9999-12-31 23:59 America/New_York", "outside 1970-01-01 to 9999-12-31"),
        ("2026-12-01 09:00 CEST", "an abbreviation can mean several zones"),
        ("2026-12-01 09:00 berlin", r"did you mean Europe/Berlin\?"),
        ("2026-12-01 09:00 europe/berlin", r"did you mean Europe/Berlin\?"),
        ("2026-12-01 09:00 Europe/Berlni", "did you mean Europe/Berlin"),
        ("2026-12-01 09:00 Europe", "is not the name of a time zone"),
        ("2026-12-01 09:00 right/Europe/Berlin", "is not the name of a time zone"),
        ("2026-12-01 09:00 Nowhere/Atall", "use one such as Europe/Berlin"),
        ("x" * 5000, "such as"),
    ],
)
def test_a_time_that_is_not_clear_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidTime, match=message) as caught:
        parse_when(text, now=NOW, default_tz=None)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/localtime", "", "Europe/Berlin ", "Europe//Berlin", "a" * 300]
)
def test_a_zone_is_a_name_and_never_a_path(name: str) -> None:
    with pytest.raises(InvalidTime, match="is not the name of a time zone"):
        find_zone(name)


@pytest.mark.parametrize(
    ("text", "before", "after"),
    [
        ("2026-03-29 02:30 Europe/Berlin", "2026-03-29 01:59", "2026-03-29 03:00"),
        ("2026-03-29 02:00 Europe/Berlin", "2026-03-29 01:59", "2026-03-29 03:00"),
        ("2026-03-29 02:59:59 Europe/Berlin", "2026-03-29 01:59", "2026-03-29 03:00"),
        ("2026-03-29 02:30+01:00 Europe/Berlin", "2026-03-29 01:59", "2026-03-29 03:00"),
        ("2026-10-04 02:15 Australia/Lord_Howe", "2026-10-04 01:59", "2026-10-04 02:30"),
        ("2011-12-30 12:00 Pacific/Apia", "2011-12-29 23:59", "2011-12-31 00:00"),
    ],
)
def test_a_time_that_the_clocks_skip_is_refused_with_its_neighbours(text: str, before: str, after: str) -> None:
    with pytest.raises(InvalidTime, match=f"use {before}, the last minute before, or {after}, the first after"):
        parse_when(text, now=NOW, default_tz=None)
    zone = text.split()[-1]
    early, late = (parse_when(f"{neighbour} {zone}", now=NOW, default_tz=None) for neighbour in (before, after))
    assert late.astimezone(UTC) - early.astimezone(UTC) == timedelta(minutes=1)


def test_a_time_that_the_clocks_repeat_is_refused_with_the_offsets_to_add() -> None:
    with pytest.raises(InvalidTime, match=r"happens twice in Europe/Berlin, when the clocks go back") as caught:
        parse_when("2026-10-25 02:30 Europe/Berlin", now=NOW, default_tz=None)
    assert "add +02:00 for the first or +01:00 for the second" in str(caught.value)
    example = str(caught.value).split("as in '")[1].rstrip("'")
    assert instant(example) == "2026-10-25T00:30:00Z"


@pytest.mark.parametrize(
    ("text", "now", "utc"),
    [
        ("02:30", datetime(2026, 3, 29, 9, tzinfo=UTC), "2026-03-30T00:30:00Z"),
        ("02:30", datetime(2026, 10, 25, 9, tzinfo=UTC), "2026-10-26T01:30:00Z"),
        ("sun 02:30", datetime(2026, 10, 25, 9, tzinfo=UTC), "2026-11-01T01:30:00Z"),
        ("02:30+01:00", datetime(2026, 10, 25, 1, 0, tzinfo=UTC), "2026-10-25T01:30:00Z"),
    ],
)
def test_a_changed_hour_that_has_passed_is_no_obstacle_to_the_next(text: str, now: datetime, utc: str) -> None:
    assert instant(text, now=now, default_tz=BERLIN) == utc


@pytest.mark.parametrize(
    ("text", "now"),
    [
        ("02:30", datetime(2026, 3, 29, 0, 30, tzinfo=UTC)),
        ("02:30", datetime(2026, 10, 24, 23, 0, tzinfo=UTC)),
        ("02:30", datetime(2026, 10, 25, 0, 40, tzinfo=UTC)),
        ("tomorrow 02:30", datetime(2026, 3, 28, 9, tzinfo=UTC)),
    ],
)
def test_a_changed_hour_still_to_come_is_refused(text: str, now: datetime) -> None:
    with pytest.raises(InvalidTime, match="the clocks"):
        parse_when(text, now=now, default_tz=BERLIN)


ZONES = [
    "Europe/Berlin", "Europe/Dublin", "America/New_York", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kolkata",
    "Asia/Tehran", "Asia/Kathmandu", "Pacific/Apia", "Pacific/Kiritimati", "Africa/Casablanca", "Africa/Monrovia",
]  # fmt: skip


@given(st.integers(86_400, 8_000_000_000), st.sampled_from(ZONES), st.booleans())
def test_every_time_that_exists_once_is_read_back_as_itself(seconds: int, name: str, shift: bool) -> None:
    zone = ZoneInfo(name)
    when = datetime.fromtimestamp(seconds, zone)
    if shift:  # wall times that no clock shows come in here
        when = (when + timedelta(hours=1)).replace(fold=0)
    offsets = {when.replace(fold=fold).utcoffset() for fold in (0, 1)}
    try:
        got = parse_when(f"{when:%Y-%m-%d %H:%M:%S} {name}", now=NOW, default_tz=None)
    except InvalidTime:
        got = None
    assert (got is None) == (len(offsets) == 2)
    assert got is None or (got == when and got.tzinfo is zone)


@given(st.integers(0, MAX_MS))
def test_every_millisecond_is_read_back_from_epoch_and_iso_text(ms: int) -> None:
    when = to_datetime(ms)
    assert parse_when(f"@{ms // 1000}.{ms % 1000:03d}", now=NOW, default_tz=None) == when
    assert parse_when(when.isoformat(), now=NOW, default_tz=None) == when


def test_now_must_be_aware() -> None:
    with pytest.raises(InvalidTime, match="aware"):
        parse_when("09:00Z", now=NOW.replace(tzinfo=None), default_tz=None)


@pytest.mark.parametrize(
    ("when", "text"),
    [
        (
            datetime(2026, 12, 1, 9, tzinfo=BERLIN),
            "Tue 2026-12-01 09:00:00 Europe/Berlin = 2026-12-01T08:00:00Z, in 10 d 19 h",
        ),
        (
            datetime(2026, 12, 1, 9, tzinfo=UTC),
            "Tue 2026-12-01 09:00:00 UTC = 2026-12-01T09:00:00Z, in 10 d 20 h",
        ),
        (
            datetime(2026, 11, 20, 18, tzinfo=timezone(timedelta(hours=5, minutes=30))),
            "Fri 2026-11-20 18:00:00 +05:30 = 2026-11-20T12:30:00Z, now",
        ),
        (
            datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1),
            "Sun 2026-10-25 02:30:00 +01:00 Europe/Berlin = 2026-10-25T01:30:00Z, 26 d 11 h ago",
        ),
        (
            NOW + timedelta(milliseconds=250),
            "Fri 2026-11-20 12:30:00.250 UTC = 2026-11-20T12:30:00.250Z, in 250 ms",
        ),
        (
            NOW - timedelta(seconds=4, microseconds=1),
            "Fri 2026-11-20 12:29:55.999999 UTC = 2026-11-20T12:29:55.999999Z, 4 s ago",
        ),
    ],
)
def test_a_time_is_shown_with_its_zone_in_utc_and_from_now(when: datetime, text: str) -> None:
    assert describe_when(when, NOW) == text


def test_a_time_without_a_zone_is_not_shown() -> None:
    with pytest.raises(InvalidTime):
        describe_when(NOW.replace(tzinfo=None), NOW)


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0 s"),
        (1, "1 ms"),
        (999, "999 ms"),
        (1000, "1 s"),
        (4250, "4.2 s"),
        (9999, "9.9 s"),
        (10_900, "10 s"),
        (59_999, "59 s"),
        (60_000, "1 m"),
        (252_000, "4 m 12 s"),
        (3_600_000, "1 h"),
        (3_659_000, "1 h"),
        (12_000_000, "3 h 20 m"),
        (86_399_999, "23 h 59 m"),
        (86_400_000, "1 d"),
        (896_400_000, "10 d 9 h"),
        (400 * 86_400_000, "400 d"),
        (4000 * 86_400_000, "4,000 d"),
        (-252_000, "-4 m 12 s"),
        (1500.7, "1.5 s"),
    ],
)
def test_a_duration_is_shown_by_its_two_largest_units(ms: float, text: str) -> None:
    assert human_duration(ms) == text


def test_a_count_is_shown_with_thousands_and_its_noun() -> None:
    assert human_count(48112) == "48,112"
    assert human_count(0, "job") == "0 jobs"
    assert human_count(1, "job") == "1 job"
    assert human_count(1204, "dead job") == "1,204 dead jobs"
