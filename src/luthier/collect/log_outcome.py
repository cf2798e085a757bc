"""Which answers of a log are worth learning from: those that came, whole, and were not refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from luthier.audit.assistant_phrases import REFUSALS, find_phrase, plain
from luthier.collect.log_record import NOTHING_ANSWERED, Exchange

FAILED = "the request failed"
REFUSED = "the model refused"
FILTERED = "stopped by a content filter"
CUT_OFF = "cut off at the limit of tokens"

_ERRORS = ("error", "error_str", "error_message", "exception", "error_information")
_FAILED_STATES = ("failure", "failed", "error", "errored", "cancelled", "canceled", "timeout", "in_progress")
_CUT = (
    "length",
    "max_tokens",
    "max_output_tokens",
    "model_length",
    "incomplete",
    "model_context_window_exceeded",
)
_FILTERS = ("content_filter", "safety", "recitation")
OPENING = 240  # characters in which a refusal shows


def find_fault(record: Mapping[str, Any], exchange: Exchange) -> str | None:
    """Why the answer is not one to learn; None where it is."""
    if has_failed(record, exchange):
        return FAILED
    answer = exchange.answered[-1]
    finish = str(exchange.finish or "").lower()
    if finish in _FILTERS:
        return FILTERED
    if answer.pop("refusal", False) or finish == "refusal" or is_stock_refusal(answer["content"]):
        return REFUSED
    if finish in _CUT:
        return CUT_OFF
    if not answer["content"].strip() and not answer.get("tool_calls"):
        return NOTHING_ANSWERED
    return None


def has_failed(record: Mapping[str, Any], exchange: Exchange | None = None) -> bool:
    """Whether a record, or the answer in it, says that the request failed."""
    keys = ("response_status", "status_code", "http_status", "status")
    codes = [*(record.get(key) for key in keys), *(exchange.codes if exchange else ())]
    if any(map(_is_error_code, codes)) or str(record.get("level", "")).upper() == "ERROR":
        return True
    if any(record.get(key) not in (None, "", {}, [], False) for key in _ERRORS):
        return True
    response = exchange.response if exchange else {}
    return bool(response.get("error")) or str(response.get("status", "")).lower() in _FAILED_STATES


def is_stock_refusal(text: str) -> bool:
    """Whether a text opens with one of the phrases with which assistants refuse, as the audit knows them."""
    return find_phrase(plain(text[:OPENING]), REFUSALS) is not None


def _is_error_code(code: Any) -> bool:
    if isinstance(code, str):
        return code.lower() in _FAILED_STATES or (code.isdecimal() and int(code) >= 400)
    return isinstance(code, int) and not isinstance(code, bool) and code >= 400
