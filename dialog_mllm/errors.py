"""What can go wrong between the app and the dialog model. The text of each error is written for the user.

from dialog_mllm.errors import DialogError
"""

from __future__ import annotations

import json


class DialogError(Exception):
    """Base of everything this package raises on purpose; str(error) says what happened and what to do."""


class MessageError(DialogError):
    """A message cannot be sent: empty, too long, wrong order, a picture that is none."""


class ProtocolError(DialogError):
    """The model's output, though received whole, is not a reply."""


class EmptyReply(ProtocolError):
    def __init__(self) -> None:
        super().__init__("The dialog model answered nothing. Retry, or say it in other words.")


class EmptyPrompt(ProtocolError):
    def __init__(self) -> None:
        super().__init__("The dialog model wanted to draw but did not say what. Retry, or say it in other words.")


class DialogUnavailable(DialogError):
    """The server cannot be reached, died in mid-reply, or answers something that is no dialog model."""


class DialogTimeout(DialogError):
    """The server is there but too slow: no connection, no first token, or silence in mid-reply."""


class DialogRefused(DialogError):
    """The server understood the request and turned it down (4xx): wrong key, unknown model, bad setting."""


class ContextTooLong(DialogError):
    """The conversation does not fit the model's context any more."""


class ServerFailed(DialogError):
    """vLLM could not be started; the message ends with the reason from its log."""


class AdapterError(DialogError):
    """An adapter cannot be used, or what was asked of the versions is impossible; the text says what to do."""


class TrainingError(DialogError):
    """Training cannot start or go on; the text says what to do."""


def server_message(text: str) -> str:
    """What an OpenAI-compatible server says in the body of a refusal."""
    try:
        error = json.loads(text)["error"]
        return str(error["message"] if isinstance(error, dict) else error)[:300]
    except (ValueError, KeyError, TypeError):
        return ""  # HTML or worse: not for the user
