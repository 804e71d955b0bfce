"""What a newcomer reads is true: the commands exist, the files named are there, the version is one."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from zwheel._version import __version__

from .tree import CODE, OTHERS, ROOT, files, short

PAGES = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *files(".md", *CODE, *OTHERS, "deploy")})
TEXTS = sorted(
    {
        *PAGES,
        *files(".py", *CODE, *OTHERS),
        *files(".lua", "lua"),
        *(path for path in (ROOT / "deploy").rglob("*") if path.is_file()),
        *(path for path in (ROOT / ".ci").iterdir() if path.is_file()),
        *(ROOT / name for name in ("Makefile", "pyproject.toml", "docker-compose.yml", ".gitignore")),
    }
)
HERE = re.compile(r"(?<![\w.])/(?:work|root|Users)/\w")
"""A path on the machine of the person who wrote the text."""
HOSTS = re.compile(r"\b(?:pypi|pythonhosted|npmjs|docker|quay|ghcr|golang)\.(?:org|com|io)\b|--(?:extra-)?index-url")
"""Where packages come from is the user's own setting."""
ADVICE = re.compile(r"`make ([a-z]+)[^`]*`|^\s*(?:\$ )?make ([a-z]+)\b", re.MULTILINE)


def makefile() -> str:
    return (ROOT / "Makefile").read_text(encoding="utf-8")


def targets() -> dict[str, str]:
    """The targets a person may name, with their comments."""
    return dict(re.findall(r"^([a-z]+):[^#\n]*## (.+)$", makefile(), re.MULTILINE))


def test_each_target_has_a_comment_and_make_help_shows_it() -> None:
    named = set(re.findall(r"^([a-z]+):", makefile(), re.MULTILINE))
    assert named == set(targets())
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [name for name in named if f"make {name}" not in shown] == []
    assert {"setup", "test", "check", "bench", "demo"} <= named


def test_ci_runs_the_commands_the_readme_gives() -> None:
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in ("make test", "make demo"):
        assert command in ci
        assert command in readme


@pytest.mark.parametrize("page", PAGES, ids=short)
def test_a_make_command_in_a_page_exists(page: Path) -> None:
    advised = {first or second for first, second in ADVICE.findall(page.read_text(encoding="utf-8"))}
    assert advised <= set(targets())


@pytest.mark.parametrize("page", PAGES, ids=short)
def test_a_link_in_a_page_leads_to_a_file(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_readme_leads_to_every_page_of_the_docs() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [page for page in map(short, (ROOT / "docs").glob("*.md")) if f"]({page})" not in readme] == []


@pytest.mark.parametrize("path", TEXTS, ids=short)
def test_a_text_names_no_machine_of_its_writer(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert [found[0] for found in HERE.finditer(text)] == []
    assert [found[0] for found in HOSTS.finditer(text)] == []


def test_the_changelog_has_the_shape_of_keep_a_changelog() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[(.+?)\](.*)$", text, re.MULTILINE)
    assert headings
    assert any(name in {"Unreleased", __version__} or __version__ in rest for name, rest in headings)
    kinds = set(re.findall(r"^### (.+)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_guide_for_contributors_stays_short() -> None:
    assert len((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()) < 100


def test_the_licence_names_the_contributors() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert text.startswith("MIT License")
    assert "zwheel contributors" in text
