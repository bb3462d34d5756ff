"""The test at many points: against a loop over all patterns, and its rate of false alarms."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from shapeloss.stats.max_statistic import max_t_test


def test_against_a_loop_over_every_pattern():
    d = np.random.default_rng(3).normal([0.0, 0.8, 1.5, 0.0], 1.0, size=(6, 4))
    expected = stats.ttest_1samp(d, 0).statistic
    largest = [
        np.abs(stats.ttest_1samp(d * np.array(s)[:, None], 0).statistic).max() for s in product((-1, 1), repeat=6)
    ]
    t, p = max_t_test(d)
    np.testing.assert_allclose(t, expected)
    np.testing.assert_allclose(p, [np.mean(np.array(largest) >= abs(one) - 1e-9) for one in expected])


def test_one_point_is_the_sign_flip_test():
    d = np.array([1.2, 0.4, -0.1, 0.9, 1.1, 0.8, 0.3, 1.4])
    patterns = np.array(list(product((-1, 1), repeat=8)))
    expected = np.mean(np.abs(patterns @ d) >= abs(d.sum()) - 1e-12)
    assert max_t_test(d[:, None])[1] == pytest.approx([expected])


def test_false_alarms_anywhere_are_as_rare_as_the_level_says():
    rng = np.random.default_rng(1)
    alarms = [max_t_test(rng.standard_normal((8, 60)))[1].min() < 0.05 for _ in range(300)]
    assert np.mean(alarms) < 0.09  # 0.05 and more than three standard errors


def test_many_cases_points_without_difference_and_refusals():
    d = np.concatenate([np.random.default_rng(0).normal(1, 1, (20, 1)), np.zeros((20, 1))], axis=1)
    t, p = max_t_test(d)
    assert t[1] == 0
    assert p[0] < 0.01
    assert p[1] == 1
    with pytest.raises(ValueError, match="at least two cases"):
        max_t_test(np.ones((1, 3)))
    with pytest.raises(ValueError, match="must be finite"):
        max_t_test([[1.0], [np.nan]])
