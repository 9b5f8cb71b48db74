"""Whether the Hugging Face hub can be reached: asked once and briefly, before anything waits for it."""

from functools import cache

from huggingface_hub import constants, get_session

_TIMEOUT_SECONDS = 5


@cache
def hub_answers() -> bool:
    """Whether the hub's endpoint (HF_ENDPOINT) answers at all; False at once in offline mode.

    The hub's client tries an unreachable hub for half a minute; a run without a network should not wait for that.
    """
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=_TIMEOUT_SECONDS)
    except Exception:  # the client library behind the session, and so its errors, differ between hub versions
        return False
    return True


def hub_state() -> str:
    """The hub's endpoint, whether it answers, and where its cache is: for messages."""
    if constants.HF_HUB_OFFLINE:
        answer = "offline mode is set (HF_HUB_OFFLINE)"
    else:
        answer = "it answers" if hub_answers() else "it does not answer"
    return f"hub {constants.ENDPOINT}: {answer}; hub cache {constants.HF_HUB_CACHE}"
