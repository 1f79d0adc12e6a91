"""What the Markdown pages name is there: links, anchors, commands, flags, files."""

from __future__ import annotations

import importlib
import pathlib
import re
from collections import Counter
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDERS = ("tfq", "tools", "tests", "docs", "benchmarks", "demo", "android_bench", "third_party")
PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for page in (*ROOT.glob("*.md"), *(found for folder in FOLDERS for found in (ROOT / folder).rglob("*.md")))
)
COMMANDS = {
    f"tfq-{name}": importlib.import_module(f"tfq_tools.{name}").FLAGS
    for name in ("quantize", "evaluate", "inspect", "profile", "frontier", "batch", "bench", "report")
}
# Of cmake, bazel, Ray, Dask, SLURM and of every program.
FOREIGN = {
    "address", "array", "generate", "head", "host", "mem", "nthreads", "nworkers", "port", "requeue", "version",
    "build", "enable_workspace", "help", "incompatible_enable_cc_toolchain_resolution", "platforms", "test_arg",
    "test_output",
}  # fmt: skip
SCRIPTS = (*(ROOT / "benchmarks").glob("*.py"), ROOT / "tests/random_graphs.py", ROOT / "demo/train_digits.py")
FLAG = re.compile(r"(?<![\w-])--(?:no)?([a-z][a-z0-9_]*)(?![\w-])")


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def prose(page: str) -> str:
    """The page without its code blocks, fenced or indented."""
    text = re.sub(r"^```.*?^```", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"(?<=\n\n)(?:    .*\n)+", "", text)


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: Counter[str] = Counter()
    names = set()
    for heading in re.findall(r"^#+ +(.+?) *$", prose(page), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        names.add(f"{slug}-{found[slug]}" if found[slug] else slug)
        found[slug] += 1
    return names


def links(page: str) -> Iterator[str]:
    spans = re.sub(r"`[^`\n]*`", "", prose(page))
    yield from (found for found in re.findall(r"\]\(([^)\s]+)\)", spans) if not re.match(r"[a-z]+:", found))


def flags_of_scripts() -> set[str]:
    """Flags of the programs that are no commands: benchmarks, the random models of the tests, the demo's training."""
    found = re.compile(r"""(?:(?:add_argument|DEFINE_\w+|get)\(\s*|\[)"(?:--)?(\w+)\"""")
    return {name for script in SCRIPTS for name in found.findall(script.read_text(encoding="utf-8"))}


def command_lines(page: str) -> Iterator[tuple[str, str]]:
    """(command, the rest of its line) of every call of a command, continued lines joined."""
    for line in text_of(page).replace("\\\n", " ").splitlines():
        yield from re.findall(r"(?:^|[\s`/])(tfq-[a-z]+)((?:\s[^`#]*)?)", line)


def test_all_pages_are_looked_at() -> None:
    assert {"README.md", "docs/options.md", "docs/faq.md", "docs/benchmarks/int8.md", "demo/README.md"} <= set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), f"{page} links to {link}, which is not there"
        if anchor:
            name = target.resolve().relative_to(ROOT).as_posix()
            assert anchor in anchors(name), f"{page} links to {link}; {name} has no such heading"


@pytest.mark.parametrize("page", PAGES)
def test_commands_have_the_flags_that_are_given_to_them(page: str) -> None:
    for command, rest in command_lines(page):
        if not FLAG.search(rest):
            continue
        assert command in COMMANDS, f"{page} names {command}"
        unknown = [name for name in FLAG.findall(rest) if name not in COMMANDS[command] and name != "help"]
        assert not unknown, f"{page}: {command} has no flag {', '.join(unknown)}"


@pytest.mark.parametrize("page", PAGES)
def test_flags_exist(page: str) -> None:
    known = FOREIGN.union(flags_of_scripts(), *COMMANDS.values())
    unknown = sorted(set(FLAG.findall(text_of(page))) - known)
    assert not unknown, f"{page} names flags that no command has: {', '.join(unknown)}"


@pytest.mark.parametrize("page", PAGES)
def test_files_exist(page: str) -> None:
    for span in re.findall(r"`([^`\n]+)`", prose(page)):
        if re.fullmatch(rf"(?:{'|'.join(FOLDERS)})/[\w./-]*", span):
            assert (ROOT / span).exists(), f"{page} names {span}, which is not there"


@pytest.mark.parametrize("page", PAGES)
def test_modules_that_are_run_exist(page: str) -> None:
    for module in re.findall(r"python -m ((?:benchmarks|tfq|tests)\.[\w.]+\w)", text_of(page)):
        assert (ROOT / f"{module.replace('.', '/')}.py").exists(), f"{page} runs {module}, which is not there"


def test_every_page_of_the_documentation_is_reached_from_the_readme() -> None:
    reached, waiting = set(), ["README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or not page.endswith(".md"):
            continue
        reached.add(page)
        for link in links(page):
            path = link.partition("#")[0]
            if path:
                waiting.append(((ROOT / page).parent / path).resolve().relative_to(ROOT).as_posix())
    assert [page for page in PAGES if page.startswith("docs/") and page not in reached] == []


def test_the_readme_is_short() -> None:
    assert len(text_of("README.md").splitlines()) <= 80
