"""One port, every way in: HTTP/1.1, HTTP/2 by prior knowledge, TLS; and what stands in front of it."""

import json
import shutil
import socket
import ssl
import subprocess

import pytest

import harness
import mkv
from media import get_media, make_stream
from putmedia import Put, errors, persisted, put

CURL = shutil.which("curl")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    made = subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1",
                           "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)], capture_output=True)
    if made.returncode:
        pytest.skip("skipped: no openssl to make a certificate")
    return "--tls-cert", str(cert), "--tls-key", str(key)


@pytest.fixture(scope="module")
def tls_server(certificate):
    started = harness.Server(None, *certificate)
    started.scheme, started.url = "https", f"https://{started.host}:{started.port}"
    yield started
    assert started.stop() == 0, started.log()


def curl(server, *arguments):
    if not CURL:
        pytest.skip("skipped: no curl")
    done = subprocess.run([CURL, "-sS", "-k", "-w", "\n%{http_version} %{http_code}", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    text, _, verdict = done.stdout.rpartition("\n")
    return text, *verdict.split()


def signed_curl(server, path, body, *options):
    """curl signs with SigV4 itself."""
    return curl(server, "--aws-sigv4", f"aws:amz:{harness.REGION}:kinesisvideo", "--user", f"{server.access_key}:{server.secret}",
                "-H", "Content-Type: application/json", "-d", json.dumps(body), *options, server.url + path)


@pytest.mark.parametrize("option, version", [("--http1.1", "1.1"), ("--http2-prior-knowledge", "2")])
def test_plain_http_in_both_versions(server, name, option, version):
    text, spoken, status = signed_curl(server, "/createStream", {"StreamName": name, "DataRetentionInHours": 1}, option)
    assert (spoken, status) == (version, "200"), text
    assert name in json.loads(text)["StreamARN"]
    text, spoken, status = curl(server, option, server.url + "/health")
    assert (spoken, status) == (version, "200") and json.loads(text)


# curl's "--http2" offers both versions, which is what libcurl does for TLS unless it is told otherwise.
@pytest.mark.parametrize("option, version", [("--http1.1", "1.1"), ("--http2", "1.1")])
def test_a_tls_client_that_offers_both_versions_is_answered_in_http_1(tls_server, name, option, version):
    text, spoken, status = signed_curl(tls_server, "/createStream", {"StreamName": name}, option)
    assert (spoken, status) == (version, "200"), text


def test_the_operator_can_prefer_http_2_over_tls(certificate, tmp_path, name):
    config = tmp_path / "sightglass.toml"
    config.write_text("[tls]\nprefer_http2 = true\n")
    own = harness.Server(None, "--config", str(config), *certificate)
    try:
        own.url = f"https://{own.host}:{own.port}"
        for option, version in [("--http1.1", "1.1"), ("--http2", "2")]:
            text, spoken, status = signed_curl(own, "/createStream", {"StreamName": name + version}, option)
            assert (spoken, status) == (version, "200"), text
    finally:
        own.stop()


def test_media_goes_through_tls(tls_server, name):
    make_stream(tls_server, name)
    acks = put(tls_server, name, mkv.header() + mkv.cluster(1000, mkv.block(b"frame")), tls=True)
    assert len(persisted(acks)) == 1
    [document, *_], _ = get_media(tls_server, name, 1)
    assert document.fragments[0].blocks[0].payload == b"frame"
    assert tls_server.client("kinesisvideo").get_data_endpoint(StreamName=name, APIName="PUT_MEDIA")["DataEndpoint"] == tls_server.url


def test_media_is_read_by_http_2(server, name):
    make_stream(server, name)
    numbers = persisted(put(server, name, mkv.header() + mkv.cluster(1000, mkv.block(b"frame"))))
    if not CURL:
        pytest.skip("skipped: no curl")
    done = subprocess.run([CURL, "-sS", "--http2-prior-knowledge", "--aws-sigv4", f"aws:amz:{harness.REGION}:kinesisvideo", "--user",
                           f"{server.access_key}:{server.secret}", "-H", "Content-Type: application/json",
                           "-d", json.dumps({"StreamName": name, "Fragments": numbers}), server.url + "/getMediaForFragmentList"],
                          capture_output=True, timeout=60)
    [document] = mkv.documents(done.stdout)
    assert document.fragments[0].blocks[0].payload == b"frame"


def test_health_and_metrics_need_no_signature(server):
    text, _, status = curl(server, server.url + "/health")
    assert status == "200" and isinstance(json.loads(text), dict)
    text, _, status = curl(server, server.url + "/metrics")
    assert status == "200" and "# TYPE" in text


def test_every_answer_names_its_request(server):
    for arguments in (["-d", "{}", server.url + "/listStreams"], [server.url + "/nowhere"], ["-X", "PUT", server.url + "/"]):
        text, _, status = curl(server, "-i", *arguments)
        head = text.lower()
        assert status[0] == "4" and "x-amzn-requestid:" in head and "x-amzn-errortype:" in head and "x-amz-errortype:" in head, text


def test_noise_on_the_port_harms_nobody(server, name):
    for noise in (b"\0" * 4096, b"GET / HTTP/9.9\r\n\r\n", b"POST /putMedia HTTP/1.1\r\n" + b"a: b\r\n" * 5000 + b"\r\n", b"\x16\x03\x01\x02\x00junk",
                  b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 200):
        with socket.create_connection((server.host, server.port), timeout=10) as connection:
            try:
                connection.sendall(noise)
                connection.settimeout(5)
                while connection.recv(65536):
                    pass
            except OSError:
                pass
    assert server.client("kinesisvideo").list_streams()["ResponseMetadata"]["HTTPStatusCode"] == 200


def test_an_oversized_body_is_refused_without_being_read(server):
    import http.client

    before = server.rss_kib()
    connection = http.client.HTTPConnection(server.host, server.port, timeout=30)
    try:
        connection.request("POST", "/listStreams", body=iter([b" " * (1 << 20)] * 64), headers={"Transfer-Encoding": "chunked"}, encode_chunked=True)
        assert connection.getresponse().status in (400, 403, 413)
    except OSError:
        pass  # refused while still being sent
    connection.close()
    assert server.rss_kib() - before < 40_000


NGINX_PATHS = (shutil.which("nginx"), "/usr/sbin/nginx")


@pytest.fixture(scope="module")
def proxy(server, tmp_path_factory):
    """nginx in front of the server, rewriting Host and the hop-by-hop headers as it does by default."""
    nginx = next((path for path in NGINX_PATHS if path and shutil.which(path)), None)
    if not nginx:
        pytest.skip("skipped: no nginx")
    folder = tmp_path_factory.mktemp("nginx")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = folder / "nginx.conf"
    config.write_text(f"""
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port}; client_max_body_size 0;
    location / {{
      proxy_pass http://{server.host}:{server.port};
      proxy_http_version 1.1; proxy_request_buffering off; proxy_buffering off;
      proxy_set_header Host $http_host;
      proxy_set_header Connection "";
    }}
  }}
}}
""")
    child = subprocess.Popen([nginx, "-c", str(config), "-p", str(folder)], stderr=subprocess.PIPE)

    def listening():
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True

    harness.eventually(listening)
    yield port
    child.terminate()
    child.wait()


@pytest.mark.parametrize("variant", ["c", "java", "presigned"])
def test_a_producer_behind_a_proxy_that_rewrites_headers_is_believed(server, proxy, name, variant):
    make_stream(server, name)
    connection = Put(server, name, port=proxy, variant=variant)
    connection.send(mkv.header() + mkv.cluster(1000, mkv.block(b"frame")) + mkv.tag(mkv.END_OF_FRAGMENT))
    # Through the proxy, too, the ack comes while the body is open.
    connection.until("PERSISTED")
    connection.finish()
    assert errors(connection.rest()) == []
    connection.close()


def test_a_wrong_signature_is_no_better_behind_a_proxy(server, proxy, name):
    from putmedia import Refused

    make_stream(server, name)
    with pytest.raises(Refused) as refused:
        Put(server, name, port=proxy, corrupt=True)
    assert refused.value.status == 403


def test_the_sdk_works_through_the_proxy(server, proxy, name):
    import boto3

    kvs = boto3.client("kinesisvideo", endpoint_url=f"http://127.0.0.1:{proxy}", region_name=harness.REGION,
                       aws_access_key_id=server.access_key, aws_secret_access_key=server.secret)
    kvs.create_stream(StreamName=name)
    assert kvs.describe_stream(StreamName=name)["StreamInfo"]["Status"] == "ACTIVE"
