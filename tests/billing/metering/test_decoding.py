"""What is read out of an item, and how what is wrong with it is named."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.metering import decoding
from billing.metering.decoding import BodyError, Refusal, Shape, read, split
from billing.metering.identity import canonical

GOOD = {"id": "a", "type": "t", "customer": "acme"}


def refusal(item):
    with pytest.raises(Refusal) as caught:
        read(item if isinstance(item, bytes) else json.dumps(item).encode(), Shape.NATIVE)
    return caught.value.code, caught.value.field


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"id": None}, "missing_field", "id"),
        ({"id": 5}, "invalid_field", "id"),
        ({"id": ""}, "invalid_field", "id"),
        ({"id": "x" * 256}, "invalid_field", "id"),
        ({"id": "a\nb"}, "invalid_field", "id"),
        ({"id": "a\x85"}, "invalid_field", "id"),
        ({"id": "a\x00"}, "invalid_field", "id"),
        ({"source": "a\x7f"}, "invalid_field", "source"),
        ({"type": ["t"]}, "invalid_field", "type"),
        ({"customer": "a b"}, "invalid_field", "customer"),
        ({"customer": "acme\n"}, "invalid_field", "customer"),
        ({"customer": None}, "missing_field", "customer"),
        ({"timestamp": 5}, "invalid_field", "timestamp"),
        ({"properties": []}, "invalid_field", "properties"),
        ({"properties": {str(n): n for n in range(51)}}, "too_many_properties", "properties"),
        ({"properties": {"x": "y" * 9000}}, "too_large", None),
        ({"properties": {"deep": ["a\x00b"]}}, "invalid_field", None),
        ({"properties": {"\x00": 1}}, "invalid_field", None),
        ({"specversion": "1.0"}, "unknown_field", "specversion"),
        ({"extensions": {}}, "unknown_field", "extensions"),
        ({"__proto__": {}}, "unknown_field", "__proto__"),
        ({"na`me": 1}, "unknown_field", "na`me"),
    ],
)
def test_what_is_wrong_is_named(change, code, field):
    assert refusal(GOOD | change) == (code, field)


@pytest.mark.parametrize("item", [b"5", b"null", b'"a"', b"[]", b"{}"])
def test_what_is_no_event_is_refused(item):
    assert refusal(item)[0] in {"invalid_field", "missing_field"}


@pytest.mark.parametrize("number", ["1e1001", "-1e5000", "1e-1001", "1e99999999999999999999", "9" * 5000])
def test_a_number_that_nobody_could_read_back_is_refused(number):
    item = json.dumps(GOOD)[:-1].encode() + b', "properties": {"n": %b}}' % number.encode()

    assert refusal(item)[0] == "invalid_field"


def test_a_large_number_stays_as_short_as_it_was_sent():
    item = json.dumps(GOOD)[:-1].encode() + b', "properties": {"a": 10e399, "b": 1e30, "c": 1.50, "d": -0e500}}'

    assert canonical(read(item, Shape.NATIVE).properties) == b'{"a":1E+400,"b":1%b,"c":1.5,"d":0}' % (b"0" * 30)


def test_text_that_only_looks_like_an_escape_is_taken():
    item = json.dumps(GOOD | {"properties": {"path": "C:\\u0000", "more": "\\ud800"}}).encode()
    (again,) = split(item, "application/json").items

    assert read(again, Shape.NATIVE).properties == {"path": "C:\\u0000", "more": "\\ud800"}


@pytest.mark.parametrize("text", [r"\ud800", r"\udc00\ud800", r"\ud800A", r"\\\ud83d", r"\ud83d\ude00\ude00"])
def test_a_lone_surrogate_refuses_its_item_only(text):
    bad = json.dumps(GOOD | {"properties": {"x": "?"}}).replace("?", text)
    items = split(f"[{bad}, {json.dumps(GOOD)}]".encode(), "application/json").items

    assert refusal(items[0]) == ("invalid_field", None)
    assert read(items[1], Shape.NATIVE).id == "a"


def test_a_surrogate_pair_is_a_character():
    item = rb'{"id": "\ud83d\ude00", "type": "t", "customer": "acme"}'

    assert read(split(item, "application/json").items[0], Shape.NATIVE).id == "😀"


def test_nesting_is_counted_from_the_root_and_not_in_text():
    def nested(levels):
        deep = json.loads('{"a":' * levels + "1" + "}" * levels)
        return json.dumps([GOOD | {"properties": deep | {"text": "[{" * 50}}]).encode()

    assert split(nested(30), "application/json").items
    with pytest.raises(BodyError):
        split(nested(31), "application/json")


def outcome(body, content_type):
    """Reads everything that can be read; any other exception than ours comes through."""
    read_items = []
    with suppress(BodyError):
        cut = split(body, content_type)
        for item in cut.items:
            with suppress(Refusal):
                read_items.append(read(item, cut.shape))
            decoding.names(item)
    return read_items


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(body):
    assert outcome(body, "application/json") == []
    assert outcome(body, "application/cloudevents+json") == []


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*decoding.SentEvent.__struct_fields__, "x"]), anything))
def test_any_json_object_is_either_read_or_refused(item):
    for event in outcome(json.dumps(item).encode(), "application/json"):
        assert event.id == item["id"]
