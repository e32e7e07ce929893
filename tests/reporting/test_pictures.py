import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAKE = runpy.run_path(str(ROOT / "docs" / "pictures" / "make.py"))


def test_the_pictures_are_small_and_shown_and_made_by_a_command_of_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = readme + (ROOT / "docs" / "laboratory.md").read_text(encoding="utf-8")
    assert f"$ {MAKE['SWEEP']}\n" in readme
    pictures = sorted((ROOT / "docs" / "pictures").glob("*.png"))
    assert [picture.stem for picture in pictures] == sorted(MAKE["SIZES"])
    for picture in pictures:
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert picture.stat().st_size <= MAKE["MAX_BYTES"]
        assert f"pictures/{picture.name})" in pages
