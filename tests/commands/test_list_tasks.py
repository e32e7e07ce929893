import pytest

HEADER = ["task", "scores", "k", "pool", "test", "data and licence"]
OWN = """# @package task.capitals
defaults:
  - /metrics@metrics: [exact_match, chrf]
  - /likelihood@likelihood: references
  - _self_

card: {kind: geography, test_size: 2}
pool: {path: "???"}
test: {path: capitals.jsonl}
num_fewshot: 0
"""


def cells(line):
    """The cells of a line, which at least two spaces keep apart."""
    return [cell.strip() for cell in line.strip().split("   ") if cell.strip()]


@pytest.fixture
def listed(icl_eval_command):
    """List the tasks and return the cells of each line."""

    def call(*arguments):
        outcome = icl_eval_command("list", "tasks", *arguments)
        assert (outcome.exit_code, outcome.err) == (0, "")
        return [found for line in outcome.out.splitlines() if (found := cells(line))]

    return call


def test_tasks_are_listed_by_kind_with_what_is_known_of_their_data(listed, tmp_path):
    (tmp_path / "mine" / "task").mkdir(parents=True)
    (tmp_path / "mine" / "task" / "capitals.yaml").write_text(OWN, encoding="utf-8")
    lines = listed("--config-dir=mine")
    assert lines[1] == HEADER
    for expected in (
        ["mmlu", "choice_accuracy", "5", "285", "14042", "cais/mmlu all, MIT"],
        ["piqa", "choice_accuracy", "5", "16113", "1838", "baber/piqa, no licence stated"],
        ["qa", "exact_match, token_f1", "4", "40", "64", "packaged, Apache-2.0"],
        ["wmt16_en_ro", "bleu, chrf, ter", "5", "1999", "1999", "wmt/wmt16 ro-en, no licence stated"],
        ["capitals", "reference_perplexity, exact_match, chrf", "0", "2", "capitals.jsonl, no licence stated"],
        ["lm_eval", "lm_eval, no licence stated"],
    ):
        assert expected in lines
    assert lines.index(["geography"]) + 1 == lines.index(["capitals", *lines[lines.index(["geography"]) + 1][1:]])
    assert not (tmp_path / "outputs").exists()


def test_list_tasks_takes_no_options_and_lists_no_runs(icl_eval_command, tmp_path):
    (tmp_path / "tasks").mkdir()
    assert icl_eval_command("list", "./tasks").err == "icl-eval: tasks: no run found\n"
    (tmp_path / "sweep.json").touch()
    for command in ("list", "export", "compare"):
        outcome = icl_eval_command(command, "sweep.json")
        assert (outcome.exit_code, outcome.err) == (2, "icl-eval: sweep.json: is a file; must be a folder\n")
        assert icl_eval_command(command, "").err == "icl-eval: '': an empty argument; must be a folder or key=value\n"
    assert "unknown command" in icl_eval_command("list", "tasks", "outputs").err
    refused = icl_eval_command("list", "tasks", "task=qa")
    assert (refused.exit_code, refused.out) == (2, "")
    assert len(refused.err.splitlines()) == 1


@pytest.mark.slow
def test_a_file_of_the_users_that_is_no_task_is_one_line(icl_eval_command, tmp_path):
    (tmp_path / "mine" / "task").mkdir(parents=True)
    (tmp_path / "mine" / "task" / "wrong.yaml").write_text("# @package task.wrong\nshots: 3\n", encoding="utf-8")
    outcome = icl_eval_command("list", "tasks", "--config-dir=mine")
    assert outcome.exit_code == 2
    assert len(outcome.err.splitlines()) == 1
    assert "shots" in outcome.err
    assert "wrong" in outcome.err


def test_a_file_may_have_any_name_and_choose_several_tasks_or_none(listed, icl_eval_command, tmp_path):
    folder = tmp_path / "mine" / "task"
    folder.mkdir(parents=True)
    (folder / "2024.yaml").write_text(OWN.replace("task.capitals", "task.2024"), encoding="utf-8")
    (folder / "both.yaml").write_text(
        OWN.replace("task.capitals", "task.both").replace("  - _self_", "  - qa\n  - _self_")
    )
    (folder / "drafts.yaml").mkdir()
    names = [line[0] for line in listed("--config-dir=mine") if line]
    assert {"2024", "both (both)", "both (qa)", "qa"} <= set(names)
    assert "drafts" not in names
    (folder / "empty.yaml").touch()
    outcome = icl_eval_command("list", "tasks", "--config-dir=mine")
    assert (outcome.exit_code, outcome.out, outcome.err) == (
        2,
        "",
        f"icl-eval: {folder}/empty.yaml: contains no task\n",
    )
