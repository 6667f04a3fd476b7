"""How much of an earlier prompt stays in the one that changes it, as far as a machine without a grammar can tell.

    python -c "from datasets_build.consistency import kept_share; print(kept_share('a red fox', 'a blue fox'))"

Words are words; written Chinese has no gaps between them, so there every two neighbouring characters count as one.
"""

from __future__ import annotations

import re
from collections import Counter

_RUNS = re.compile(r"[㐀-鿿]+|[^\W_㐀-鿿]+")
_CHINESE = re.compile(r"[㐀-鿿]")
# The least share of the earlier prompt's words that an edit leaves alone. What is taken out takes its own words along,
# another background or style may take a whole clause.
LEAST = {
    "entity": 0.55, "add_subject": 0.7, "remove_subject": 0.4, "background": 0.45, "style": 0.5, "shot": 0.5,
    "combine": 0.2,
}  # fmt: skip


def words(text: str) -> list[str]:
    found: list[str] = []
    for run in _RUNS.findall(text.casefold()):
        if _CHINESE.match(run) and len(run) > 1:
            found.extend(run[i : i + 2] for i in range(len(run) - 1))
        else:
            found.append(run)
    return found


def kept_share(earlier: str, later: str) -> float:
    """The share of the earlier text's words that the later one still has."""
    before, after = Counter(words(earlier)), Counter(words(later))
    return (before & after).total() / max(1, before.total())


def chinese_share(text: str) -> float:
    """Chinese characters among letters of all kinds; a Latin word counts as one."""
    runs = _RUNS.findall(text)
    chinese = sum(len(run) for run in runs if _CHINESE.match(run))
    return chinese / max(1, chinese + sum(not _CHINESE.match(run) for run in runs))
