"""What the histories of the model are drawn from."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.lua.shard import DIGEST, DIGEST2
from zwheel.times import DAY_MS

IDS = tuple("abcde")
WORKERS = ("w1111111", "w2222222", "w3333333")
LEASE, MOST_DEAD, DEAD_AGE = 30_000, 3, 10 * DAY_MS
#: Half a second before midnight, so that days change often.
BEGIN_US = (1_900_000_000_000 // DAY_MS + 1) * DAY_MS * 1000 - 500_000
WHY = b'{"at":1,"attempt":1,"reason":"error"}\n'

ids = st.sampled_from(IDS)
id_lists = st.lists(ids, min_size=1, max_size=4)
workers = st.sampled_from(WORKERS)
delays = st.sampled_from((0, 0, 0, 0, 1, 400, 1_000, LEASE, DAY_MS))
offsets = st.sampled_from((None, None, None, None, -2 * DAY_MS, -1, 0, 1, 700, DAY_MS))
travels = st.sampled_from((1, 999, 1_000, 250_000, 1_000_000, LEASE * 500 + 1, DAY_MS * 1000, -1, -5_000_000))
wanted = st.builds(
    lambda *parts: parts,
    ids, offsets, delays, st.sampled_from(("", DIGEST, DIGEST, DIGEST2)), st.sampled_from((None, 1, 5_000, DAY_MS)),
    st.sampled_from((0, 60_000)), st.integers(1, 3), st.sampled_from((False, False, True, None)),
    st.booleans(),
)  # fmt: skip
due = wanted.map(lambda want: (want[0], None, 0, *want[3:]))
whens = st.tuples(offsets, delays)
picks = st.lists(
    st.tuples(st.sampled_from(("live", "live", "stale", "any")), st.integers(0, 30)), min_size=1, max_size=3
)
lanes = st.integers(0, 1)
hows = st.sampled_from(("d", "x", "r", "b", "extend", "extend for long"))
#: By how much a reaper finds the clock off, µs, and how far it saw it jump, ms.
offs = st.sampled_from((None, None, None, 0, LEASE * 1000, -LEASE * 1000))
jumps = st.sampled_from((0, 0, 0, 0, 3_600_000, -3_600_000))
Fate = tuple[list[tuple[str, int]], str, tuple[int | None, int], bool]
endings = st.lists(st.tuples(picks, hows, whens, st.booleans()), max_size=4)
