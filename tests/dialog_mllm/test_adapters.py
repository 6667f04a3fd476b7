"""The versions on disk: what is active, what was before, and the gate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dialog_mllm.adapters import ORIGINAL, Adapters, NotConfirmed
from dialog_mllm.bases import fingerprint
from dialog_mllm.errors import AdapterError
from tests.dialog_mllm.tiny import write_adapter


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture
def adapters(base: Path, tmp_path: Path) -> Adapters:
    return Adapters(tmp_path / "adapters", base)


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "trained")


def test_versions_are_activated_and_rolled_back(adapters: Adapters, trained: Path) -> None:
    assert (adapters.active, adapters.before, adapters.versions()) == (ORIGINAL, None, [])
    one = adapters.add(trained, ORIGINAL, {"minutes": 5})
    adapters.add(trained, one.name)
    assert [version.name for version in adapters.versions()] == ["v1", "v2"]
    assert (one.settings, one.parent, len(one.sha256)) == ({"minutes": 5}, ORIGINAL, 64)
    assert (adapters.adapter("v1") / "adapter_model.safetensors").read_bytes() == (
        trained / "adapter_model.safetensors"
    ).read_bytes()
    adapters.activate("v1", anyway=True)
    adapters.activate("v2", anyway=True)
    adapters.activate("v2", anyway=True)  # once more is no step to go back
    assert (adapters.active, adapters.before) == ("v2", "v1")
    assert [adapters.roll_back(), adapters.roll_back()] == ["v1", ORIGINAL]
    with pytest.raises(AdapterError, match="nothing to go back to"):
        adapters.roll_back()


def test_another_process_sees_the_change(adapters: Adapters, base: Path, trained: Path) -> None:
    other = Adapters(adapters.folder, base)
    before = adapters.written
    other.add(trained)
    other.activate("v1", anyway=True)
    assert adapters.active == "v1" and adapters.written != before


def test_the_gate(adapters: Adapters, trained: Path) -> None:
    adapters.add(trained, ORIGINAL)
    with pytest.raises(NotConfirmed, match="v1 has not been measured"):
        adapters.activate("v1")
    adapters.record("v1", {"held_out": []}, ("prompt_correct",))
    with pytest.raises(NotConfirmed, match="v1 is worse than original: prompt_correct"):
        adapters.activate("v1")
    assert adapters.active == ORIGINAL
    adapters.record("v1", {"held_out": []}, ())
    adapters.activate("v1")
    assert adapters.active == "v1"


def test_what_is_removed_is_not_gone_back_to_and_no_number_comes_again(adapters: Adapters, trained: Path) -> None:
    for _ in range(3):
        adapters.add(trained)
    for name in ("v1", "v2", "v1", "v3"):
        adapters.activate(name, anyway=True)
    with pytest.raises(AdapterError, match="v3 is active"):
        adapters.remove("v3")
    with pytest.raises(AdapterError, match="comes with the app"):
        adapters.remove(ORIGINAL)
    adapters.remove("v2")
    assert [adapters.roll_back(), adapters.roll_back()] == ["v1", ORIGINAL], "v1 before and after v2 is one step now"
    adapters.remove("v3")
    assert adapters.add(trained).name == "v4"
    assert not list(adapters.folder.glob("v3*"))


def test_an_adapter_belongs_to_its_base(adapters: Adapters, base: Path, trained: Path, tmp_path: Path) -> None:
    adapters.add(trained)
    adapters.activate("v1", anyway=True)
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text("{}")
    (other / "model.safetensors").write_bytes(b"others")
    elsewhere = Adapters(adapters.folder, other)
    assert (elsewhere.active, elsewhere.versions()) == (ORIGINAL, [])
    with pytest.raises(AdapterError, match="no adapter 'v1' for this dialog model"):
        elsewhere.activate("v1", anyway=True)
    assert elsewhere.add(trained).name == "v2"
    moved = base.rename(tmp_path / "moved")
    assert Adapters(adapters.folder, moved).active == "v1", "the same weights elsewhere are the same base"
    assert fingerprint("org/model") == "org/model"


def test_what_is_broken_is_said(adapters: Adapters, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"adapter_config\.json is missing"):
        adapters.add(tmp_path)
    adapters.add(trained)
    with pytest.raises(AdapterError, match="There are: original, v1"):
        adapters.activate("v7")
    weights = adapters.adapter("v1") / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(AdapterError, match="truncated"):
        adapters.activate("v1", anyway=True)
    (adapters.folder / "v1" / "version.json").write_text("{}")
    with pytest.raises(AdapterError, match="Remove that folder"):
        adapters.versions()
    (adapters.folder / "adapters.json").write_text(json.dumps([]))
    with pytest.raises(AdapterError, match="Delete it"):
        _ = adapters.active
    (tmp_path / "file").write_text("")
    with pytest.raises(AdapterError, match="cannot be changed"):
        Adapters(tmp_path / "file", "org/model").add(trained)
