import pytest
import torch
from architectures import build

from icl_eval.decoding import linears
from icl_eval.decoding.networks import new_cache, run


@pytest.mark.parametrize("free", [0, 10**12], ids=["weights in place", "weights laid out anew"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "t5"])
def test_the_same_products_come_out_and_the_network_can_be_restored(name, free, monkeypatch):
    monkeypatch.setattr(linears, "free_bytes", lambda device: free)
    network = build(name, dtype=torch.float32).network
    ids = [list(range(20, 30)), list(range(30, 40))]
    encoded = torch.randn(2, 5, 32) if name == "t5" else None
    plain = run(network, ids, new_cache(network.config), encoded)

    linears.speed_up_linears(network)
    faster = run(network, ids, new_cache(network.config), encoded)
    assert any("forward" in module.__dict__ for module in network.modules())
    torch.testing.assert_close(faster, plain, rtol=1e-4, atol=1e-3)

    linears.restore_linears(network)
    assert torch.equal(run(network, ids, new_cache(network.config), encoded), plain)


def test_float64_stays_as_it_is():
    network = build("llama", dtype=torch.float64).network
    linears.speed_up_linears(network)
    assert not any("forward" in module.__dict__ for module in network.modules())
