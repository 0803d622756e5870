"""No file is too long for one head, and benches stand on what is public."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LONGEST = 400  # lines
PACKAGES = ("seqrec_export", "seqrec_cli")
BENCHES = sorted((ROOT / "bench").rglob("*.py"))


def test_no_file_is_longer_than_400_lines() -> None:
    files = [
        file
        for folder in ("export", "cli", "tests", "bench", "examples")
        for file in (ROOT / folder).rglob("*.py")
    ]
    lengths = {
        str(file.relative_to(ROOT)): len(file.read_text(encoding="utf-8").splitlines())
        for file in files
    }
    assert len(lengths) > 150
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST} == {}


@pytest.mark.parametrize("bench", BENCHES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_bench_imports_nothing_from_the_tests_and_no_private_name(bench: Path) -> None:
    tree = ast.parse(bench.read_text(encoding="utf-8"))
    assert list(complaints(tree)) == []


def complaints(tree: ast.AST) -> Iterator[str]:
    """What a bench may not do: import from tests, change sys.path, use private names of ours."""
    ours: set[str] = set()  # names in this file that stand for something of the packages
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported = [(alias.name, alias.asname or alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imported = [(f"{node.module}.{a.name}", a.asname or a.name) for a in node.names]
        else:
            continue
        for path, name in imported:
            package, *inner = path.split(".")
            if package in ("tests", "support", "conftest"):
                yield f"line {node.lineno} imports {path}"
            if package in PACKAGES:
                ours.add(name.partition(".")[0])
                if any(part.startswith("_") for part in inner):
                    yield f"line {node.lineno} imports {path}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            chain = ast.unparse(node)
            if chain == "sys.path":
                yield f"line {node.lineno} looks at sys.path"
            of, *names = chain.split(".")
            if of in ours and any(n.startswith("_") and not n.startswith("__") for n in names):
                yield f"line {node.lineno} uses {chain}"


@pytest.mark.parametrize(
    "source",
    [
        "from support.served import TOP_K",
        "import tests.support.served",
        "from seqrec_export.training.fit import _Fit",
        "from seqrec_export.data.readers import synthetic\nsynthetic._ages(1)",
        "import seqrec_export.training.fit\nseqrec_export.training.fit._begin(0)",
        "import sys\nsys.path.insert(0, 'tests')",
    ],
)
def test_such_a_bench_would_be_found(source: str) -> None:
    assert len(list(complaints(ast.parse(source)))) == 1


def test_every_bench_stands_in_a_folder_that_the_package_names() -> None:
    listed = (ROOT / "bench" / "__init__.py").read_text(encoding="utf-8")
    for bench in BENCHES:
        if bench.parent != ROOT / "bench":
            assert f"`{bench.relative_to(ROOT).parts[1]}`" in listed
