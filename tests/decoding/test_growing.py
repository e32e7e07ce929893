import copy

import pytest
import torch
from architectures import build
from transformers import DynamicCache

from icl_eval.decoding.growing import GrowingLayer, grow_in_place
from icl_eval.decoding.networks import new_cache


def states(*shape):
    return torch.randn(*shape), torch.randn(*shape)


def test_what_a_growing_cache_holds_is_what_the_plain_one_holds_and_a_step_copies_nothing():
    torch.manual_seed(0)
    plain = DynamicCache()
    plain.update(*states(1, 2, 5, 4), 0)
    growing = copy.deepcopy(plain)
    grow_in_place(growing)
    assert type(growing.layers[0]) is GrowingLayer
    rows = torch.zeros(3, dtype=torch.long)
    for cache in (plain, growing):
        cache.reorder_cache(rows)

    places = []
    for width in (7, 1, 1, 100, 1):
        more = states(3, 2, width, 4)
        expected, held = plain.update(*more, 0), growing.update(*more, 0)
        assert all(map(torch.equal, held, expected))
        assert growing.get_seq_length() == plain.get_seq_length()
        places.append(growing.layers[0].keys.data_ptr())
    assert places[0] == places[1] == places[2] != places[3] == places[4]

    kept = torch.tensor([2, 0])
    for cache in (plain, growing):
        cache.reorder_cache(kept)
    more = states(2, 2, 1, 4)
    assert all(map(torch.equal, growing.update(*more, 0), plain.update(*more, 0)))


@pytest.mark.parametrize(("name", "plain"), [("t5", True), ("bloom", True), ("mistral_sliding", False)])
def test_plain_layers_grow_in_place_and_windows_stay_as_they_are(name, plain):
    cache = new_cache(build(name).network.config)
    grow_in_place(cache)
    own = getattr(cache, "self_attention_cache", cache)
    assert {type(layer) is GrowingLayer for layer in own.layers} == {plain}
