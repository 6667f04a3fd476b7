"""What the inspector says of drawn pictures: asked once a picture is shown, kept in the store, shown beside it.

    scorer = Scorer(profile, store); await scorer.score(conversation, turn)

A profile without an inspector has no scores. Nothing waits for them, and where one cannot be had, none is shown.
"""

from __future__ import annotations

import asyncio
import io
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from app.conversation import base_of
from app.profiles import Profile
from app.store import Conversation, Score, Store, Turn

if TYPE_CHECKING:
    from generator.inspector import Inspector

log = logging.getLogger(__name__)


class Scorer:
    def __init__(self, profile: Profile, store: Store) -> None:
        self._profile = profile
        self._store = store
        self._inspector: Inspector | None = None
        self._thread = ThreadPoolExecutor(1, "easel-scores")  # one picture at a time: drawing goes before

    async def score(self, conversation: Conversation, turn: Turn) -> bool:
        """Whether there is something new to show of this turn and of those beside it."""
        if not self._profile.inspector:
            return False
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._score, conversation, turn)

    def _score(self, conversation: Conversation, turn: Turn) -> bool:
        try:
            drawn = [sibling for sibling in self._store.siblings(turn) if sibling.picture]
            known = self._store.scores(drawn)
            missing = [sibling for sibling in drawn if sibling.id not in known]
            before = self._store.path(turn.parent)
            for sibling in missing:
                self._store.add_score(self._look(conversation, [*before, sibling]))
            return bool(missing)
        except Exception:  # deleted meanwhile, a full disk, a damaged inspector: nobody has asked for it
            log.warning("a picture could not be scored", exc_info=True)
            return False

    def _look(self, conversation: Conversation, path: list[Turn]) -> Score:
        from generator.inspector import Inspector
        from generator.looks import asked, consistency, seen

        if self._inspector is None:
            self._inspector = Inspector.load(Path(self._profile.inspector))
        turn = path[-1]
        base = base_of(path, conversation, self._profile, self._store)
        pictures = [self._store.picture_path(name).read_bytes() for name in (turn.picture, base) if name]
        after, *before = self._inspector.read([Image.open(io.BytesIO(data)) for data in pictures])
        drawn = self._profile.in_style(turn.prompt, self._profile.style_of(turn.prompt, turn.settings))
        named = asked(drawn, self._inspector.words)
        return Score(
            turn.id, base, consistency(before[0], after) if before else None, len(named),
            len(seen(after).intersection(named)),
        )  # fmt: skip
