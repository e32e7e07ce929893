"""Queries, keys and values in two parts, and attention to both by one softmax."""

import torch


def make_parts(dtype, queries, group, device="cpu"):
    """Four rows of uneven lengths after a prefix of 50 tokens, two key heads; the last row has no padding."""
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape):
        return torch.randn(*shape, 16, generator=generator).to(device, dtype)

    query, own = numbers(4, 2 * group, queries), [numbers(4, 2, 20) for _ in "kv"]
    prefix = [numbers(1, 2, 50) for _ in "kv"]
    firsts = torch.tensor([13, 5, 16, 0])[:, None]
    written, read = torch.arange(20 - queries, 20), torch.arange(20)
    seen = ((read <= written[:, None]) & (read >= firsts)[:, None]) | (read == written[:, None])
    return query, own, prefix, seen.to(device)


def attend_to_all(query, own, prefix, seen, scale, softcap=None):
    """The same by one softmax over all keys, in float64."""
    group = query.shape[1] // 2
    keys, values = (
        torch.cat([shared.expand(4, -1, -1, -1), each], dim=2).double().repeat_interleave(group, dim=1)
        for shared, each in zip(prefix, own, strict=True)
    )
    hidden = ~torch.cat([seen.new_ones(*seen.shape[:2], 50), seen], dim=-1)
    scores = query.double() @ keys.mT * scale
    if softcap is not None:
        scores = softcap * (scores / softcap).tanh()
    scores = scores.masked_fill(hidden[:, None], float("-inf"))
    return scores.softmax(-1) @ values
