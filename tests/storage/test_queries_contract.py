"""What every backend promises of questions about many calls: held against plain Python, on logs of chance."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest

from storage import Storage
from storage.base import QueryTooSlowError
from storage.filters import EVERYTHING, All, Condition, Field, Figure, FilterError, Node, Not, Operator
from storage.queries import FIGURES, OLDEST_FIRST, Dimension, GroupSort, Page, Position, Sort, TimeBucket
from storage.records import Body
from storage.sqlite import open_sqlite
from tests.storage import ACME, a_call, a_rating, a_value, add_values
from tests.storage.population import DAY, Known, a_field, a_filter, compares, effective, everything_known, fill, meets
from tests.storage.reckoning import figures_of, reckoned

SEEDS = range(3)
QUESTIONS = 150
ALL_AT_ONCE = Page(limit=1000)


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_filter_finds_and_counts_exactly_what_meets_it(seed: int, store: Storage) -> None:
    random = Random(seed)
    await fill(store, random, 60)
    known = await everything_known(store)
    some = 0
    for _ in range(QUESTIONS):
        where = a_filter(random, known)
        wanted = {one.number for one in known if meets(one, where)}
        found = await store.find_calls(ACME, where, OLDEST_FIRST, ALL_AT_ONCE)
        assert {position.number for position in found} == wanted, where
        assert await store.count_matching(ACME, where) == len(found) == len(wanted)
        some += 0 < len(wanted) < len(known)
    assert some > QUESTIONS / 5  # a filter that all or none meets shows little


@pytest.mark.parametrize("seed", SEEDS)
async def test_every_field_sorts_with_the_unknown_last_and_is_walked_by_a_cursor(seed: int, store: Storage) -> None:
    random = Random(seed)
    await fill(store, random, 40)
    known = await everything_known(store)
    for _ in range(QUESTIONS // 3):
        sort = Sort(a_field(random), descending=random.random() < 0.5)
        wanted = [one.number for one in in_order(known, sort)]
        found = await store.find_calls(ACME, EVERYTHING, sort, ALL_AT_ONCE)
        assert [position.number for position in found] == wanted, sort
        assert [position.number for position in await walked(store, sort, 7)] == wanted, sort
        assert list(await store.find_calls(ACME, EVERYTHING, sort, Page(limit=5, offset=3))) == list(found)[3:8]


async def test_a_cursor_misses_nothing_and_doubles_nothing_while_calls_land(store: Storage) -> None:
    await store.write_calls([a_call(f"old{place}", started_at=place) for place in range(20)])
    sort = Sort(Field("started_at"), descending=True)
    first = await store.find_calls(ACME, EVERYTHING, sort, Page(limit=10))
    await store.write_calls([a_call(f"new{place}", started_at=100 + place) for place in range(20)])
    rest = await store.find_calls(ACME, EVERYTHING, sort, Page(limit=1000, after=first[-1]))
    assert [position.value for position in [*first, *rest]] == list(reversed(range(20)))


async def test_rows_are_read_by_number_with_all_that_joined_them_within_a_bound_of_bytes(store: Storage) -> None:
    random = Random(7)
    await fill(store, random, 30)
    known = {one.number: one.stored for one in await everything_known(store)}
    numbers = list(known)
    random.shuffle(numbers)
    rows = await store.read_calls(ACME, [*numbers, 10**9], most_bytes=2**30)
    assert list(rows) == numbers
    assert rows == known
    assert await store.read_calls("stranger", numbers, most_bytes=2**30) == {}


async def test_at_least_one_row_is_read_however_large_it_is(store: Storage) -> None:
    await store.write_calls([a_call(f"r{place}", request=Body(b"x" * 100, 100)) for place in range(3)])
    numbers = [position.number for position in await store.find_calls(ACME, EVERYTHING, OLDEST_FIRST, ALL_AT_ONCE)]
    assert [list(await store.read_calls(ACME, numbers, most_bytes=size)) for size in (1, 100, 101, 300)] == [
        numbers[:1],
        numbers[:1],
        numbers[:2],
        numbers,
    ]


DIMENSIONS: list[tuple[Dimension, ...]] = [
    (),
    (Field("user_id"),),
    (Field("session_id"),),
    (Field("property", "release"), Field("model")),
    (Field("rating"), Field("is_stream")),
    (TimeBucket(DAY, 3_600_000_000),),
    (Field("trace_id"),),
]


@pytest.mark.parametrize("by", DIMENSIONS, ids=str)
@pytest.mark.parametrize("seed", SEEDS)
async def test_groups_add_up_with_each_item_of_feedback_counted_once(
    seed: int, by: tuple[Dimension, ...], store: Storage
) -> None:
    random = Random(seed)
    await fill(store, random, 60)
    known = await everything_known(store)
    for where in (EVERYTHING, a_filter(random, known), a_filter(random, known)):
        groups, number = await store.summarise(ACME, where, by, GroupSort(), limit=1000)
        wanted = reckoned([one for one in known if meets(one, where)], by)
        assert {group.keys: figures_of(group.figures) for group in groups} == wanted
        assert number == len(wanted) == len(groups)


@pytest.mark.parametrize("seed", SEEDS)
async def test_groups_are_found_by_what_they_add_up_to(seed: int, store: Storage) -> None:
    random = Random(seed)
    await fill(store, random, 60)
    by, some = [Field("user_id"), Field("session_id")], 0
    groups, _ = await store.summarise(ACME, EVERYTHING, by, GroupSort(), limit=1000)
    for figure in FIGURES:
        for operator in (Operator.EQUALS, Operator.NOT_EQUALS, Operator.GT, Operator.LTE):
            value = sorted_value(random.choice(groups).figures, figure)
            if value is None and operator in (Operator.GT, Operator.LTE):
                value = 1
            having = Not(Condition(Figure(figure), operator, value))
            found, number = await store.summarise(ACME, EVERYTHING, by, GroupSort(), limit=1000, having=having)
            wanted = [one for one in groups if not compares(sorted_value(one.figures, figure), operator, value)]
            assert found == wanted, having
            assert number == len(wanted)
            some += 0 < len(wanted) < len(groups)
    assert some > len(FIGURES)


async def test_figures_alone_are_those_of_the_groups_in_their_order(store: Storage) -> None:
    random = Random(3)
    await fill(store, random, 60)
    by, names = [Field("user_id"), Field("session_id")], ("cost", "calls", "sessions", "time_to_first_token_mean")
    having = Condition(Figure("calls"), Operator.GT, 1)
    for where in (EVERYTHING, a_filter(random, await everything_known(store))):
        for sort in (GroupSort("last_started_at", descending=True), GroupSort()):
            groups, _ = await store.summarise(ACME, where, by, sort, limit=5, having=having)
            rows = await store.measure(ACME, where, by, sort, names, limit=5, having=having)
            assert [tuple(row) for row in rows] == [
                tuple(getattr(group.figures, name) for name in names) for group in groups
            ]


@pytest.mark.parametrize("figure", FIGURES)
async def test_groups_are_sorted_by_any_figure_with_the_unknown_last(figure: str, store: Storage) -> None:
    await fill(store, Random(figure), 40)
    for descending in (False, True):
        sort = GroupSort(figure, descending)
        groups, number = await store.summarise(ACME, EVERYTHING, [Field("user_id")], sort, limit=1000)
        values = [sorted_value(group.figures, figure) for group in groups]
        known = [value for value in values if value is not None]
        assert values == sorted(known, reverse=descending) + [None] * (len(values) - len(known))
        part, whole = await store.summarise(ACME, EVERYTHING, [Field("user_id")], sort, limit=2, offset=1)
        assert (list(part), whole) == (list(groups[1:3]), number)
        beyond = await store.summarise(ACME, EVERYTHING, [Field("user_id")], sort, limit=2, offset=100)
        assert beyond == ([], number)


async def test_what_was_said_comes_with_its_group_on_every_page_and_on_one_of_very_many(store: Storage) -> None:
    await store.write_calls([a_call(f"r{place}", user_id=f"u{place:04}" if place else None) for place in range(1100)])
    for place in range(0, 1100, 50):
        await store.add_rating(a_rating(f"f{place}", f"r{place}", value=place % 100 == 0), known=False)

    async def said(limit: int, offset: int) -> list[tuple[int, int]]:
        groups, _ = await store.summarise(ACME, EVERYTHING, [Field("user_id")], GroupSort(), limit=limit, offset=offset)
        return [(group.figures.feedback.count, group.figures.feedback.positive) for group in groups]

    wanted = [(int(place % 50 == 0), int(place % 100 == 0)) for place in range(1100)]
    assert await said(1100, 0) == wanted
    assert await said(120, 0) == wanted[:120]
    assert await said(120, 490) == wanted[490:610]


async def test_an_item_that_speaks_of_a_trace_counts_once_in_each_group_that_has_a_call_of_it(store: Storage) -> None:
    await store.write_calls([a_call(f"r{place}", trace_id="t", user_id=f"u{place % 2}") for place in range(4)])
    await add_values(store, a_value("v", "t", -3, weight=0.5))
    await store.add_rating(a_rating("f", "r0"), known=False)
    groups, _ = await store.summarise(ACME, EVERYTHING, [Field("user_id")], GroupSort(), limit=10)
    said = {group.keys[0]: group.figures.feedback for group in groups}
    assert {user: (one.count, one.positive, one.negative, one.rated_calls) for user, one in said.items()} == {
        "u0": (2, 1, 1, 2),
        "u1": (1, 0, 1, 2),
    }
    assert said["u0"].weighted_mean == (1 - 1.5) / 1.5
    assert said["u0"].mean_product == (1 - 1.5) / 2
    assert said["u1"].weighted_mean == -3


async def test_values_are_counted_each_item_once(store: Storage) -> None:
    random = Random(5)
    await fill(store, random, 60)
    known = await everything_known(store)
    for where in (EVERYTHING, a_filter(random, known), a_filter(random, known)):
        said = effective([one for one in known if meets(one, where)]).values()
        counted = await store.count_values(ACME, where)
        assert counted == dict(Counter(item.value for item in said))
        assert list(counted) == sorted(counted)


async def test_nothing_adds_up_to_no_calls_and_unknown_sums(store: Storage) -> None:
    [everything], number = await store.summarise(ACME, EVERYTHING, [], GroupSort(), limit=10)
    assert number == 1
    assert (everything.figures.calls, everything.figures.cost, everything.figures.feedback.weighted_mean) == (
        0,
        None,
        None,
    )
    assert await store.summarise(ACME, EVERYTHING, [Field("user_id")], GroupSort(), limit=10) == ([], 0)


async def test_property_names_are_told_once_each_whatever_their_case(store: Storage) -> None:
    await store.write_calls(
        [a_call(properties={"Release": "1", "team": "a"}), a_call(properties={"release": "2", "Zone": "b"})]
    )
    await store.write_calls([a_call(organisation="other", properties={"Secret": "x"})])
    assert list(await store.property_names(ACME)) == ["Release", "team", "Zone"]


MISTAKES: list[tuple[Any, str]] = [
    (lambda: Field("colour"), "no field 'colour'"),
    (lambda: Field("user_id", "key"), "'user_id' has no names below it"),
    (lambda: Field("property"), "'property' wants names below it"),
    (lambda: Condition(Field("user_id"), Operator.GT, "a"), "'user_id' can't be compared by 'gt'; it can by equals"),
    (lambda: Condition(Field("status"), Operator.EQUALS, "200"), "'status' is compared with a number"),
    (lambda: Condition(Field("status"), Operator.EQUALS, float("nan")), "'status' is compared with a number"),
    (lambda: Condition(Field("status"), Operator.EQUALS, True), "'status' is compared with a number"),
    (lambda: Condition(Field("status"), Operator.GT, None), "'gt' wants a value"),
    (lambda: Condition(Field("rating"), Operator.EQUALS, 1), "'rating' is compared with a boolean"),
    (lambda: Condition(Field("started_at"), Operator.GT, 1.5), "'started_at' is compared with a time"),
    (lambda: Condition(Field("user_id"), Operator.EQUALS, "x" * 10_001), "'user_id' is compared with no more"),
    (
        lambda: Condition(Field("text"), Operator.EQUALS, "a"),
        "'text' can't be compared by 'equals'; it can by contains",
    ),
    (lambda: Condition(Field("text"), Operator.CONTAINS, 1), "'text' is compared with a document"),
    (lambda: Sort(Field("text")), "nothing can be sorted by 'text'"),
    (lambda: TimeBucket(999_999), "a second or wider"),
    (lambda: GroupSort("colour"), "no figure 'colour'"),
]


@pytest.mark.parametrize(("make", "said"), MISTAKES, ids=[said for _, said in MISTAKES])
def test_what_can_not_be_asked_is_told(make: Any, said: str) -> None:
    with pytest.raises(FilterError, match=said):
        make()


async def test_a_question_that_takes_too_long_is_ended_and_the_store_goes_on(tmp_path: Any) -> None:
    store = await open_sqlite(str(tmp_path / "kibitz.db"), query_timeout=0.01)
    await store.write_calls([a_call(f"r{place}", trace_id="t") for place in range(128)])
    for _ in range(7):
        await add_values(store, *[a_value(f"v{_}.{place}", "t") for place in range(1000)])
    slow: Node = All(tuple(Condition(Field("weighted_mean"), Operator.GTE, -place) for place in range(40)))
    with pytest.raises(QueryTooSlowError):
        await store.count_matching(ACME, slow)
    assert await store.count_matching(ACME, Condition(Field("request_id"), Operator.EQUALS, "r1")) == 1
    await store.close()


async def test_a_question_is_ended_though_its_time_is_over_before_it_begins(tmp_path: Any) -> None:
    store = await open_sqlite(str(tmp_path / "kibitz.db"), query_timeout=0)
    await store.write_calls([a_call(f"r{place}", trace_id="t") for place in range(128)])
    await add_values(store, *[a_value(f"v{place}", "t") for place in range(7000)])
    slow: Node = All(tuple(Condition(Field("weighted_mean"), Operator.GTE, -place) for place in range(40)))
    with pytest.raises(QueryTooSlowError):
        await store.count_matching(ACME, slow)
    await store.close()


def in_order(known: list[Known], sort: Sort) -> list[Known]:
    def value(one: Known) -> Any:
        return one.value(sort.field)

    with_value = sorted((one for one in known if value(one) is not None), key=lambda one: (value(one), one.number))
    without = sorted((one for one in known if value(one) is None), key=lambda one: one.number)
    return with_value[::-1] + without[::-1] if sort.descending else with_value + without


async def walked(store: Storage, sort: Sort, step: int) -> list[Position]:
    found: list[Position] = []
    while True:
        after = found[-1] if found else None
        page = await store.find_calls(ACME, EVERYTHING, sort, Page(limit=step, after=after))
        if not page:
            return found
        found += page


def sorted_value(figures: Any, figure: str) -> Any:
    if figure == "latency_mean":
        return figures.latency_sum / figures.calls
    if figure == "tokens_per_call":
        return figures.total_tokens / figures.calls if figures.total_tokens is not None else None
    if figure == "calls_per_active_day":
        return figures.calls / figures.active_days
    if figure == "weighted_mean":
        return figures.feedback.weighted_mean
    if figure == "mean_product":
        return figures.feedback.mean_product
    if figure.startswith("feedback_"):
        return getattr(figures.feedback, figure.removeprefix("feedback_"))
    return getattr(figures, figure)
