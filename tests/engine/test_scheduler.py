"""Who comes next, who has room, who waits how long."""

from __future__ import annotations

import pytest

from griffin.engine.row import Row
from griffin.engine.scheduler import Line, Pace, Room, check_knobs, next_reader
from griffin.engine.ticket import Ticket
from tests.support.toy_engine import ask


def row(
    number: int, priority: int = 0, length: int = 5, choice: int = 0, *, n: int = 1, by: str = ""
) -> Row:
    ticket = Ticket(
        number, ask(length), priority=priority, submitted=0.0, n=max(n, choice + 1), namespace=by
    )
    return Row(ticket, choice)


def test_the_line_goes_by_priority_then_by_arrival_then_by_choice():
    line = Line()
    rows = [
        row(3),
        row(0),
        row(2, priority=5),
        row(1, priority=-1),
        row(4, priority=5, choice=1),
        row(4, 5),
    ]
    for each in rows:
        line.add(each)
    order = []
    while (each := line.next(lambda _: True)) is not None:
        order.append((each.ticket.number, each.choice))
    assert order == [(2, 0), (4, 0), (4, 1), (0, 0), (3, 0), (1, 0)]


def test_who_does_not_fit_keeps_his_place_and_lets_others_by():
    line = Line()
    for number in range(3):
        line.add(row(number))
    fits = line.next(lambda r: r.ticket.number == 1)
    assert fits is not None and fits.ticket.number == 1 and len(line) == 2
    first = line.next(lambda _: True)
    assert first is not None and first.ticket.number == 0 and first not in line
    assert line.next(lambda _: False) is None and len(line) == 1


def test_room_is_taken_whole_or_not_at_all():
    room = Room(3)
    assert room.reserve("a", 2) and not room.reserve("a", 2) and room.used == 2
    assert room.reserve("b") and not room.reserve("b")
    room.free("a", 2)
    room.free("b")
    assert room.used == 0
    with pytest.raises(AssertionError):
        room.free("a")


def test_forks_of_a_namespace_leave_two_places_for_each():
    room = Room(8)
    assert [room.fits(row(0, n=2)) for _ in range(3)] == [True, True, False]
    assert [room.fits(row(0, n=2, by="b")) for _ in range(3)] == [True, True, False]
    assert room.fits(row(0)) and room.used == 4
    assert [room.reserve("b") for _ in range(5)] == [True, True, True, True, False]
    assert not room.fits(row(0, n=2, by="c")) and room.fits(row(0, by="c"))
    assert Room(1).fits(row(0, n=2)) and not Room(0).fits(row(0, n=2))


def test_pace_fills_the_time_between_two_steps():
    pace = Pace(1.0)
    pace.stepped(0.2)
    pace.read(0.3)
    assert pace.fits(0.3) and not pace.fits(0.6)  # 0.3 + 0.3 + 0.2; 0.6 + 0.3 + 0.2
    pace.read(0.7)  # a slow piece counts at once
    assert not pace.fits(0.3)
    for _ in range(12):  # and is forgotten by and by
        pace.read(0.1)
    assert pace.fits(0.6)
    assert not Pace(0.0).fits(1e-9)


def test_the_oldest_and_the_shortest_prompt_take_turns_within_the_highest_priority():
    long, short, middle, low = (
        row(0, length=60),
        row(3, length=4),
        row(2, length=20),
        row(1, -1, length=1),
    )
    rows = [middle, low, short, long]
    assert [next_reader(rows, turn) for turn in range(4)] == [short, long, short, long]
    assert next_reader([low], 0) is low


def test_pieces_end_at_multiples_of_the_chunk_of_the_document():
    reader = row(0, length=30)
    sizes = []
    while reader.left:
        sizes.append(len(reader.next_ids(8)))
        reader.read += sizes[-1]
    assert sizes == [8, 8, 8, 6]
    reader.read = 3
    assert len(reader.next_ids(8)) == 5
    reader.ticket.offset = 7  # a state that has read 7 tokens came first
    assert len(reader.next_ids(8)) == 6


@pytest.mark.parametrize(
    ("name", "value"),
    [("slots", 0), ("chunk", 0), ("max_waiting", -1), ("stall_seconds", float("nan"))],
)
def test_knobs_have_bounds(name, value):
    with pytest.raises(ValueError, match=f"{name} must be at least"):
        check_knobs(**{name: value})
