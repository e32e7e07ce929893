import json

import pytest
import tiny_models

SHOTS = 1000


@pytest.mark.slow
def test_a_thousand_demonstrations_are_decoded_as_by_generate(icl_eval_command, tmp_path):
    folder = tiny_models.save_llama(tmp_path / "llama", max_position_embeddings=65_536)
    rows = [{"question": f"{n} + {n % 7}", "answer": str(n + n % 7)} for n in range(1100)]
    for name, part in {"pool": rows[:1040], "test": rows[1040:1042]}.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    task = ["task=qa", *(f"task.qa.{part}.path={part}.jsonl" for part in ("pool", "test"))]
    options = ["task.qa.fields.references=answer", f"num_fewshot={SHOTS}", "max_new_tokens=5", "hydra.run.dir=run"]
    outcome = icl_eval_command(f"model.source={folder}", *task, *options)
    assert outcome.exit_code == 0, outcome.err
    records = [json.loads(line) for line in (tmp_path / "run" / "samples_qa.jsonl").read_text().splitlines()]
    assert [len(record["demonstration_ids"]) for record in records] == [SHOTS] * 2

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    network, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    for record in records:
        ids = tokenizer(record["decoder"], return_tensors="pt")["input_ids"]
        assert ids.shape[1] > 8 * SHOTS
        with torch.inference_mode():
            generated = network.generate(ids, max_new_tokens=5, do_sample=False)[0, ids.shape[1] :]
        assert tokenizer.decode(generated, skip_special_tokens=True).startswith(record["completion"])
