"""Intervals as files hold them: JSON has no NaN."""

from math import isnan, nan

from pydantic import TypeAdapter

from compress.schema.estimates import Estimate


def test_what_is_not_a_number_comes_back_out_of_a_file():
    adapter = TypeAdapter(Estimate)
    written = adapter.dump_json(Estimate(value=0.5, ci95=(nan, 1.0)))
    assert written == b'{"value":0.5,"ci95":[null,1.0]}'
    read = adapter.validate_json(written)
    assert (read.value, isnan(read.ci95[0]), read.ci95[1]) == (0.5, True, 1.0)
