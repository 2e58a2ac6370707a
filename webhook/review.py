"""AdmissionReview v1 on the wire: a hostile body in, a request out; a decision in, the answer's bytes out."""

from __future__ import annotations

import binascii
from typing import Any, Final

import jiter
import msgspec

from webhook.decision import Decision
from webhook.errors import ReviewError
from webhook.request import Request, User

API_VERSION: Final = "admission.k8s.io/v1"
KIND: Final = "AdmissionReview"
_MAX_UID: Final = 128
_MAX_AUDIT_VALUE: Final = 1024


def read_review(body: bytes, path: str) -> Request:
    """The request in an AdmissionReview. Duplicate members, invalid UTF-8 and deep nesting are refused."""
    try:
        review = _parse(body)
    except (ValueError, RecursionError):
        raise ReviewError("not JSON, or JSON with a member twice, or nested too deeply") from None
    if not isinstance(review, dict):
        raise ReviewError("not an AdmissionReview")
    request = review.get("request")
    uid = _uid(request)
    if review.get("kind") != KIND or review.get("apiVersion") != API_VERSION:
        raise ReviewError(f"not an AdmissionReview of {API_VERSION}", uid)
    if not isinstance(request, dict) or uid is None:
        raise ReviewError("an AdmissionReview without a request and its uid", uid)
    try:
        return _request(request, uid, path)
    except (TypeError, AttributeError):
        raise ReviewError("a request with members of the wrong type", uid) from None


def _parse(body: bytes) -> Any:
    """The JSON in the body; ValueError where it is not JSON, or gives a member twice.

    The API server sends compact JSON. Encoded again it is the same bytes, unless a member was dropped or was spelled
    differently; only then the slower parser, which detects duplicates, has to run.
    """
    review = msgspec.json.decode(body)
    if msgspec.json.encode(review) != body.rstrip():
        return jiter.from_json(body, catch_duplicate_keys=True, allow_inf_nan=False)
    return review


def _uid(request: Any) -> str | None:
    uid = request.get("uid") if isinstance(request, dict) else None
    return uid if isinstance(uid, str) and 0 < len(uid) <= _MAX_UID else None


def _request(request: dict[str, Any], uid: str, path: str) -> Request:
    user = _object(request.get("userInfo")) or {}
    return Request(
        uid=uid,
        path=path,
        kind=_group_version(request.get("kind"), "kind"),
        resource=_group_version(request.get("resource"), "resource"),
        subresource=_text(request.get("subResource")),
        operation=_text(request.get("operation")),
        name=_text(request.get("name")),
        namespace=_text(request.get("namespace")),
        user=User(_text(user.get("username")), tuple(map(_text, user.get("groups") or ()))),
        object=_object(request.get("object")),
        old_object=_object(request.get("oldObject")),
        dry_run=request.get("dryRun") is True,
    )


def _group_version(value: Any, last: str) -> tuple[str, str, str]:
    value = _object(value) or {}
    return _text(value.get("group")), _text(value.get("version")), _text(value.get(last))


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError
    return value


def _object(value: Any) -> dict[str, Any] | None:
    if value is not None and not isinstance(value, dict):
        raise TypeError
    return value


def write_review(uid: str, decision: Decision) -> bytes:
    """The answer, deterministic to the byte."""
    response: dict[str, Any] = {"uid": uid, "allowed": decision.allowed}
    if decision.operations:
        response["patchType"] = "JSONPatch"
        patch = binascii.b2a_base64(msgspec.json.encode(decision.operations), newline=False)
        response["patch"] = msgspec.Raw(b'"%b"' % patch)  # base64 needs no escapes
    denial = decision.denial
    if denial is not None:
        status: dict[str, Any] = {"code": denial.code, "reason": denial.reason, "message": denial.message}
        if denial.causes:
            status["details"] = {
                "causes": [
                    {"reason": cause.reason, "message": cause.message, "field": cause.field} for cause in denial.causes
                ]
            }
        response["status"] = status
    if decision.warnings:
        response["warnings"] = decision.warnings
    if decision.audit:
        response["auditAnnotations"] = {key: value[:_MAX_AUDIT_VALUE] for key, value in decision.audit.items()}
    return msgspec.json.encode({"apiVersion": API_VERSION, "kind": KIND, "response": response})
