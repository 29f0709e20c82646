"""docs/reference/coverage.md says of every operation whether the server carries it out, and else why not; the server is asked."""

import html
import re

import botocore.session

from harness import ROOT
from test_access import send

# PutMedia, GetStoredMediaMap, the two over a stream's stored video, the five over unknown faces and the operations of players are in no model and have tests of their own.
LISTED_ONLY = {"PutMedia", "GetStoredMediaMap", "StartStreamFaceDetection", "StartStreamFaceSearch", "DeleteUnknownFaces", "IndexUnknownFaces", "ListUnknownFaces", "SearchUnknownFaces", "SearchUnknownFacesByImage", "GetDASHManifest", "GetHLSMasterPlaylist", "GetHLSMediaPlaylist", "GetMP4InitFragment", "GetMP4MediaFragment", "GetTSFragment"}


def documented():
    table, service = {}, None
    for line in (ROOT / "docs/reference/coverage.md").read_text().splitlines():
        if line.startswith("## "):
            service = line[3:]
        row = re.fullmatch(r"\| (\w+) \| (yes|no) \| (?:(.+) )?\|", line)
        if row:
            table[service, row.group(1)] = "yes" if row.group(2) == "yes" else row.group(3) or ""
    return table


def test_the_coverage_table_is_what_the_server_does(own_server):
    session = botocore.session.get_session()
    table = documented()
    services = {service for service, _ in table}
    assert len(services) == 12
    root = (own_server.access_key, own_server.secret)
    wrong = []
    for service in sorted(services):
        model = session.get_service_model(service)
        known = {operation for name, operation in table if name == service} - LISTED_ONLY
        assert known == set(model.operation_names), service
        for operation in sorted(known):
            status, code, _, text = send(own_server, service, operation, root)
            refused = b"is not implemented by this server" in text
            why = table[service, operation]
            assert not refused or (400 <= status < 500 and code), (service, operation, status, code)
            if refused == (why == "yes") or refused and (not why or f"server: {html.escape(why, quote=False) if service == 'sts' else why};".encode() not in text):
                wrong.append((service, operation, status, text[:120]))
    assert wrong == []
