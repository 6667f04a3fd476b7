"""The plans' shares: a run meets them, record by record, and `check` says where one does not."""

from __future__ import annotations

import random
from collections import Counter

from datasets_build.even import NAMES, EvenRandom, choose
from datasets_build.plans import EDITS, LENGTHS, TYPES, WAYS, lengths, sample_plan, targets
from datasets_build.storybook.edits import EDIT_GROUP


def test_even_draws_meet_their_shares_and_depend_on_the_place_alone() -> None:
    shares = {"a": 0.5, "b": 0.3, "c": 0.2}
    for name in NAMES:
        for start in (0, 7000):
            found = Counter(choose(EvenRandom.of_record(3, "train", start + i), shares, name) for i in range(400))
            assert all(abs(found[key] - share * 400) <= 8 for key, share in shares.items())
    assert choose(EvenRandom.of_record(3, "test", 5), shares, "edit", 2) == choose(
        EvenRandom.of_record(3, "test", 5), shares, "edit", 2
    )
    assert set(choose(random.Random(i), shares, "task") for i in range(50)) == set(shares)  # without a record: by lot


def test_plans_have_the_shares_that_are_aimed_at() -> None:
    goals = targets({"D_tt": 1.0}, ("en", "zh"))
    assert len(goals["composition"]) == len(TYPES) ** 3 and min(goals["composition"].values()) >= 0.004
    assert all(abs(sum(of.values()) - 1) < 1e-3 for of in goals.values())
    assert sum(share for length, share in LENGTHS.items() if length >= 7) >= 0.05
    plans = []
    for i in range(4000):
        rng = EvenRandom.of_record(2, "train", i)
        choose(rng, {"D_tt": 1.0}, "task")
        plans.append(sample_plan(rng))
    found = {
        "length": Counter(str(len(plan)) for plan in plans),
        "composition": Counter(" ".join(step.type for step in plan) for plan in plans if len(plan) == 3),
        "edit": Counter(
            EDIT_GROUP[step.op] for plan in plans for step in plan if step.type == "ti2i" and step.op not in WAYS
        ),
    }
    for name, counts in found.items():
        whole = sum(counts.values())
        assert set(counts) == set(goals[name])
        assert all(abs(counts[value] / whole - share) < 0.01 for value, share in goals[name].items()), name
    assert set(EDITS) == set(EDIT_GROUP.values())


def test_long_dialogues_alone_can_be_asked_for() -> None:
    long = lengths(7, 10)
    goals = targets({"D_tt": 1.0}, ("en",), long)
    assert set(goals) == {"task", "language", "length", "topic"} and abs(sum(goals["length"].values()) - 1) < 1e-5
    found = Counter(len(sample_plan(random.Random(i), "train", long)) for i in range(2000))
    assert set(found) == {7, 8, 9, 10}
    assert all(abs(count / 2000 - goals["length"][str(length)]) < 0.04 for length, count in found.items())
    assert lengths(1, 20) == LENGTHS and not lengths(8, 7) and not lengths(11, 30)


def test_only_what_the_turns_before_allow_is_planned() -> None:
    for seed in range(800):
        plan = sample_plan(random.Random(seed))
        for i, step in enumerate(plan):
            if step.op in ("undo", "correct"):
                assert plan[i - 1].type == "ti2i" and plan[i - 1].op not in WAYS
            if step.op in ("return", "combine") or step.form == "earlier":
                assert sum(before.type != "t2t" for before in plan[:i]) >= 2
