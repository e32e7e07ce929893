"""Take the pictures of the pages that the documentation shows: `make pictures`.

The runs are those of the README's own command, so that what a picture shows is what a reader gets. They are kept if a
folder is given: `docs/pictures/make.py FOLDER`. Needs Chromium.
"""

import io
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from icl_eval.runs.folders import read_overrides

HERE = Path(__file__).resolve().parent
SWEEP = (
    "icl-eval experiment=shot_curve model=icl_t5 task=induction_lexicon control=none,random_targets "
    "num_fewshot=1,2,4,8 hydra.sweep.dir=curve"
)
"""The command of the README whose sweep and first run with eight demonstrations the pictures show."""
SIZES = {"sweep": (1180, 1000), "run": (1180, 900)}
"""Width and height of each picture in pixels."""
MAX_BYTES = 150_000
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> None:
    """Run the commands in a folder, a temporary one unless it is given, and write the pictures beside this file."""
    if len(sys.argv) > 1:
        make_pictures(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            make_pictures(Path(folder))


def make_pictures(folder: Path) -> None:
    """Run the commands in a folder and write the pictures; what has been computed there is not computed again."""
    run(SWEEP, folder)
    sweep = folder.resolve() / "curve"
    cell = next(cell for cell in sorted(sweep.iterdir()) if is_first_draw_of_eight(cell))
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, chromium_sandbox=False)
        take(browser, sweep / "sweep.html", "sweep")
        take(browser, cell / "report.html", "run", unfold=True)
        browser.close()


def run(command: str, folder: Path) -> None:
    """Run a command of the package in a folder."""
    program, *arguments = shlex.split(command)
    assert program == "icl-eval"
    subprocess.run([sys.executable, "-m", "icl_eval", *arguments], cwd=folder, check=True)


def is_first_draw_of_eight(cell: Path) -> bool:
    """Return whether a folder is the cell of the first draw of eight demonstrations."""
    return {"demonstrations.seed=0", "num_fewshot=8"} <= set(read_overrides(cell))


def take(browser: Browser, path: Path, name: str, unfold: bool = False) -> None:
    """Write the picture of a page as a PNG of at most `MAX_BYTES`.

    Args:
        browser: A running Chromium.
        path: The page.
        name: Name of the picture, a key of `SIZES`.
        unfold: Whether to unfold the first question.
    """
    width, height = SIZES[name]
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="light")
    page.goto(path.as_uri())
    page.wait_for_selector("table.rows tbody tr")
    if unfold:
        page.click("table.rows tbody .toggle button")
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB").quantize(128)
    picture.save(HERE / f"{name}.png", optimize=True)
    page.close()
    size = (HERE / f"{name}.png").stat().st_size
    print(f"{name}.png: {size:,} bytes")
    assert size <= MAX_BYTES


if __name__ == "__main__":
    main()
