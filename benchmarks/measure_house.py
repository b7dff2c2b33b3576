"""How large and how tangled is the package? Lines of code, modules, circles, long modules.

    python benchmarks/measure_house.py
    python benchmarks/measure_house.py ../vidface_before/vidface

A line of code holds a token that is no comment and no part of a docstring. A circle is a set of
modules that import each other, imports inside functions included, those for type checkers not.
"""

from __future__ import annotations

import argparse
import ast
import io
import tokenize
from collections import Counter, defaultdict
from pathlib import Path

LONGEST = 450  # lines of a module
SILENT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def code_lines(text: str) -> int:
    """The number of lines that hold code.

    >>> code_lines('\"\"\"A docstring.\"\"\"\\n\\nx = 1  # a comment\\n# another\\n')
    1
    """
    tree = ast.parse(text)
    docstrings: set[int] = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", [])
        for statement in body if isinstance(body, list) else []:
            value = getattr(statement, "value", None)
            if isinstance(statement, ast.Expr) and isinstance(value, ast.Constant):
                docstrings |= set(range(statement.lineno, (statement.end_lineno or 0) + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in SILENT:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - docstrings)


def module_name(path: Path, package: Path) -> str:
    parts = [package.name, *path.relative_to(package).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(tree: ast.AST, names: set[str]) -> tuple[set[str], int]:
    """The package's modules that a module imports, and how many statements stand in functions."""
    found: set[str] = set()
    inside = 0

    def visit(node: ast.AST, in_function: bool) -> None:
        nonlocal inside
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.ImportFrom) and child.module:
                full = {f"{child.module}.{alias.name}" for alias in child.names}
                targets = {name if name in names else child.module for name in full} & names
                found.update(targets)
                inside += bool(targets) and in_function
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            visit(child, in_function or function)

    visit(tree, False)
    return found, inside


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The sets of more than one module that reach each other."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            module = waiting.pop()
            for other in graph[module] - seen:
                seen.add(other)
                waiting.append(other)
        return seen

    reach = {module: reached(module) for module in graph}
    groups = {
        tuple(sorted({module} | {o for o in reach[module] if module in reach[o]}))
        for module in graph
    }
    return sorted(list(group) for group in groups if len(group) > 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = Path(__file__).resolve().parents[1] / "vidface"
    parser.add_argument("package", type=Path, nargs="?", default=default)
    package = parser.parse_args().package.resolve()
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(package.rglob("*.py"))}
    names = {module_name(path, package) for path in texts}
    graph: dict[str, set[str]] = defaultdict(set)
    inside = 0
    code: Counter[str] = Counter()
    for path, text in texts.items():
        module = module_name(path, package)
        graph[module], inner = imports_of(ast.parse(text), names)
        graph[module].discard(module)
        inside += inner if not module.startswith(f"{package.name}.cli") else 0
        parts = module.split(".")
        code[parts[1] if len(parts) > 1 else "(top)"] += code_lines(text)
    for room, lines in sorted(code.items()):
        print(f"{lines:7,}  {room}")
    total = sum(text.count("\n") for text in texts.values())
    print(f"{sum(code.values()):7,}  lines of code of {total:,} in {len(texts)} modules")
    flat = sum(1 for path in texts if path.parent == package)
    print(f"{flat:7,}  modules lie flat")
    print(f"{inside:7,}  imports of the package's own modules inside functions outside cli")
    groups = circles(graph)
    print(f"{len(groups):7,}  circles, {sum(map(len, groups))} modules in them")
    for group in groups:
        print("         ", ", ".join(name.removeprefix("vidface.") for name in group))
    longest = {path: text.count("\n") for path, text in texts.items()}
    for path, lines in sorted(longest.items(), key=lambda item: -item[1]):
        if lines > LONGEST:
            print(f"{lines:7,}  {path.relative_to(package)}")


if __name__ == "__main__":
    main()
