"""The map of the package, as CONTRIBUTING.md draws it: what it holds at the top, and who may import what."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "icl_eval"

FLOORS = (
    ("errors", "formatting"),
    ("targets",),
    ("models", "postprocessing", "tasks"),
    ("demonstrations", "runs"),
    ("prompts",),
    ("decoding",),
    ("metrics",),
    ("analysis", "evaluation"),
    ("config", "reporting"),
    ("commands",),
    ("api",),
    ("cli",),
    ("__main__",),
)
"""From the ground up: an import points to a lower floor, or stays in its own room."""
FLOOR_OF = {room: number for number, floor in enumerate(FLOORS) for room in floor}

HYDRA = {"cli", "config"}
TORCH = {"decoding", "models", "demonstrations/encoder.py", "runs/provenance.py"} | {
    f"commands/{name}" for name in ("trace", "tour", "doctor.py")
}
"""Where Hydra and OmegaConf, and where torch, may be imported."""


def modules():
    return sorted(path for path in PACKAGE.rglob("*.py"))


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
    names = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    names -= {"__pycache__", "conf", "data"}
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
