import json
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DATA = ROOT / "data" / "induction"
FAMILIES = ("lexicon", "rearrange", "labels", "numbers")
LEARNED = {"encoder": FAMILIES, "split": ("lexicon", "labels", "numbers")}
"""Which families the packaged model learns in which placement; see its card."""
SHOTS = (0, 1, 4, 8)
MOST_UNTOLD, LEAST_SHOWN = 0.1, 0.85
MOST_MISLED = {"lexicon": 0.05, "rearrange": 0.35, "labels": 0.05, "numbers": 0.15}
"""Only seven rearrangements are held out, so another question often has the same one. The same is true of numbers."""
every_placement = pytest.mark.parametrize("placement", LEARNED)


@pytest.fixture
def induction(icl_eval_command, tmp_path):
    """Ask the packaged model 48 questions of each family, and return the shares of right answers."""

    def run(*overrides):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        outcome = icl_eval_command("experiment=induction", "limit=48", *overrides, "hydra.run.dir=run")
        assert outcome.exit_code == 0, outcome.err
        results = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))["results"]
        return {family: results[f"induction_{family}"]["metrics"]["exact_match"]["score"] for family in FAMILIES}

    return run


@pytest.mark.slow
@every_placement
def test_the_shipped_model_knows_nothing_without_demonstrations_and_learns_from_them(induction, placement):
    shares = [induction(f"num_fewshot={shots}", f"placement={placement}") for shots in SHOTS]
    for family in LEARNED[placement]:
        untold, one, four, eight = (share[family] for share in shares)
        assert untold <= MOST_UNTOLD, family
        assert untold < one - 0.1 < one < four, family
        assert eight >= LEAST_SHOWN, family


@pytest.mark.slow
@every_placement
def test_demonstrations_of_another_rule_mislead_it(induction, tmp_path, placement):
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
    shares = induction("num_fewshot=8", f"placement={placement}", *overrides)
    for family in LEARNED[placement]:
        assert shares[family] <= MOST_MISLED[family], family
