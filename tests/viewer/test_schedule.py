"""What is rendered next: drafts at once, sharper when at rest, nobody forgotten, nothing outdated."""

import numpy as np
import pytest

from msth_taichi.viewer.requests import Request
from msth_taichi.viewer.schedule import REST, Pace, Schedule

SPEED = 1e5  # pixels per second


def request(width: int = 640, height: int = 360) -> Request:
    return Request(np.eye(4)[:3], 50.0, 0.0, (width, height))


@pytest.fixture
def schedule() -> Schedule:
    made = Schedule()
    made.speed = SPEED
    return made


def serve(schedule: Schedule, now: float):
    """Render what is next at a constant speed; returns it and when it was done."""
    task = schedule.next(now)
    assert task is not None
    seconds = task.size[0] * task.size[1] / SPEED
    schedule.done(task, seconds, now + seconds)
    return task, now + seconds


def test_a_moving_client_gets_drafts_only(schedule):
    now = 0.0
    for _ in range(5):
        schedule.ask(0, request(), now)
        task, now = serve(schedule, now)
        assert task.draft and not task.sharp
        assert schedule.next(now) is None  # not at rest yet
        now += 0.01


def test_drafts_are_small_enough_to_take_a_moment(schedule):
    schedule.ask(0, request(), 0.0)
    task, now = serve(schedule, 0.0)
    assert now < 0.2
    assert task.size[0] / task.size[1] == pytest.approx(640 / 360, rel=0.05)


def test_at_rest_pictures_sharpen_until_they_are_sharp(schedule):
    schedule.ask(0, request(), 0.0)
    _, now = serve(schedule, 0.0)
    now, sizes = now + REST, []
    while schedule.next(now):
        task, now = serve(schedule, now)
        sizes.append(task.size)
    assert sizes[-1] == (640, 360)
    assert sizes == sorted(sizes)
    assert schedule.settled(0, now)


def test_a_slow_device_renders_smaller_drafts(schedule):
    schedule.ask(0, request(), 0.0)
    fast = schedule.next(0.0)
    for _ in range(10):
        schedule.done(fast, fast.size[0] * fast.size[1] / (SPEED / 4), 0.0)
    schedule.ask(0, request(), 0.0)
    slow = schedule.next(0.0)
    assert slow.size[0] * slow.size[1] < 0.5 * fast.size[0] * fast.size[1]


def test_who_waited_longest_is_next(schedule):
    for client in range(3):
        schedule.ask(client, request(), 0.0)
    order, now = [], 0.0
    for _ in range(9):
        task, now = serve(schedule, now)
        order.append(task.client)
        schedule.ask(task.client, request(), now)
    assert order[:3] == order[3:6] == order[6:] and set(order) == {0, 1, 2}


def test_drafts_come_before_sharper_pictures(schedule):
    schedule.ask(0, request(), 0.0)
    _, now = serve(schedule, 0.0)
    now += REST
    sharpening = schedule.next(now)
    assert sharpening.client == 0 and schedule.wanted(sharpening)
    schedule.ask(1, request(), now)
    assert not schedule.wanted(sharpening)  # given up for the draft
    assert schedule.next(now).client == 1


def test_a_sharper_picture_of_an_old_request_is_given_up_but_a_draft_is_not(schedule):
    schedule.ask(0, request(), 0.0)
    draft, now = serve(schedule, 0.0)
    sharpening = schedule.next(now + REST)
    schedule.ask(0, request(), now + REST)
    assert schedule.wanted(draft) and not schedule.wanted(sharpening)


def test_who_left_is_not_rendered_for(schedule):
    schedule.ask(0, request(), 0.0)
    task = schedule.next(0.0)
    schedule.forget(0)
    assert not schedule.wanted(task)
    schedule.done(task, 0.1, 0.1)
    assert schedule.next(1.0) is None and not schedule.settled(0, 1.0)


def test_old_pictures_are_rendered_again_where_the_field_changes(schedule):
    schedule.stale_after = 5.0
    schedule.ask(0, request(), 0.0)
    now = 0.0
    while schedule.next(now + REST):
        _, now = serve(schedule, now + REST)
    assert schedule.next(now + 4.9) is None
    again = schedule.next(now + 5.0)
    assert again.size == (640, 360) and not again.draft


def test_no_picture_is_longer_than_it_may_be(schedule):
    schedule.longest = 0.5
    schedule.ask(0, request(), 0.0)
    now, tasks = 0.0, []
    while schedule.next(now + REST) is not None:
        task, now = serve(schedule, now + REST)
        tasks.append(task)
    assert max(task.size[0] * task.size[1] for task in tasks) <= 1.02 * SPEED * 0.5
    assert tasks[-1].sharp and schedule.settled(0, now + REST)
    schedule.longest = None
    assert schedule.next(now + REST).size[0] > tasks[-1].size[0]


def test_pace_keeps_to_its_share():
    pace, now, spent = Pace(0.1), 0.0, 0.0
    while now < 100:
        if pace.allows(now):
            spent += 0.5
            now += 0.5
            pace.spent(0.5, now)
        now += 0.01
    assert spent / now == pytest.approx(0.1, rel=0.1)
