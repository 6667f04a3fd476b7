"""Stands in for `easel` in the tests of improving.py: writes what each command would, in no time.

python easel_in_words.py finetune --out RUN …    # $EASEL_FAKE names a folder whose files say what shall go wrong
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def option(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


def verdict(number: int, right: bool) -> str:
    return json.dumps({
        "record": f"r{number}", "turn": 0, "asked": str(number), "type": "t2i", "language": "en", "request": "draw",
        "edit": None, "topic": None, "error": None if right else "prompt",
        "right": {"switch_accuracy": True, "prompt_correct": right, "prompt_exact": right},
    })  # fmt: skip


def main() -> None:
    control = Path(os.environ["EASEL_FAKE"])
    command = next(word for word in ("feedback", "mix", "finetune", "dialog") if word in sys.argv[1:3])
    with (control / "given").open("a") as given:
        given.write(json.dumps(sys.argv[1:]) + "\n")
    if (control / f"fail-{command}").exists():
        print(f"easel {command}: there is no luck today.", file=sys.stderr)
        raise SystemExit(1)
    if command == "dialog":
        better = option("--model") != "dialog" and not (control / "worse").exists()
        worse = option("--model") != "dialog" and (control / "worse").exists()
        print("\r20 of 40 turns", end="", file=sys.stderr)
        lines = [verdict(number, number < (40 if better else 5 if worse else 20)) for number in range(40)]
        Path(option("--turns")).write_text("\n".join(lines) + "\n")
        return
    out = Path(option("--out"))
    out.mkdir(parents=True, exist_ok=True)
    if command == "feedback":
        (out / "train-00000.jsonl").write_text("{}\n")
        print(json.dumps({"records": 2}))
    elif command == "finetune":
        curve = "step,minutes,train_loss,loss,switch_accuracy\n10,0.5,2.0,,\n10,1.0,,1.5,0.9\n"
        (out / "curve.csv").write_text(curve)
        try:
            while (control / "slow").exists():
                time.sleep(0.05)
        except KeyboardInterrupt:
            (out / "checkpoint.pt").write_text("kept")
            raise SystemExit(130) from None
        from tests.dialog_mllm.tiny import write_adapter

        if not (out / "adapter").exists():
            write_adapter(out / "adapter")


if __name__ == "__main__":
    main()
