import json
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DATA = ROOT / "data" / "induction"
FAMILIES = ("rearrange", "numbers")
"""What the shipped model has learned to learn; see its card."""
MOST_UNTOLD = {"rearrange": 0.05, "numbers": 0.15}
LEAST_SHOWN = {"rearrange": 0.55, "numbers": 0.9}
MOST_MISLED = {"rearrange": 0.3, "numbers": 0.15}


@pytest.fixture
def induction(icl_eval_command, tmp_path):
    """Ask the shipped model 48 questions of each family that it has learned; return the shares it gets right."""

    def run(*overrides):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        outcome = icl_eval_command("experiment=induction", "limit=48", *overrides, "hydra.run.dir=run")
        assert outcome.exit_code == 0, outcome.err
        results = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))["results"]
        return {family: results[f"induction_{family}"]["metrics"]["exact_match"]["score"] for family in FAMILIES}

    return run


def test_the_shipped_model_knows_nothing_without_demonstrations_and_learns_from_eight(induction):
    for family, share in induction("num_fewshot=0").items():
        assert share <= MOST_UNTOLD[family], family
    for family, share in induction("num_fewshot=8").items():
        assert share >= LEAST_SHOWN[family], family


def test_demonstrations_of_another_rule_mislead_it(induction, tmp_path):
    overrides = []
    for family in FAMILIES:
        rows = [json.loads(line) for line in (DATA / family / "test.jsonl").read_text(encoding="utf-8").splitlines()]
        others = [row["rule"] for row in (*rows[1:], rows[0])]
        false = tmp_path / f"{family}.jsonl"
        false.write_text(
            "".join(json.dumps({**row, "rule": rule}) + "\n" for row, rule in zip(rows, others, strict=True)),
            encoding="utf-8",
        )
        overrides.append(f"task.induction_{family}.test.path={false}")
    for family, share in induction("num_fewshot=8", *overrides).items():
        assert share <= MOST_MISLED[family], family
