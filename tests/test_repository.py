"""The repository's promises about itself: what is packaged, what Bazel builds, what may import what."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
# A part of the library, a folder or a module, may import those before it; nobody upstream imports downstream.
_SERVING = ("errors", "execution", "numerics", "precision", "grid", "operations", "targets")
_WISHES = ("input_shapes", "option_groups", "options", "recipe")
_ROAD = ("models", "data", "quantized_model", "spec", "calibration", "simulate", "export", "verify", "evaluation")
_WHOLE = ("reconstruction", "allocation", "report", "inputs", "result", "pipeline", "library")
ORDER = (*_SERVING, *_WISHES, *_ROAD, *_WHOLE)
PRODUCT = ("tfq", "tools", "android_bench/host", "benchmarks")
_MOST_LINES, _MOST_PARAMETERS = 400, 8


def sources(folder: str) -> list[str]:
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.py"))


def imported_modules(path: pathlib.Path) -> Iterator[str]:
    """Full names of the modules that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} line {node.lineno}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def run(*command: str | pathlib.Path, cwd: pathlib.Path = ROOT, path: pathlib.Path | None = None) -> str:
    # A Bazel program runs with the python3 that PATH finds first: it must be this one.
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"]]),
    }
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The wheel, built from a copy of what packaging reads, and unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("tfq", "tools", "android_bench/host", "android_bench/runner"):
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    run(*pip, "--wheel-dir", folder, folder / "source")
    (built,) = folder.glob("tfq-*.whl")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(folder / "content")
    return folder / "content"


def entry_points(wheel: pathlib.Path) -> dict[str, str]:
    (distribution,) = importlib.metadata.distributions(path=[str(wheel)])
    return {e.name: e.value for e in distribution.entry_points if e.group == "console_scripts"}


def test_wheel_holds_every_module_and_no_package_called_tools(wheel: pathlib.Path) -> None:
    packaged = {path.relative_to(wheel).as_posix() for path in wheel.rglob("*.py")}
    tools = [name.replace("tools/", "tfq_tools/", 1) for name in sources("tools")]
    bench = [name.replace("android_bench/host/", "tfq_bench/", 1) for name in sources("android_bench/host")]
    assert packaged == {*sources("tfq"), *tools, *bench}
    assert (wheel / "tfq/py.typed").exists()
    assert (wheel / "tfq/report/templates/report.html").exists()
    runner = {path.name for path in (wheel / "tfq_bench/runner").iterdir()}
    assert {path.name for path in (ROOT / "android_bench/runner").glob("*.cc")} | {"CMakeLists.txt"} <= runner


def test_every_command_of_the_wheel_imports_without_loading_tensorflow(wheel: pathlib.Path) -> None:
    commands = entry_points(wheel)
    assert {"tfq-quantize", "tfq-evaluate", "tfq-inspect"} <= set(commands)
    for target in commands.values():
        module, function = target.split(":")
        program = f"import sys, {module} as m; print(callable(m.{function}), m.__file__, 'tensorflow' in sys.modules)"
        called, file, tensorflow = run(sys.executable, "-c", program, path=wheel).split()
        assert called == "True"
        assert pathlib.Path(file).is_relative_to(wheel)
        assert tensorflow == "False"


def test_every_package_that_is_imported_is_declared(wheel: pathlib.Path) -> None:
    (distribution,) = importlib.metadata.distributions(path=[str(wheel)])
    plain = [r for r in distribution.requires or [] if "extra ==" not in r]
    declared = {re.split(r"[^\w.-]", r)[0].lower().replace("_", "-") for r in plain}
    # imported only when it is asked for, and declared by an extra
    optional = {"tfq/execution/ray_fleet.py": "ray", "tfq/execution/dask_fleet.py": "distributed"}
    optional |= {"tools/tracking.py": "mlflow"}
    providers = importlib.metadata.packages_distributions()
    for name in [*sources("tfq"), *sources("tools"), *sources("android_bench/host")]:
        for module in imported_modules(ROOT / name):
            top = module.split(".")[0]
            if top in sys.stdlib_module_names or top in ("tfq", "tfq_bench", "tfq_tools", optional.get(name)):
                continue
            provided = {p.lower().replace("_", "-") for p in providers.get(top, ())}
            assert provided & declared, f"{name} imports {top}, which setup.py does not require"


def running(tree: ast.AST) -> Iterator[str]:
    """Modules that a module imports when it runs, inside functions too; not what serves the type checker alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        yield from running(node)


@pytest.mark.parametrize("part", ORDER)
def test_nothing_upstream_imports_downstream(part: str) -> None:
    place = ROOT / "tfq" / part
    for name in sources(f"tfq/{part}") if place.is_dir() else [f"tfq/{part}.py"]:
        for module in running(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
            top, *parts = module.split(".")
            assert top not in ("tfq_bench", "tfq_tools"), f"{name} imports {module}"
            if top == "tfq" and parts and parts[0] != part:
                assert ORDER.index(parts[0]) < ORDER.index(part), f"{name} imports {module}"


def test_every_part_of_the_library_has_its_place() -> None:
    found = {path.parent.name for path in (ROOT / "tfq").glob("*/__init__.py")}
    found |= {path.stem for path in (ROOT / "tfq").glob("*.py") if path.stem != "__init__"}
    assert found == set(ORDER)


@pytest.mark.parametrize("folder", PRODUCT)
def test_files_and_signatures_stay_small(folder: str) -> None:
    for name in sources(folder):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert len(text.splitlines()) <= _MOST_LINES, name
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                taken = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                assert len(taken) <= _MOST_PARAMETERS, f"{name} line {node.lineno}: {node.name} takes {len(taken)}"


def test_library_defines_no_flags() -> None:
    users = [n for n in sources("tfq") if any(m.startswith("absl") for m in imported_modules(ROOT / n))]
    assert users == []


@pytest.mark.skipif(shutil.which("bazel") is None, reason="bazel is not installed (apt install bazel-bootstrap)")
def test_bazel_builds_every_source_file_and_a_program_that_runs(tmp_path: pathlib.Path, wheel: pathlib.Path) -> None:
    checkout = tmp_path / "checkout"  # a copy, because a build must not see files come and go
    unwanted = shutil.ignore_patterns(".*", "__pycache__", "out", "build", "*.egg-info", "bazel-*")
    shutil.copytree(ROOT, checkout, ignore=unwanted)
    bazel = ("bazel", "--batch", f"--output_user_root={tmp_path / 'bazel'}")

    targets = "//tfq + //tools:copy + //android_bench/host:copy + //android_bench/testing + //tests"
    found = run(*bazel, "query", f"labels(srcs, {targets})", cwd=checkout).split()
    built = {label.removeprefix("//").replace(":", "/") for label in found if label.endswith(".py")}
    folders = ("tfq", "tools", "android_bench/host", "android_bench/testing", "tests")
    outside = {"tests/test_repository.py", *sources("tests/docs")}  # they look at the whole checkout
    assert built == {name for folder in folders for name in sources(folder)} - outside

    run(*bazel, "build", f"--symlink_prefix={tmp_path}/bazel-", "--noshow_progress", "//...", cwd=checkout)
    programs = {
        path.name: path for path in (tmp_path / "bazel-bin/tools").glob("tfq*") if not path.suffix and path.is_file()
    }
    assert set(programs) == set(entry_points(wheel))
    assert "--calibration_data" in run(programs["tfq-quantize"], "--help", cwd=tmp_path)
