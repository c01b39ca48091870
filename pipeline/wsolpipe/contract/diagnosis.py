"""Diagnosis of a failed request: whether a retry may succeed, a line without secrets, and the next step."""

from __future__ import annotations

import os
import re
from urllib.parse import quote, urlsplit

_SECRETS = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_TOKEN", "GOOGLE_SERVICE_ACCOUNT_KEY", "HF_TOKEN",
)  # fmt: skip
#: Scheme of a store -> the variables that give access to it.
_ACCESS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for a public bucket",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or GOOGLE_SKIP_SIGNATURE=true for a public bucket",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or AZURE_SKIP_SIGNATURE=true if it is public",
    "hf": "HF_TOKEN",
}
_SERVICES = {"s3": "S3", "gs": "Google Cloud Storage", "az": "Azure"}
NOT_IMPLEMENTED = 501
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
    return status is None or (int(status[1]) >= 500 and int(status[1]) != NOT_IMPLEMENTED) or int(status[1]) in _PASSING


def diagnose(error: Exception, url: str) -> tuple[str, str | None]:
    """Say what a failure means, in one line without secrets, and what to do about it."""
    text = str(error)
    code = re.search(r"<Code>([^<]{1,80})</Code>", text)
    said = re.search(r"<Message>([^<]{1,200})</Message>", text)
    name, kind = code[1] if code else "", type(error).__name__
    line = f"{name}: {said[1]}" if code and said else text.split("\n", 1)[0][:300]
    for variable in _SECRETS:
        secret = os.environ.get(variable)
        if secret:
            line = line.replace(secret, "***").replace(quote(secret, safe=""), "***")
    access = _ACCESS.get(url.partition(":")[0], _ACCESS["s3"])
    if "169.254.169.254" in text or "metadata.google" in text or "CredentialsNotLoaded" in text:
        return "no credentials found", f"set {access}"
    if "Account must be specified" in text or "Missing bucket name" in text:
        return "the account is not known", f"set {access}"
    if name in {"ExpiredToken", "TokenRefreshRequired", "RequestExpired"}:
        return f"the credentials have expired ({line})", "renew them and run the same command again: it goes on"
    if name in {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidClientTokenId"}:
        return f"the credentials are not valid here ({line})", f"check {access.partition(',')[0]}"
    if kind in {"PermissionDeniedError", "UnauthenticatedError"} or name == "AccessDenied":
        return (
            f"no permission ({line})",
            f"ask the owner of the store for access, or check {access.partition(' ')[0].rstrip(',')}",
        )
    if name in {"NoSuchBucket", "ContainerNotFound"}:
        return "the bucket does not exist", f"create the bucket {urlsplit(url).netloc}, or correct the URL"
    if "error sending request" in text or "connect" in text or "timed out" in text:
        where = {"s3": os.environ.get("AWS_ENDPOINT_URL"), "gs": None, "az": None}.get(url.partition(":")[0], url)
        host = urlsplit(where).netloc.rpartition("@")[2] if where else f"the {_SERVICES[url[:2]]} endpoint"
        host = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co")).netloc if url[:3] == "hf:" else host
        check = " and AWS_ENDPOINT_URL" if url.startswith("s3:") else ""
        return f"{host} cannot be reached", f"check the network{check}, then run again: it goes on"
    return line, None
