from __future__ import annotations

import json
import uuid
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.headers import decode_value, read_request_fields
from proxy.identity import Identities, Identity, identify, new_id, usable_id
from proxy.text_limits import DEFAULT_TEXT_LIMITS

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"

LOGGING_NAMES = [
    *("Helicone-Request-Id", "Helicone-User-Id", "Helicone-Property-A", "Helicone-Property-", "helicone-property-a"),
    *("Helicone-Session-Id", "Helicone-Session-Name", "Helicone-Session-Path", "Helicone-Prompt-Id"),
    *("Helicone-Prompt-Version", "Helicone-Model-Override", "Helicone-Omit-Request", "Helicone-Omit-Response"),
    *("x-portkey-trace-id", "x-portkey-span-id", "x-portkey-parent-span-id", "x-portkey-span-name"),
    *(
        "x-portkey-sensitive-headers",
        "x-portkey-metadata",
        "x-portkey-debug",
        "x-portkey-provider",
        "traceparent",
        "baggage",
    ),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
VALUES = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=20).map(lambda text: text.encode("utf-8", "replace")),
    st.text("\0\t\x1f\x7f\x85\xa0\u2028\u3000. a", max_size=6).map(lambda text: text.encode()),
    st.text("\x1c\x85\xa0 a", max_size=6).map(lambda text: text.encode("latin-1")),
    st.dictionaries(st.text(max_size=4), JSON, max_size=3).map(lambda pairs: json.dumps(pairs).encode()),
    st.from_regex(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-0[01](-x)?", fullmatch=True),
    st.from_regex(rb"[a-z =;%]{0,8}(,[a-z]=%[0-9A-F]{2}){0,3}", fullmatch=True),
)


def identity(*fields: tuple[str, str | bytes]) -> Identity:
    pairs = [(name.encode(), value if isinstance(value, bytes) else value.encode()) for name, value in fields]
    return identify(read_request_fields(pairs))


@given(st.lists(st.tuples(st.sampled_from(LOGGING_NAMES), VALUES), max_size=6))
def test_no_logging_field_fails_a_call_or_makes_an_identity_that_cannot_be_used(
    fields: list[tuple[str, bytes]],
) -> None:
    found = identity(*fields)
    for text, header in (
        (found.request_id, found.request_id_header),
        (found.trace_id, found.trace_id_header),
    ):
        assert usable_id(text)
        assert decode_value(header) == text, "the id that comes back is not the one that is logged"
        assert not any(byte < 32 or byte == 127 for byte in header)
    labels = [found.span_id, found.parent_span_id, found.span_name, found.session_id, found.session_name]
    labels += [found.session_path, found.user_id, found.prompt_id, found.prompt_version, found.model_override]
    assert all(label is None or label.strip() for label in labels)
    for text in [*filter(None, labels), *found.properties, *found.properties.values()]:
        assert "\0" not in text
        assert text.encode("utf-8").decode("utf-8") == text
    assert len({name.lower() for name in found.properties}) == len(found.properties)


@pytest.mark.parametrize("depth", [300, 5000])
def test_metadata_of_any_depth_fails_no_call(depth: int) -> None:
    nested = b"[" * depth + b"]" * depth
    assert identity(("x-portkey-metadata", b'{"deep":%b}' % nested), ("Helicone-User-Id", "u")).user_id == "u"


def test_a_made_up_id_is_a_time_ordered_uuid() -> None:
    made = [uuid.UUID(new_id()) for _ in range(100)]
    assert {(one.version, one.variant) for one in made} == {(7, uuid.RFC_4122)}
    assert made == sorted(made)


@pytest.mark.parametrize(
    "text",
    [
        *("a", "x" * 256, "ticket-42-1700000000", "a/b?c#d%20", "...", ".a", "北京", "\U0001f600" * 256, "a b"),
        "00000000-0000-0000-0000-000000000000",
    ],
)
def test_an_id_of_1_to_256_characters_names_the_call_and_its_trace(text: str) -> None:
    found = identity(("Helicone-Request-Id", text))
    assert (found.request_id, found.request_id_header) == (text, text.encode())
    assert (found.trace_id, found.trace_id_header) == (text, text.encode())
    trace = identity(("x-portkey-trace-id", text))
    assert (trace.trace_id, trace.trace_id_header) == (text, text.encode())
    assert trace.request_id != text


@pytest.mark.parametrize(
    "value",
    [
        *(b"", b" ", b"\t ", b".", b"..", b" .. ", b"x" * 257, ("\U0001f600" * 257).encode()),
        *(b"a\0b", b"\0", b"a\tb", b"a\x1fb", b"\x1fa", b"a\x7f", b"a\x85", "a\x85b".encode(), "\x9f".encode()),
        *("\u3000".encode(), "\xa0".encode(), b"\xa0"),
    ],
)
def test_a_text_that_can_be_no_id_is_as_good_as_none(value: bytes) -> None:
    found = identity(("Helicone-Request-Id", value), ("x-portkey-trace-id", value))
    assert found.request_id not in decode_value(value).strip()
    assert found.trace_id == found.request_id
    assert found.request_id_header == found.trace_id_header == found.request_id.encode()


@pytest.mark.parametrize("value", [b"Zo\xeb", "Zoë".encode()])
def test_an_id_goes_back_in_the_bytes_in_which_it_came(value: bytes) -> None:
    found = identity(("Helicone-Request-Id", value))
    assert (found.request_id, found.request_id_header) == ("Zoë", value)


def test_the_first_usable_one_of_several_ids_counts() -> None:
    name = "Helicone-Request-Id"
    assert identity((name, ".."), (name, ""), (name, "first"), (name, "second")).request_id == "first"


def test_a_traceparent_gives_the_trace_and_the_span_above() -> None:
    found = identity(("traceparent", TRACEPARENT), ("Helicone-Request-Id", "r"))
    assert (found.request_id, found.trace_id, found.parent_span_id) == ("r", TRACE, SPAN)
    assert found.trace_id_header == TRACE.encode()


def test_a_later_version_of_traceparent_may_say_more() -> None:
    assert identity(("traceparent", f"cc-{TRACE}-{SPAN}-01-what-the-future-holds")).trace_id == TRACE


def test_portkeys_trace_and_span_go_before_a_traceparent() -> None:
    named = identity(("traceparent", TRACEPARENT), ("x-portkey-trace-id", "mine"))
    assert (named.trace_id, named.parent_span_id) == ("mine", None)
    below = identity(("traceparent", TRACEPARENT), ("x-portkey-parent-span-id", "s1"))
    assert (below.trace_id, below.parent_span_id) == (TRACE, "s1")


@pytest.mark.parametrize(
    "value",
    [
        *(
            "",
            "nonsense",
            f"00-{TRACE}-{SPAN}",
            f"00-{TRACE}-{SPAN}-01-x",
            f"ff-{TRACE}-{SPAN}-01",
            f"0-{TRACE}-{SPAN}-01",
        ),
        *(
            f"00-{'0' * 32}-{SPAN}-01",
            f"00-{TRACE}-{'0' * 16}-01",
            f"00-{TRACE.upper()}-{SPAN}-01",
            f"00-{TRACE}-{SPAN}-1",
        ),
        *(f"00-{TRACE[:-1]}-{SPAN}-01", f"00-{TRACE[:-1]}g-{SPAN}-01", f"{TRACEPARENT},{TRACEPARENT}"),
    ],
)
def test_an_invalid_traceparent_is_as_good_as_none(value: str) -> None:
    found = identity(("traceparent", value))
    assert found.trace_id == found.request_id
    assert found.parent_span_id is None


def test_two_traceparents_contradict_each_other_and_count_for_nothing() -> None:
    found = identity(("traceparent", TRACEPARENT), ("Traceparent", TRACEPARENT))
    assert found.trace_id == found.request_id


def test_every_label_is_read_from_its_field() -> None:
    found = identity(
        ("Helicone-User-Id", "u"),
        ("HELICONE-SESSION-ID", "s"),
        ("helicone-session-name", "My session"),
        ("Helicone-Session-Path", "/a/b"),
        ("Helicone-Prompt-Id", "p"),
        ("Helicone-Prompt-Version", "2"),
        ("Helicone-Model-Override", "gpt-x"),
        ("x-portkey-span-id", "11"),
        ("x-portkey-parent-span-id", "10"),
        ("x-portkey-span-name", " LLM Call "),
    )
    assert (found.user_id, found.session_id, found.session_name, found.session_path) == ("u", "s", "My session", "/a/b")
    assert (found.prompt_id, found.prompt_version, found.model_override) == ("p", "2", "gpt-x")
    assert (found.span_id, found.parent_span_id, found.span_name) == ("11", "10", "LLM Call")


@pytest.mark.parametrize(
    ("fields", "user"),
    [
        ([("Helicone-User-Id", "u1"), ("x-portkey-metadata", '{"_user": "u2"}')], "u1"),
        ([("Helicone-User-Id", " "), ("x-portkey-metadata", '{"_user": "u2"}')], "u2"),
        ([("x-portkey-metadata", '{"_user": 7}')], "7"),
        ([("x-portkey-metadata", '{"_user": null}')], None),
        ([("Helicone-User-Id", b"Zo\xeb")], "Zoë"),
        ([("Helicone-User-Id", "Zoë".encode())], "Zoë"),
        ([], None),
    ],
)
def test_the_user_is_helicones_else_the_metadatas(fields: list[tuple[str, str | bytes]], user: str | None) -> None:
    assert identity(*fields).user_id == user


@pytest.mark.parametrize(
    ("fields", "properties"),
    [
        (
            [("Helicone-Property-App", "Chat"), ("helicone-property-App-Stage", "dev")],
            {"App": "Chat", "App-Stage": "dev"},
        ),
        ([("Helicone-Property-App", "a"), ("helicone-property-app", "b")], {"App": "a, b"}),
        ([("Helicone-Property-App", "")], {"App": ""}),
        ([("Helicone-Property-", "nameless")], {}),
        (
            [("x-portkey-metadata", '{"env": "dev", "n": 1, "b": true, "z": null}')],
            {"env": "dev", "n": "1", "b": "true"},
        ),
        ([("x-portkey-metadata", '{"deep": {"a": [1, "b"]}}')], {"deep": '{"a":[1,"b"]}'}),
        ([("x-portkey-metadata", b'{"name": "Zo\xeb"}')], {"name": "Zoë"}),
        ([("x-portkey-metadata", '{"nul\\u0000": "a\\u0000b"}')], {"nul": "ab"}),
        ([("x-portkey-metadata", "{'_user': 'x'}")], {}),
        ([("x-portkey-metadata", '["a"]')], {}),
        ([("x-portkey-metadata", '"a"')], {}),
        ([("x-portkey-metadata", '{"a": "1"'), ("x-portkey-metadata", '{"b": "2"}')], {"b": "2"}),
        ([("baggage", "a=1,b=%20two%2C ; ttl=3 ,c, =d, e=")], {"a": "1", "b": " two,", "e": ""}),
        ([("baggage", "a=1"), ("baggage", "b=%FF")], {"a": "1", "b": "\ufffd"}),
    ],
)
def test_properties_are_text_under_the_names_that_were_sent(
    fields: list[tuple[str, str | bytes]], properties: dict[str, str]
) -> None:
    assert identity(*fields).properties == properties


def test_property_names_are_compared_without_case_and_helicones_go_first() -> None:
    found = identity(
        ("baggage", "STAGE=baggage,only=baggage"),
        ("x-portkey-metadata", '{"Stage": "metadata", "Team": "metadata"}'),
        ("Helicone-Property-sTAGE", "helicone"),
    )
    assert found.properties == {"sTAGE": "helicone", "Team": "metadata", "only": "baggage"}


@pytest.mark.parametrize(
    ("name", "value", "omitted"),
    [
        ("Helicone-Omit-Request", "true", (True, False)),
        ("Helicone-Omit-Response", "True", (False, True)),
        ("Helicone-Omit-Request", "false", (False, False)),
        ("Helicone-Omit-Request", "1", (False, False)),
        ("x-portkey-debug", "false", (True, True)),
        ("X-Portkey-Debug", " FALSE ", (True, True)),
        ("x-portkey-debug", "true", (False, False)),
        ("x-portkey-debug", "", (False, False)),
    ],
)
def test_bodies_are_kept_out_where_a_field_asks_for_it(name: str, value: str, omitted: tuple[bool, bool]) -> None:
    found = identity((name, value))
    assert (found.omit_request, found.omit_response) == omitted


SENSITIVE = "x-portkey-sensitive-headers"


@pytest.mark.parametrize(
    "names",
    [
        "Helicone-User-Id,BAGGAGE , x-portkey-metadata",
        "['Helicone-User-Id', 'baggage', 'x-portkey-metadata']",
        '["helicone-user-id","baggage","x-portkey-metadata"]',
        "helicone-user-id baggage; x-portkey-metadata",
    ],
)
def test_a_field_that_the_request_calls_sensitive_is_not_read(names: str) -> None:
    labels = [
        ("Helicone-User-Id", "ada"),
        ("baggage", "a=1"),
        ("X-Portkey-Metadata", '{"_user": "lin", "b": 2}'),
        ("Helicone-Property-C", "3"),
        ("Helicone-Session-Id", "s"),
    ]
    found = identity(*labels, (SENSITIVE, names))
    assert (found.user_id, found.session_id, found.properties) == (None, "s", {"C": "3"})


def test_an_id_that_is_called_sensitive_is_replaced_by_another() -> None:
    named = ("helicone-request-id", "r"), ("traceparent", TRACEPARENT), ("helicone-property-a", "1")
    found = identity(*named, (SENSITIVE, "helicone-request-id, traceparent"), (SENSITIVE, "helicone-property-a"))
    assert uuid.UUID(found.request_id).version == 7
    assert found.trace_id == found.request_id
    assert (found.parent_span_id, found.properties) == (None, {})


def test_what_asks_for_less_to_be_kept_is_obeyed_whatever_it_is_called() -> None:
    asking = ("helicone-omit-request", "true"), ("helicone-omit-response", "true")
    found = identity(*asking, (SENSITIVE, "helicone-omit-request, helicone-omit-response"))
    assert (found.omit_request, found.omit_response) == (True, True)


def test_naming_fields_as_sensitive_changes_nothing_of_what_is_forwarded() -> None:
    fields = read_request_fields([(b"baggage", b"a=1"), (SENSITIVE.encode(), b"baggage")])
    identify(fields)
    assert fields.forward == [(b"baggage", b"a=1")]
    assert fields.noted == {b"baggage": b"a=1"}


TOLD = st.one_of(
    VALUES,
    st.sampled_from(
        [
            TRACEPARENT.encode(),
            b"0" * 300,
            b"x",
            b"",
            b'{"_user": "u"}',
            b'{"a": "b"}',
            b"a=b,c=d",
            b"true",
            b"a" * 3000,
        ]
    ),
)


@example([("traceparent", TRACEPARENT.encode(), f"00-{TRACE}-{SPAN[::-1]}-01".encode(), True)])
@example([("Helicone-User-Id", b"a" * 3000, b"b", True)])
@example([("x-portkey-metadata", b"{}", b'{"_user": "u"}', True)])
@given(
    st.lists(st.tuples(st.sampled_from(LOGGING_NAMES), TOLD, TOLD, st.booleans()), max_size=6),
)
def test_identities_made_of_those_of_another_head_are_those_of_ones_own(
    fields: list[tuple[str, bytes, bytes, bool]],
) -> None:
    names = [name.encode() for name, *_ in fields]
    before = list(zip(names, [one for _, one, _, _ in fields], strict=True))
    after = list(zip(names, [other if changes else one for _, one, other, changes in fields], strict=True))
    changed = [name.lower() for name, (*_, changes) in zip(names, fields, strict=True) if changes]
    known = Identities(read_request_fields(before), DEFAULT_TEXT_LIMITS)
    others = known.with_others(read_request_fields(after), changed, DEFAULT_TEXT_LIMITS)
    own = Identities(read_request_fields(after), DEFAULT_TEXT_LIMITS)
    assert _without_made_up(others.new()) == _without_made_up(own.new())
    assert (others.new().request_id == others.new().request_id) == (own.new().request_id == own.new().request_id)


def _without_made_up(identity: Identity) -> Identity:
    """An identity without the ids that are others each time."""
    made_up = len(identity.request_id) == 36 and identity.request_id[14] == "7"
    request_id = "made up" if made_up else identity.request_id
    trace_id = request_id if identity.trace_id == identity.request_id else identity.trace_id
    return replace(
        identity,
        request_id=request_id,
        trace_id=trace_id,
        request_id_header=request_id.encode("utf-8", "replace"),
        trace_id_header=trace_id.encode("utf-8", "replace"),
    )
