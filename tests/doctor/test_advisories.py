from __future__ import annotations

import pytest

from zwheel.doctor.advisories import ADVISORIES, fixed_in, has_fault, known_faults, parse_version

PARSER = "CVE-2025-49844"
COLLECTOR = "CVE-2024-46981"


def names(family: str, written: str) -> set[str]:
    version = parse_version(written)
    assert version is not None
    return {name for fault in known_faults(family, version) for name in fault.names}


@pytest.mark.parametrize(
    ("family", "last_bad", "first_good"),
    [
        ("Redis", "7.2.10", "7.2.11"), ("Redis", "7.4.5", "7.4.6"), ("Redis", "8.0.3", "8.0.4"),
        ("Redis", "8.2.1", "8.2.2"), ("Valkey", "7.2.10", "7.2.11"), ("Valkey", "8.0.5", "8.0.6"),
        ("Valkey", "8.1.3", "8.1.4"),
    ],
)  # fmt: skip
def test_the_parser_fault_ends_with_the_fix_of_each_branch(family: str, last_bad: str, first_good: str) -> None:
    assert PARSER in names(family, last_bad)
    assert PARSER not in names(family, first_good)


@pytest.mark.parametrize(
    ("family", "last_bad", "first_good"),
    [
        ("Redis", "7.2.6", "7.2.7"), ("Redis", "7.4.1", "7.4.2"), ("Valkey", "7.2.7", "7.2.8"),
        ("Valkey", "8.0.1", "8.0.2"),
    ],
)  # fmt: skip
def test_the_collector_fault_ends_with_the_fix_of_each_branch(family: str, last_bad: str, first_good: str) -> None:
    assert COLLECTOR in names(family, last_bad)
    assert COLLECTOR not in names(family, first_good)


def test_a_branch_that_got_no_fix_has_every_fault_mended_after_it() -> None:
    assert names("Redis", "7.0.15") >= {PARSER, COLLECTOR, "CVE-2024-31449", "CVE-2026-23631"}
    assert "CVE-2022-24834" in names("Redis", "7.0.11")
    assert "CVE-2022-24834" not in names("Redis", "7.0.12")
    assert names("Redis", "8.0.9") == {"CVE-2026-23631", "CVE-2026-23479"}


def test_a_branch_that_began_after_the_fix_is_free_of_it() -> None:
    assert names("Redis", "8.8.0") == set()
    assert names("Valkey", "9.1.2") == set()
    assert names("Valkey", "9.0.1") == {"CVE-2025-67733", "CVE-2026-23631", "CVE-2026-23479"}
    assert "CVE-2025-67733" not in names("Redis", "7.2.5"), "a fault of Valkey only"


def test_the_next_release_without_a_known_fault_is_named() -> None:
    assert fixed_in("Redis", (7, 0, 15)) == "7.2.14"
    assert fixed_in("Redis", (7, 4, 1)) == "7.4.9"
    assert fixed_in("Redis", (8, 0, 9)) == "8.2.6"
    assert fixed_in("Valkey", (8, 1, 0)) == "8.1.7"


def test_every_named_fix_is_good_in_the_eyes_of_its_own_advisory() -> None:
    for advisory in ADVISORIES:
        for fixes in (advisory.redis, advisory.valkey):
            assert list(fixes) == sorted(fixes)
            assert len({fix[:2] for fix in fixes}) == len(fixes), "one fix a branch"
            for fix in fixes:
                assert not has_fault(fix, fixes)
                assert has_fault((fix[0], fix[1], fix[2] - 1), fixes)


@pytest.mark.parametrize(
    ("written", "version"),
    [("7.2.11", (7, 2, 11)), ("255.255.255", (255, 255, 255)), ("8.0", (8, 0, 0)), ("unstable", None), ("", None)],
)
def test_versions_are_read(written: str, version: tuple[int, int, int] | None) -> None:
    assert parse_version(written) == version
