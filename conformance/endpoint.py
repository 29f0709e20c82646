"""Endpoints that Firehose delivers to, over TLS, which do what a test says: take, fail, hang and lie."""

import base64
import gzip
import http.server
import json
import queue
import ssl
import threading


class Endpoint:
    """A TLS server. Each request is answered by the next of `plan`, and by `take` when that is empty.

    A behaviour gets the request's handler and the parsed request; `take` is the one of an honest receiver of the kind.
    """

    def __init__(self, authority):
        self.plan, self.requests, self.lock = queue.Queue(), [], threading.Lock()
        self.closing = threading.Event()
        endpoint = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                request = {"path": self.path, "headers": {k.lower(): v for k, v in self.headers.items()}, "body": body}
                with endpoint.lock:
                    endpoint.requests.append(request)
                behaviour = endpoint.behaviour(request)
                behaviour(self, request)

            def answer(self, status, body=b"", kind="application/json", **headers):
                body = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                # A client that went away, or that does not trust us: the test knows.
                pass

            def finish_request(self, request, address):
                # The handshake is done here and not in accept(), where a silent client would hold up all others.
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(authority.certificate, authority.key)
                with context.wrap_socket(request, server_side=True) as secure:
                    super().finish_request(secure, address)

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"https://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def behaviour(self, request):
        try:
            return self.plan.get_nowait()
        except queue.Empty:
            return self.take

    def then(self, *behaviours):
        for behaviour in behaviours:
            self.plan.put(behaviour)

    def close(self):
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()

    # What any server may do instead of its work.

    def fail(self, handler, _):
        handler.answer(500, {"error": "out of order"})

    def hang(self, handler, _):
        self.closing.wait(60)
        handler.close_connection = True

    def break_off(self, handler, _):
        """Half of an answer, and the connection's end."""
        handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{")
        handler.close_connection = True

    def redirect(self, handler, _):
        handler.answer(302, location=self.url + "/elsewhere")

    def drip(self, handler, _):
        """An answer that never ends, a byte at a time."""
        handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n")
        while not self.closing.wait(0.05):
            handler.wfile.write(b" ")
        handler.close_connection = True

    def huge(self, handler, _):
        handler.answer(200, b" " * (64 << 20))

    def nonsense(self, handler, _):
        handler.answer(200, b"{\"requestId\":")


class HttpEndpoint(Endpoint):
    """A custom HTTP endpoint. `taken` are records by the id of their request, as AWS advises to tell repetitions."""

    def __init__(self, authority):
        super().__init__(authority)
        self.taken = {}

    def parsed(self, request):
        return json.loads(request["body"])

    def keep(self, request):
        body = self.parsed(request)
        assert request["headers"]["x-amz-firehose-request-id"] == body["requestId"]
        self.taken[body["requestId"]] = [base64.b64decode(record["data"]) for record in body["records"]]
        return body["requestId"]

    def take(self, handler, request):
        handler.answer(200, {"requestId": self.keep(request), "timestamp": 1578090903599})

    def records(self):
        return sorted(record for records in self.taken.values() for record in records)

    def another_id(self, handler, _):
        handler.answer(200, {"requestId": "another", "timestamp": 1})

    def says_no(self, handler, request):
        handler.answer(200, {"requestId": self.parsed(request)["requestId"], "timestamp": 1, "errorMessage": "no room"})

    def text(self, handler, request):
        handler.answer(200, {"requestId": self.parsed(request)["requestId"], "timestamp": 1}, kind="text/plain")

    def too_big(self, handler, request):
        handler.answer(413, {"requestId": self.parsed(request)["requestId"], "timestamp": 1, "errorMessage": "Payload too large"})

    def take_and_break_off(self, handler, request):
        """It has the records, and Firehose does not learn of it."""
        self.keep(request)
        self.break_off(handler, request)


class Splunk(Endpoint):
    """An event collector with acknowledgement: `indexed` are the bodies that it has acknowledged."""

    def __init__(self, authority, token):
        super().__init__(authority)
        self.token, self.indexed, self.waiting, self.next = token, [], {}, 0

    def behaviour(self, request):
        # The plan is about records; whoever asks for acknowledgements is answered.
        if request["path"].startswith("/services/collector/ack?"):
            return self.acknowledge
        return super().behaviour(request)

    def take(self, handler, request):
        headers = request["headers"]
        if headers["authorization"] != f"Splunk {self.token}":
            handler.answer(403, {"text": "Invalid token", "code": 4})
            return
        assert headers["x-splunk-request-channel"] in request["path"]
        with self.lock:
            ack, self.next = self.next, self.next + 1
            # Asked once, it is still busy; asked again, it is done.
            self.waiting[ack] = [request["body"], 1]
        handler.answer(200, {"text": "Success", "code": 0, "ackId": ack})

    def acknowledge(self, handler, request):
        acks = {}
        for ack in json.loads(request["body"])["acks"]:
            body, left = self.waiting.get(ack, [None, 1])
            acks[str(ack)] = body is not None and left == 0
            if acks[str(ack)]:
                self.indexed.append(body)
                del self.waiting[ack]
            elif body is not None:
                self.waiting[ack][1] -= 1
        handler.answer(200, {"acks": acks})

    def busy(self, handler, _):
        handler.answer(503, {"text": "Server is busy", "code": 9})

    def without_ack(self, handler, request):
        self.indexed.append(request["body"])
        handler.answer(200, {"text": "Success", "code": 0})


class Search(Endpoint):
    """A search engine: `documents` by index and id. A document's field `fates` says what becomes of it at each attempt."""

    def __init__(self, authority):
        super().__init__(authority)
        self.documents, self.tries, self.made = {}, {}, 0

    def take(self, handler, request):
        assert request["path"] == "/_bulk" and request["headers"]["content-type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in request["body"].splitlines()]
        items = []
        for action, document in zip(lines[::2], lines[1::2], strict=True):
            place = action["index"]
            key = place["_index"], place.get("_id") or self.generated()
            tries = self.tries[document["n"]] = self.tries.get(document["n"], 0) + 1
            fates = document.get("fates", [201])
            status = fates[min(tries, len(fates)) - 1]
            item = {"_index": key[0], "_id": key[1], "status": status}
            if status < 300:
                self.documents[key] = document
            else:
                item["error"] = {"type": "because", "reason": "it is so"}
            items.append({"index": item})
        handler.answer(200, {"took": 1, "errors": any(i["index"]["status"] >= 300 for i in items), "items": items})

    def generated(self):
        self.made += 1
        return f"generated-{self.made}"

    def too_few(self, handler, _):
        handler.answer(200, {"took": 1, "errors": False, "items": []})
