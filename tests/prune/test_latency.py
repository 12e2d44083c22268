"""A latency as the goal: the share is found on stairs, with noise, and refused where there is none."""

import numpy as np
import pytest

from compress.errors import ConfigError
from compress.prune.latency import CORRECTIONS, SHARES, Timed, interpolate, nearest, share_for_latency


class Machine:
    """A model of 64 channels in steps of `step`: a fixed time and one that falls with the square."""

    def __init__(self, step=1, noise=0.0, fixed=1.0, drift=()):
        self.step, self.noise, self.fixed, self.asked = step, noise, fixed, []
        self.drift = list(drift)  # how slow the machine is at one call after the other
        self.random = np.random.default_rng(0)

    def ms(self, share):
        width = max(self.step, share * 64 // self.step * self.step)
        return self.fixed + 20 * (width / 64) ** 2

    def __call__(self, shares):
        self.asked += shares
        slow = self.drift.pop(0) if self.drift else 1.0
        found = [self.ms(share) * self.random.normal(1, self.noise) for share in shares]
        return Timed(30 * slow, [30 / ms for ms in found])


@pytest.mark.parametrize("goal", [2.6, 5.0, 9.0, 16.0, 20.5])
@pytest.mark.parametrize(("step", "noise"), [(1, 0.0), (4, 0.0), (1, 0.01)])
def test_the_model_that_is_chosen_takes_what_was_asked_for(goal, step, noise):
    machine = Machine(step, noise)
    share = share_for_latency(goal, machine)
    stairs = [machine.ms(width / 64) for width in range(1, 65)]
    best = min(abs(ms / goal - 1) for ms in stairs)
    assert abs(machine.ms(share) / goal - 1) <= max(0.06, best + 0.01)
    assert len(machine.asked) <= len(SHARES) + CORRECTIONS
    assert share in machine.asked  # what is chosen was measured


@pytest.mark.parametrize("goal", [0.5, 30.0])
def test_a_goal_beyond_the_table_is_refused_with_its_ends(goal):
    with pytest.raises(ConfigError) as error:
        share_for_latency(goal, Machine())
    assert "2.25 to 21 ms" in str(error.value)


def test_minutes_in_which_the_machine_is_slow_or_fast_do_not_mislead_it():
    machine = Machine(drift=[1.3, 1.0, 1.0, 0.8])
    share = share_for_latency(9.0, machine)
    assert len(machine.asked) > len(SHARES)
    assert machine.ms(share) == pytest.approx(9.0, rel=0.06)


def test_a_net_that_pruning_does_not_speed_up():
    assert share_for_latency(5.0, lambda shares: Timed(5.0, [1.0] * len(shares))) in SHARES


def test_lines_between_points_that_noise_made_fall():
    table = {0.25: 2.0, 0.5: 6.0, 0.75: 5.0, 1.0: 10.0}
    assert interpolate(table, 4.0) == pytest.approx(0.25 + 0.25 * 2 / 3)
    assert interpolate(table, 8.0) == pytest.approx(0.75 + 0.25 * 3 / 5)
    assert nearest(table, 5.4) == 0.75


def test_the_largest_share_is_taken_where_few_channels_are_slow():
    """As measured on a ResNet in 8 bits: a quarter of the channels takes longer than half."""
    table = {1.0: 15.95, 0.75: 12.04, 0.5: 7.92, 0.25: 9.39}

    def measure(shares):
        return Timed(40, [40 / table.get(share, 7.92 + (share - 0.5) / 0.25 * 4.12) for share in shares])

    found = share_for_latency(9.0, measure)
    assert 0.5 < found < 0.75
    assert 40 / measure([found]).speedups[0] == pytest.approx(9.0, rel=0.03)
    assert nearest({0.75: 9.1, 0.25: 9.0}, 9.0) == 0.75
