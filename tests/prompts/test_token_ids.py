import random

import pytest

from icl_eval.prompts.token_ids import TokenIds, common_length, find_distinct, order_ids, pack_ids, pack_together

SIDES = [(1, 2, 3, 4, 5, 6), (1, 2, 3, 4, 7, 8), (1, 2, 3, 4, 9), (1, 2, 3, 4)]
LARGEST = 2**32 - 1


def test_what_all_begin_with_is_kept_once():
    packed = pack_together(SIDES)
    assert [each.unpack() for each in packed] == SIDES
    assert [len(each) for each in packed] == [6, 6, 5, 4]
    assert len({id(each.beginning) for each in packed}) == 1
    assert [len(each.own) // 4 for each in packed] == [2, 2, 1, 0]
    assert pack_together([]) == []
    assert [each.unpack() for each in pack_together([(), (5,)])] == [(), (5,)]


def test_ids_are_equal_wherever_their_beginning_ends():
    first, other = pack_together(SIDES)[0], pack_ids(SIDES[0])
    assert first.beginning != other.beginning
    assert (first, hash(first)) == (other, hash(other))
    assert first != pack_ids(SIDES[0][:-1])
    assert pack_ids(SIDES[0][:-1]) != first
    assert first != SIDES[0]
    assert len({*pack_together(SIDES), *map(pack_ids, SIDES)}) == len(SIDES)


@pytest.mark.parametrize("ids", [pack_together(SIDES)[0], pack_ids(SIDES[0])], ids=["shared", "alone"])
def test_places_and_cuts_are_those_of_a_tuple(ids):
    assert [ids[place] for place in range(6)] == list(SIDES[0])
    for place in (-1, 6):  # else iterating would not end
        with pytest.raises(IndexError):
            ids[place]
    assert [ids.after(length) for length in range(8)] == [pack_ids(SIDES[0][length:]).own for length in range(8)]
    assert [ids.cut(length).unpack() for length in range(8)] == [SIDES[0][:length] for length in range(8)]


def test_order_and_common_length_are_those_of_tuples():
    chance = random.Random(0)
    numbers = (0, 1, 255, 256, 2**16, 2**24, LARGEST)
    sides = [tuple(chance.choices(numbers, k=chance.randrange(5))) for _ in range(100)]
    for begin in ((), (7,), (7, 300)):
        begun = [begin + side for side in sides]
        packed = pack_together(begun[:50]) + pack_together([(*begin, *side) for side in sides[50:]])
        assert [each.unpack() for each in sorted(packed, key=order_ids(packed))] == sorted(begun)
    for first, second in zip(sides[:50], sides[50:], strict=True):
        length = next((n for n, pair in enumerate(zip(first, second, strict=False)) if pair[0] != pair[1]), None)
        expected = min(len(first), len(second)) if length is None else length
        assert common_length(pack_ids(first), pack_ids(second)) == expected


def test_the_order_copies_nothing_that_all_begin_with():
    packed = pack_together(SIDES)
    assert [order_ids(packed)(each) for each in packed] == [each.own for each in packed]
    assert order_ids([])(TokenIds(b"", b"")) == b""


def test_distinct_ids():
    assert find_distinct([*pack_together(SIDES), pack_ids((LARGEST, 1))]) == {1, 2, 3, 4, 5, 6, 7, 8, 9, LARGEST}
    assert find_distinct([]) == set()
