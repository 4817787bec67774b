"""The soak of ``scripts/soak fuzz``, short."""

import pytest
from soak import fuzz


@pytest.mark.slow
@pytest.mark.skipif(not fuzz.is_there(), reason="atheris has no wheel for this machine")
def test_decoders_raise_what_they_declare_and_nothing_else() -> None:
    results = list(fuzz.run(seed=7, runs=150))
    assert {one.target: one.finding for one in results if one.exit_code} == {}
    assert len(results) > 20
    assert min(one.inputs for one in results) >= 150
    further = [one.target for one in results if one.arcs > one.arcs_of_seeds]
    assert len(further) > 20, "mutations reach what seeds do not"
