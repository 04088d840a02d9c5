"""A few hundred of the fuzzer's cases; script/fuzz runs thousands."""

from __future__ import annotations

from tests.fuzz import MEMORY_BYTES, Result, run_batch


def test_broken_packages_end_in_a_sentence_or_in_a_machine() -> None:
    result = Result()
    assert not run_batch(1, range(300), result)
    assert result.violations == {}
    assert result.outcomes.total() == 300
    assert [name for name in result.outcomes if name.endswith(": source")]
    assert 0 < result.memory_bytes < MEMORY_BYTES
