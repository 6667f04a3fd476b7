"""`easel adapters …`, over a folder of versions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.cli import main as easel
from dialog_mllm.adapters import ORIGINAL
from tests.dialog_mllm.tiny import write_adapter


def ask(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    assert easel(["adapters", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = ["--store", str(tmp_path)]
    trained = write_adapter(tmp_path / "trained")
    assert ask(capsys, "list", *store) == {"active": ORIGINAL, "before": None}
    assert ask(capsys, "add", str(trained), *store) == {"added": "v1"}
    assert easel(["adapters", "activate", "v1", *store]) == 1
    assert "v1 has not been measured. It may be worse than what it came from. Add --anyway" in capsys.readouterr().err
    assert ask(capsys, "activate", "v1", "--anyway", *store) == {"active": "v1", "before": ORIGINAL}
    assert easel(["adapters", "remove", "v1", *store]) == 1
    assert "v1 is active" in capsys.readouterr().err
    listed = ask(capsys, "list", *store)
    assert listed["active"] == "v1" and isinstance(listed["v1"], dict) and listed["v1"]["worse"] is None
    assert ask(capsys, "rollback", *store) == {"active": ORIGINAL, "before": None}
    assert easel(["adapters", "try", "v1", *store]) == 1
    assert "has not been measured" in capsys.readouterr().err
    tried = {"active": ORIGINAL, "before": None, "tried": "v1", "share": 0.25}
    assert ask(capsys, "try", "v1", "--share", "0.25", "--anyway", *store) == tried
    assert easel(["adapters", "remove", "v1", *store]) == 1
    assert "v1 is being tried" in capsys.readouterr().err
    assert ask(capsys, "stop", *store) == {"active": ORIGINAL, "before": None}
    for share, message in (("1", "A share of 1 is no trial"), ("0", "A share of 0 is no trial")):
        assert easel(["adapters", "try", "v1", "--share", share, "--anyway", *store]) == 1
        assert message in capsys.readouterr().err
    assert easel(["adapters", "stop", *store]) == 1
    assert "No adapter is being tried" in capsys.readouterr().err
    assert ask(capsys, "remove", "v1", *store) == {"removed": "v1", "active": ORIGINAL}
    assert easel(["adapters", "rollback", *store]) == 1
    assert "nothing to go back to" in capsys.readouterr().err


def test_what_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert easel(["adapters", "list", "--store", str(tmp_path / "gone")]) == 1
    assert "There is no data folder" in capsys.readouterr().err
    assert easel(["adapters", "add", str(tmp_path), "--store", str(tmp_path)]) == 1
    assert "adapter_config.json is missing" in capsys.readouterr().err
