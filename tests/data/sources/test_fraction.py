"""Fractions of labelled images: nested, with every class, in proportion."""

import collections
import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.core.errors import UserError
from scaling.data.config import DataConfig, open_sources
from scaling.data.sources.fraction import Fraction, classes_of, nested_order, taken
from scaling.data.sources.registry import open_source

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=80)


@given(LABELS, st.integers(0, 3))
def test_every_class_is_in_the_first_images_and_each_image_once(labels, seed):
    order, least = nested_order([{x} for x in labels], seed)
    assert sorted(order) == list(range(len(labels)))
    assert least == len(set(labels))
    assert {labels[i] for i in order[:least]} == set(labels)


@given(LABELS, st.floats(0.01, 1), st.integers(0, 3))
def test_a_beginning_has_the_classes_in_proportion(labels, share, seed):
    order, least = nested_order([{x} for x in labels], seed)
    count = taken(share, len(labels), least)
    found, whole = (collections.Counter(labels[i] for i in part) for part in (order[:count], order))
    for name, n in whole.items():
        assert abs(found[name] - count * n / len(labels)) <= len(whole) + 1


@given(st.lists(st.sets(st.integers(0, 6)), min_size=1, max_size=30))
def test_images_of_several_classes_come_first_until_none_is_missing(classes):
    order, least = nested_order(classes, 0)
    assert set().union(*(classes[i] for i in order[:least])) == set().union(*classes)
    assert least <= len(set().union(*classes))


def test_seeds_draw_other_images():
    classes = [{i % 4} for i in range(100)]
    first, second = (set(nested_order(classes, seed)[0][:20]) for seed in (0, 1))
    assert first != second


@pytest.mark.parametrize("spec", ["scenes?size=16&count=80", "scenes?size=16&count=80&targets=mask"])
def test_a_fraction_shows_images_of_its_source_and_the_larger_has_the_smaller(spec):
    source = open_source(spec, "train")
    small, large = (Fraction(source, classes_of(source, spec), share, 0) for share in (0.1, 0.5))
    assert set(small.images) < set(large.images)
    assert len(large) == 40
    assert small.info == source.info
    record = int(small.images[3])
    assert small.name(3) == source.name(record)
    np.testing.assert_array_equal(small[3]["image"], source[record]["image"])
    with pytest.raises(IndexError):
        small[len(small)]


def test_training_reads_the_fraction_and_what_is_watched_stays():
    data = DataConfig(source="scenes?size=16&count=80", eval_split="test[:10]")
    (whole, watched), (part, also) = map(open_sources, (data, dataclasses.replace(data, fraction=0.25)))
    assert (len(whole), len(part), len(watched), len(also)) == (80, 20, 10, 10)


def test_what_cannot_be_is_refused():
    for fields, words in (
        ({"fraction": 0.0, "eval_split": "test"}, "above 0 and at most 1"),
        ({"fraction": 0.5}, "set data.eval_split"),
    ):
        with pytest.raises(UserError, match=words):
            DataConfig(**fields)
