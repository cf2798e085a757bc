"""The learning rate, by hand."""

from __future__ import annotations

import pytest

from luthier.train.schedule import peak_rate, rate_at


def test_schedule_by_hand() -> None:
    # 10 steps: one of warm-up (6% rounded up), then 9/10, 8/10, ... down to 1/10 of the peak
    rates = [rate_at(step, steps=10, peak=1.0) for step in range(10)]
    assert rates == pytest.approx([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    rates = [rate_at(step, steps=100, peak=2.0) for step in range(100)]
    assert rates[:6] == pytest.approx([2 / 6, 4 / 6, 1.0, 8 / 6, 10 / 6, 2.0])
    assert rates[6] == pytest.approx(2 * 94 / 95)
    assert rates[99] == pytest.approx(2 / 95)
    assert rate_at(0, steps=1, peak=3.0) == 3.0


def test_peak_rate_by_hand() -> None:
    assert peak_rate("auto", hidden_size=2000) == pytest.approx(5e-4)
    # (2000 / 576) ** 0.781 = exp(0.781 * ln 3.47222) = exp(0.781 * 1.244795) = exp(0.972185) = 2.643712
    assert peak_rate("auto", hidden_size=576) == pytest.approx(5e-4 * 2.643712, rel=1e-5)
    assert peak_rate(3e-4, hidden_size=576) == 3e-4
