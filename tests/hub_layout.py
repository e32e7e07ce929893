"""Folders in the layout of the hub, with a few made-up rows of each data set that a task maps."""

from functools import cache
from pathlib import Path

import yaml

CATALOGUE = Path(__file__).parent / "tasks" / "catalogue"
NAMES = sorted(path.stem for path in CATALOGUE.glob("*.yaml"))


@cache
def read_expected(name):
    """Return the rows of a task's data set, and what the task must make of them."""
    return yaml.safe_load((CATALOGUE / f"{name}.yaml").read_text(encoding="utf-8"))


def write_folder(folder, name, config_name, is_kept=lambda row: True):
    """Write a data set with a README that declares its configuration and splits, as on the hub."""
    import datasets

    expected = read_expected(name)
    layout = expected.get("layout", "parquet")
    files = []
    for split, rows in expected["rows"].items():
        path = Path(config_name or "data") / f"{split}-00000-of-00001.{layout}"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        files.append({"split": split, "path": str(path)})
        data = datasets.Dataset.from_list([row for row in rows if is_kept(row)])
        write = {"parquet": data.to_parquet, "csv": data.to_csv, "jsonl": data.to_json}[layout]
        write(str(folder / path))
    configs = [{"config_name": config_name or "default", "data_files": files}]
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': configs})}---\n", encoding="utf-8")
    return folder


def overrides_of(name, folder):
    """Return the overrides that make a task read a folder."""
    more = read_expected(name).get("overrides", {})
    return [
        f"task.{name}.pool.path={folder}",
        f"task.{name}.test.path={folder}",
        *(f"task.{name}.{key}='{value}'" for key, value in more.items()),
    ]
