from icl_eval.decoding import greedy
from icl_eval.doctor import compare


def test_ways_are_compared_token_by_token():
    first = {"a": (1, 2, 3), "b": (4, 5), "c": (6, 7, 8)}
    second = {"a": (1, 2, 3), "b": (4, 5, 9), "c": (6, 0, 8)}
    found = compare("one, other", first, second)
    assert (found.same, found.total, found.first_difference) == (1, 3, "token 2 of c")
    assert compare("same", first, first).first_difference == ""


def test_a_sound_model_agrees_with_itself_and_an_unsound_one_is_found_out(icl_eval_command, gpt2, monkeypatch):
    arguments = ("doctor", f"model.source={gpt2}", "limit=3", "max_new_tokens=4", "num_fewshot=1")
    shown = icl_eval_command(*arguments)
    assert shown.exit_code == 0
    assert shown.out.count("3 of 3") >= 5  # bfloat16 against float32 may differ

    choose = greedy.choose

    def choose_by_batch(rows, logits, pick):
        return choose(rows, -logits if len(rows) > 1 else logits, pick)

    monkeypatch.setattr(greedy, "choose", choose_by_batch)
    shown = icl_eval_command(*arguments)
    assert "float32: alone, batched" in shown.out
    assert "0 of 3" in shown.out
    assert "token 1 of" in shown.out
