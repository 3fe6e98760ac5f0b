from __future__ import annotations

import numpy as np

from etl.stages.splitting.draws import draw, draws, keys_of


def test_draws_are_uniform_and_independent_of_each_other() -> None:
    keys = keys_of(str(number) for number in range(20_000))
    one, other = draws(keys, 0), draws(keys, 1)
    assert one.min() >= 0
    assert one.max() < 1
    assert abs(one.mean() - 0.5) < 0.01
    assert abs(one.std() - 12**-0.5) < 0.01
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.03


def test_a_draw_depends_on_name_and_salt_alone() -> None:
    # Splits of published plans depend on these numbers.
    assert [round(draw("flight/a", salt), 6) for salt in (0, 1, 2**40)] == [0.887391, 0.87788, 0.482572]
