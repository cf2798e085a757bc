"""Rules that hold for the code as a whole: layers, sizes, what is never used, what help must be."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from luthier.cli.main import app

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src/luthier"
FILES = sorted(SOURCE.rglob("*.py"))
HEAVY = ("torch", "transformers", "peft", "sklearn", "scipy", "numpy", "jinja2")
COMMANDS = get_command(app).commands  # type: ignore[attr-defined]
TYPED = {  # every command as it is typed: `run`, `collect logs`
    **COMMANDS,
    **{
        f"{name} {inner}": command
        for name, group in COMMANDS.items()
        for inner, command in getattr(group, "commands", {}).items()
    },
}


def layers() -> list[str]:
    """The modules in the order of ARCHITECTURE.md: rows from above, and in a row from the left."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]+`) \|", text, flags=re.MULTILINE)
    return [name.rstrip("/").removesuffix(".py") for row in rows for name in re.findall(r"`([^`]+)`", row)]


def module_of(path: Path) -> str:
    """The layer of a file: its package or module right under luthier."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and layer of every import from luthier, those inside functions too."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole path"
            base = node.module or ""
            names = [f"{base}.{alias.name}" for alias in node.names] if base == "luthier" else [base]
        for name in names:
            parts = name.split(".")
            if parts[0] == "luthier" and len(parts) > 1 and not parts[1].startswith("__"):
                yield node.lineno, parts[1]


def test_the_list_of_layers_is_complete() -> None:
    found = {module_of(path) for path in FILES} - {"__init__"}
    assert found == set(layers())
    assert len(layers()) == len(set(layers()))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_only_go_down(path: Path) -> None:
    order = layers()
    here = module_of(path)
    if here == "__init__":
        return  # the public names of the package
    tree = ast.parse(path.read_text(encoding="utf-8"))
    up = [
        f"{path.name}:{line} imports {name}"
        for line, name in imported(tree)
        if name != here and order.index(name) < order.index(here)
    ]
    assert not up


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_nothing_dangerous_is_used(path: Path) -> None:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            found += [
                n for n in names if n.split(".")[0] in ("pickle", "dill", "joblib", "shelve", "marshal")
            ]
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            unsafe = called in ("eval", "exec", "torch.load", "os.system", "yaml.unsafe_load", "pickle.loads")
            found += [called] if unsafe else []
            found += [
                f"{keyword.arg}={keyword.value.value}"
                for keyword in node.keywords
                if isinstance(keyword.value, ast.Constant)
                and (keyword.arg, keyword.value.value)
                in (("shell", True), ("trust_remote_code", True), ("weights_only", False))
            ]
    assert not found


def test_no_file_is_over_450_lines() -> None:
    sizes = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in FILES}
    assert {name: size for name, size in sizes.items() if size > 450} == {}


def test_every_module_and_public_function_says_what_it_is_for() -> None:
    silent = []
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        silent += [path.name] if ast.get_docstring(tree) is None else []
        silent += [
            f"{path.name}:{node.lineno} {node.name}"
            for node in tree.body
            if isinstance(node, ast.FunctionDef | ast.ClassDef)
            and not node.name.startswith("_")
            and ast.get_docstring(node) is None
        ]
    assert not silent


def run_help(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys\n"
        "from luthier.cli.main import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        f"    print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    command = [sys.executable, "-c", code, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment)


def test_help_imports_nothing_heavy() -> None:
    assert "HEAVY []" in run_help("--help").stdout
    assert "HEAVY []" in run_help("run", "--help").stdout


def test_help_answers_at_once() -> None:
    """In processor time, which other programs on the machine change little."""
    seconds = []
    for _ in range(5):
        before = os.times()
        run_help("--help")
        after = os.times()
        own = after.children_user - before.children_user, after.children_system - before.children_system
        seconds.append(sum(own))
    assert min(seconds) < 0.4


@pytest.mark.parametrize("name", TYPED)
def test_every_command_has_an_example_that_parses(name: str) -> None:
    help_text = TYPED[name].help
    (example,) = re.findall(r"^Example: luthier (.*(?:\n.+)*)$", help_text, flags=re.MULTILINE)
    words, own = shlex.split(example), name.split()
    assert words[: len(own)] == own
    TYPED[name].make_context(name, words[len(own) :])


def documented() -> list[tuple[str, str]]:
    """Every `luthier ...` in a code block or in backticks of the documentation, with its file."""
    found = []
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        blocks = re.findall(r"^ *```[a-z]*\n(.*?)^ *```", text, flags=re.MULTILINE | re.DOTALL)
        lines = [line for block in blocks for line in block.splitlines()]
        indented = [line for line in text.splitlines() if line.startswith("    ")]
        spans = re.findall(r"`([^`\n]+)`", text)
        for line in (*lines, *indented, *spans):
            match = re.match(r"^\s*(?:\$ )?luthier ([^#\n]*)", line)
            if match:
                found.append((path.name, match[1].split("&&")[0].split("|")[0].strip()))
    return found


def test_commands_in_the_documentation_exist() -> None:
    for file, line in documented():
        words = [word for word in shlex.split(line) if word != "--debug"]
        if words[0].startswith("--"):
            continue
        assert words[0] in COMMANDS, f"{file}: luthier {line}"
        command = TYPED.get(" ".join(words[:2]), COMMANDS[words[0]])
        options = {flag for parameter in command.params for flag in parameter.opts}
        unknown = [word for word in words if word.startswith("-") and word.split("=")[0] not in options]
        assert set(unknown) <= {"--help"}, f"{file}: luthier {line}"


def test_commands_in_messages_exist() -> None:
    """What an error tells the user to type can be typed."""
    named = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                named |= set(re.findall(r"(?:^|: |use |with )luthier ([a-z]+)\b", node.value))
    assert {"init", "run", "train", "check"} <= named
    assert named <= set(COMMANDS)


METHOD_FILES = [
    path
    for path in sorted((SOURCE / "methods").glob("*.py"))
    if path.name not in ("__init__.py", "method.py")  # method.py is what all of them have in common
]


@pytest.mark.parametrize("path", METHOD_FILES, ids=lambda path: path.stem)
def test_a_method_is_a_short_file(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("path", sorted((SOURCE / "train").glob("*.py")), ids=lambda path: path.stem)
def test_the_loop_knows_no_method_by_name(path: Path) -> None:
    names = {file.stem for file in METHOD_FILES}
    compared = [
        part.value
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Compare | ast.match_case)
        for part in ast.walk(node.pattern if isinstance(node, ast.match_case) else node)
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    ]
    assert not names & set(compared)
