"""The bench may import the product, never the other way."""

import ast
from pathlib import Path

import hsf_tune


def test_product_imports_nothing_of_the_bench():
    """Not even inside a function: the bench does not travel in the wheel."""
    imported = set()
    for path in Path(hsf_tune.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(str(node.module).split(".")[0])
    assert "torch" in imported
    assert not imported & {"benchmarks", "scripts", "tests"}
