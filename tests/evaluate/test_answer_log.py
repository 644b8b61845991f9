"""A log of answers: whole or not at all after a kill, of one model and one process."""

from __future__ import annotations

import pytest

from griffin.evaluate.answer_log import AnswerLog


def test_a_torn_line_is_cut_off(tmp_path):
    path = tmp_path / "folder" / "log"
    with AnswerLog(path, "one") as log:
        log.add("a", [0.1, True])
        log.add("b", {"text": "é", "tokens": 2})
    whole = path.read_bytes()
    for end in (*range(0, len(whole), 9), len(whole) - 1, len(whole)):
        path.write_bytes(whole[:end])
        with AnswerLog(path, "one") as log:
            found = {key: log.get(key) for key in "ab" if log.get(key) is not None}
            lines = whole[:end].count(b"\n")
            assert len(found) == len(log) == max(lines - 1, 0)
            log.add("c", 1)
        with AnswerLog(path, "one") as log:
            assert log.get("c") == 1 and len(log) == len(found) + 1


def test_another_model_another_process_another_file(tmp_path):
    path = tmp_path / "log"
    with AnswerLog(path, "one"), pytest.raises(ValueError, match="by another process"):
        AnswerLog(path, "one")
    with pytest.raises(ValueError, match="of another model"):
        AnswerLog(path, "two")
    path.write_text("{}\n")
    with pytest.raises(ValueError, match="line 1 is no answer"):
        AnswerLog(path, "one")
