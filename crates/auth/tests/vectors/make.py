"""Makes botocore.json: requests signed by botocore, for the verifier to accept. Run: python3 make.py (botocore 1.43)."""

import datetime
import json
import pathlib
from urllib.parse import urlsplit

import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

NOW = datetime.datetime(2026, 11, 22, 11, 33, 43)
botocore.auth.get_current_datetime = lambda remove_tzinfo=True: NOW

KEY = ("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
BASE = "http://127.0.0.1:4577"

REQUESTS = [
    # name, method, url path and query, headers, body, service
    ("json body", "POST", "/createStream", {"Content-Type": "application/json"}, '{"StreamName":"door"}', "kinesisvideo"),
    ("target header", "POST", "/", {"X-Amz-Target": "Kinesis_20131202.PutRecord", "Content-Type": "application/x-amz-json-1.1"}, "{}", "kinesis"),
    ("escaped path", "GET", "/tags/arn%3Aaws%3Akinesisvideo%3Aus-west-2%3A000000000000%3Astream%2Fdoor", {}, "", "kinesisvideo"),
    ("space in path", "GET", "/a%20b/%C3%A9", {}, "", "kinesisvideo"),
    ("dots and slashes", "GET", "/a/./b/../c//d/", {}, "", "kinesisvideo"),
    ("query out of order", "GET", "/x?b=2&a=1&a=0&c=", {}, "", "kinesisvideo"),
    ("query with escapes", "GET", "/x?name=a%20b%2Bc%7Ed&empty", {}, "", "kinesisvideo"),
    ("folded header", "POST", "/x", {"X-Custom": "  a   b \t c  "}, "body", "rekognition"),
    ("utf-8 header", "POST", "/x", {"X-Custom": "caf\u00e9"}, "", "rekognition"),
    ("declared hash", "POST", "/x", {"X-Amz-Content-SHA256": "230d8358dc8e8890b4c58deeb62912ee2f20357ae92a5cc861b98e68fe31acb5"}, "body", "rekognition"),
    ("form body", "POST", "/", {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}, "Action=GetCallerIdentity&Version=2011-06-15", "sts"),
]


def head(request):
    url = urlsplit(request.url)
    headers = [[name, value] for name, value in request.headers.items()]
    if "host" not in {name.lower() for name, _ in headers}:
        headers.insert(0, ["Host", url.netloc])
    return {"method": request.method, "path": url.path, "query": url.query, "headers": headers}


out = []
for name, method, path, headers, body, service in REQUESTS:
    for kind, signer in (("header", botocore.auth.SigV4Auth), ("query", botocore.auth.SigV4QueryAuth)):
        if kind == "query":
            # botocore would move the body into the query.
            headers = {n: v for n, v in headers.items() if n not in ("Content-Type", "X-Amz-Content-SHA256")}
            body = ""
        request = AWSRequest(method=method, url=BASE + path, headers=headers, data=body.encode())
        signer(Credentials(*KEY), service, "us-west-2").add_auth(request)
        out.append({"name": f"{name}, by {kind}", "service": service, "body": body, **head(request)})

for name, path in (("s3 path", "/bucket/a b%2Fc//d".replace(" ", "%20")), ("s3 dots", "/bucket/../x/./y")):
    request = AWSRequest(method="GET", url=BASE + path, headers={}, data=b"")
    botocore.auth.S3SigV4Auth(Credentials(*KEY), "s3", "us-west-2").add_auth(request)
    out.append({"name": name, "service": "s3", "body": "", **head(request)})

pathlib.Path(__file__).with_name("botocore.json").write_text(json.dumps(out, indent=1, ensure_ascii=True) + "\n")
print(len(out), "vectors")
