"""Diagnosis of a failed request: whether a retry may succeed, a line without secrets, and the next step."""

from __future__ import annotations

import os
import re
from urllib.parse import quote, urlsplit

_SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_PASSING = {408, 409, 425, 429}


def may_pass(error: Exception) -> bool:
    """Whether the same request may succeed in a moment: a broken connection, a busy or failing server."""
    kind = type(error).__name__
    if kind in {"PermissionDeniedError", "UnauthenticatedError", "NotSupportedError", "InvalidPathError"}:
        return False
    if not isinstance(error, OSError) and kind not in {"GenericError", "BaseError", "JoinError"}:
        return False
    text = str(error)
    if "169.254.169.254" in text or "builder error" in text:
        return False
    status = re.search(r"status code: (\d{3})", text)
    return status is None or int(status[1]) >= 500 or int(status[1]) in _PASSING


def diagnose(error: Exception, url: str) -> tuple[str, str | None]:
    """What a failure means in one line without secrets, and what to do about it."""
    text = str(error)
    code = re.search(r"<Code>([^<]{1,80})</Code>", text)
    said = re.search(r"<Message>([^<]{1,200})</Message>", text)
    name, kind = code[1] if code else "", type(error).__name__
    line = f"{name}: {said[1]}" if code and said else text.split("\n", 1)[0][:300]
    for variable in _SECRETS:
        secret = os.environ.get(variable)
        if secret:
            line = line.replace(secret, "***").replace(quote(secret, safe=""), "***")
    if "169.254.169.254" in text or "CredentialsNotLoaded" in text:
        hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for a public bucket"
        return "no credentials found", hint
    if name in {"ExpiredToken", "TokenRefreshRequired", "RequestExpired"}:
        return f"the credentials have expired ({line})", "renew them and run the same command again: it goes on"
    if name in {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidClientTokenId"}:
        return f"the credentials are not valid here ({line})", "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if kind in {"PermissionDeniedError", "UnauthenticatedError"} or name == "AccessDenied":
        return f"no permission ({line})", "ask the owner of the store for access, or check AWS_ACCESS_KEY_ID"
    if name == "NoSuchBucket":
        return "there is no such bucket", f"create the bucket {urlsplit(url).netloc}, or correct the URL"
    if "error sending request" in text or "connect" in text or "timed out" in text:
        where = os.environ.get("AWS_ENDPOINT_URL") if url.startswith("s3:") else url
        host = urlsplit(where).netloc.rpartition("@")[2] if where else "the S3 endpoint"
        return f"{host} cannot be reached", "check the network and AWS_ENDPOINT_URL, then run again: it goes on"
    return line, None
