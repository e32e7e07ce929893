"""The map of the package, as CONTRIBUTING.md draws it: what it holds at the top, and who may import what."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
PACKAGE = TESTS.parent / "icl_eval"

FLOORS = (
    ("errors", "formatting"),
    ("targets",),
    ("models", "tasks"),
    ("demonstrations", "runs"),
    ("prompts",),
    ("decoding",),
    ("metrics",),
    ("analysis", "evaluation", "harnesses"),
    ("config", "reporting"),
    ("commands",),
    ("api",),
    ("cli",),
    ("__main__",),
)
"""From the ground up: an import points to a lower floor, or stays in its own package."""
FLOOR_OF = {room: number for number, floor in enumerate(FLOORS) for room in floor}

HYDRA = {"cli", "config"}
TORCH = {"decoding", "models", "demonstrations/encoder.py", "runs/provenance.py"} | {
    f"commands/{name}" for name in ("trace", "tour", "doctor.py")
}
"""Where Hydra and OmegaConf, and where torch, may be imported."""


def modules():
    return sorted(path for path in PACKAGE.rglob("*.py"))


def top_level_names():
    names = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    return names - {"__pycache__", "conf", "data"}


def name_of(path):
    return str(path.relative_to(PACKAGE))


def imports(path):
    """Return the modules that a file imports anywhere in it: `icl_eval.tasks.rows`, `torch`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module)
    return found


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_the_top_level_has_at_most_twenty_names_and_each_has_its_floor():
    names = top_level_names()
    assert names - {"__init__"} == set(FLOOR_OF)
    assert len(names) <= 20


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_point_downwards(path):
    room = room_of(path)
    if room == "__init__":  # the face, which imports what is asked of it
        return
    used = {module.split(".")[1] for module in imports(path) if module.startswith("icl_eval.")}
    climbing = {other for other in used - {room} if FLOOR_OF[other] >= FLOOR_OF[room]}
    assert not climbing, f"{name_of(path)} is on floor {FLOOR_OF[room]} and imports {climbing}"


@pytest.mark.parametrize(
    ("libraries", "places"), [({"hydra", "omegaconf"}, HYDRA), ({"torch"}, TORCH)], ids=["hydra", "torch"]
)
def test_a_heavy_library_is_imported_in_its_places_alone(libraries, places):
    users = {name_of(path) for path in modules() if libraries & {module.split(".")[0] for module in imports(path)}}
    assert {user for user in users if not any(user.startswith(place) for place in places)} == set()
    assert {place for place in places if not any(user.startswith(place) for user in users)} == set()


def test_contributing_draws_the_top_level_and_its_floors_as_they_are():
    page = (TESTS.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    tree = re.search(r"^    icl_eval/\n((?:      \S.*\n)+)", page, re.MULTILINE).group(1)
    drawn = [line.split()[0].removesuffix("/").removesuffix(".py") for line in tree.splitlines()]
    assert sorted(drawn) == sorted(top_level_names())
    floors = re.findall(r"^ +(\d+)((?: {2,3}\w+)+)", page, re.MULTILINE)
    assert {room: int(number) - 1 for number, rooms in floors for room in rooms.split()} == FLOOR_OF


@pytest.mark.parametrize("face", [path for path in modules() if path.name == "__init__.py"][1:], ids=name_of)
def test_the_docstring_of_a_package_lists_its_modules(face):
    listed = re.findall(r"^    (\w+)  ", ast.get_docstring(ast.parse(face.read_text(encoding="utf-8"))), re.MULTILINE)
    names = {path.stem for path in face.parent.glob("*.py")} | {path.parent.name for path in face.parent.glob("*/*.py")}
    assert sorted(listed) == sorted(names - {"__init__"})


def test_the_page_of_the_tests_lists_the_laws_and_the_tests_that_are_named_after_them():
    named = defaultdict(set)
    for path in TESTS.rglob("test_*.py"):
        for test, law in re.findall(r"^def (test_law_(\d+)_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE):
            named[law].add((test, str(path.relative_to(TESTS))))
    listed = defaultdict(set)
    page = (TESTS / "README.md").read_text(encoding="utf-8")
    for law, cell in re.findall(r"^\| \*\*(\d+)\*\* .* \| (.*) \|$", page, re.MULTILINE):
        for tests, file in re.findall(r"([^()]+) \(`([^`]+)`\)", cell):
            listed[law] |= {(test, file) for test in re.findall(r"`(\w+)`", tests)}
    assert listed == named
    assert sorted(map(int, listed)) == list(range(1, 12))


def test_no_test_imports_another_test():
    tests = {path.stem: path for path in TESTS.rglob("test_*.py")}
    for path in tests.values():
        assert not {module.split(".")[-1] for module in imports(path)} & set(tests), path


def test_no_class_name_stands_for_two_things():
    places = defaultdict(list)
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(name_of(path))
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}
