"""Signing as real clients do it, quirks included, so that a test can also do it wrong in one place."""

import datetime
import hashlib
import hmac
from urllib.parse import quote

EMPTY = hashlib.sha256(b"").hexdigest()
STREAMING = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"


def now(offset_seconds=0):
    at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=offset_seconds)
    return at.strftime("%Y%m%dT%H%M%SZ")


def _mac(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def signature(method, path, query, headers, payload_hash, secret, date, region, service):
    """`query` is a list of pairs, `headers` a list of the signed (name, value) as the server will see them."""
    lower = sorted((name.lower(), " ".join(value.split())) for name, value in headers)
    encoded = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in query)
    canonical = "\n".join([
        method, quote(path, safe="/-_.~"), "&".join(f"{name}={value}" for name, value in encoded),
        "".join(f"{name}:{value}\n" for name, value in lower), ";".join(name for name, _ in lower), payload_hash])
    day = date[:8]
    scope = f"{day}/{region}/{service}/aws4_request"
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = _mac(key, part)
    text = f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    return scope, ";".join(name for name, _ in lower), _mac(key, text).hex()


def authorization(method, path, signed_headers, payload_hash, key, secret, date, region, service):
    scope, names, mac = signature(method, path, [], signed_headers, payload_hash, secret, date, region, service)
    return f"AWS4-HMAC-SHA256 Credential={key}/{scope}, SignedHeaders={names}, Signature={mac}"


def presigned(method, path, signed_headers, payload_hash, key, secret, date, region, service, expires=300):
    """The query string of a presigned URL."""
    day = date[:8]
    pairs = [
        ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
        ("X-Amz-Credential", f"{key}/{day}/{region}/{service}/aws4_request"),
        ("X-Amz-Date", date),
        ("X-Amz-Expires", str(expires)),
        ("X-Amz-SignedHeaders", ";".join(sorted(name.lower() for name, _ in signed_headers))),
    ]
    _, _, mac = signature(method, path, pairs, signed_headers, payload_hash, secret, date, region, service)
    return "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in [*pairs, ("X-Amz-Signature", mac)])
