import pytest
import torch
from architectures import build
from transformers.pytorch_utils import Conv1D

from icl_eval.decoding import linears
from icl_eval.decoding.networks import encode, new_cache, run
from icl_eval.models.states import read_state
from icl_eval.models.switching import switched


@pytest.mark.parametrize(("free", "laid_out"), [(0, True), (10**12, False), (10**12, True)])
@pytest.mark.parametrize("name", ["gpt2", "llama", "t5"])
def test_the_same_products_come_out_and_the_network_is_restored(name, free, laid_out, monkeypatch):
    monkeypatch.setattr(linears, "free_bytes", lambda device: free)
    network = build(name, dtype=torch.float32).network
    ids = [list(range(20, 30)), list(range(30, 40))]
    encoded = torch.randn(2, 5, 32) if name == "t5" else None
    plain = run(network, ids, new_cache(network.config), encoded)

    contents = read_state(network).contents if laid_out else None
    switches = linears.product_switches(network, linears.Layouts(), contents)
    with switched(network, switches):
        faster = run(network, ids, new_cache(network.config), encoded)
        changed = sum("forward" in vars(module) for module in network.modules())
    kinds = torch.nn.Linear if free == 0 or not laid_out else (torch.nn.Linear, Conv1D)
    assert changed == len(switches) == sum(isinstance(module, kinds) for module in network.modules())
    torch.testing.assert_close(faster, plain, rtol=1e-4, atol=1e-3)
    assert torch.equal(run(network, ids, new_cache(network.config), encoded), plain)


@pytest.mark.parametrize("laid_out", [False, True])
@pytest.mark.parametrize("name", ["nllb_moe", "switch_transformers"])
def test_layers_that_a_network_computes_in_another_dtype_run_as_usual(name, laid_out):
    network = build(name, dtype=torch.bfloat16).network  # its routers become float32 in the first pass
    contents = read_state(network).contents if laid_out else None
    switches = linears.product_switches(network, linears.Layouts(), contents)
    classifier = next(module for name, module in network.named_modules() if name.endswith("router.classifier"))
    states = torch.randn(3, 32)
    with switched(network, switches):
        encode(network, [tuple(range(20, 30))])
        products = classifier(states)
    assert torch.equal(products, torch.nn.functional.linear(states, classifier.weight))
    assert products.dtype is torch.float32


def test_weights_with_the_same_numbers_are_laid_out_once():
    network, layouts = build("llama", dtype=torch.float32).network, linears.Layouts()

    def laid_out():
        switches = linears.product_switches(network, layouts, read_state(network).contents)
        return [switch.value.args[0] for switch in switches]

    first, again = laid_out(), laid_out()
    assert [id(weight) for weight in first] == [id(weight) for weight in again]
    network.model.layers[1].mlp.down_proj.weight.data.zero_()
    # the last one is the layer itself: the output embeddings are read in place
    assert [one is other for one, other in zip(first, laid_out(), strict=True)] == [True] * 13 + [False, True]
    assert first[-1] is network.lm_head


def test_float64_stays_as_it_is():
    network = build("llama", dtype=torch.float64).network
    assert not linears.product_switches(network, linears.Layouts(), read_state(network).contents)
