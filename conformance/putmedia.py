"""PutMedia over a bare socket: every byte of the request is the test's own, and acks are read while the body is sent."""

import json
import queue
import socket
import ssl
import threading
import time

import sigv4

REGION = "us-west-2"
# The headers that the C producer signs; it signs neither content-type nor the security token.
C_SIGNED = ("connection", "host", "transfer-encoding", "user-agent", "x-amz-date", "x-amzn-fragment-acknowledgment-required",
            "x-amzn-fragment-timecode-type", "x-amzn-producer-start-timestamp", "x-amzn-stream-name", "x-amzn-stream-arn")
AGENT = "AWS-SDK-KVS-CPP-CLIENT/3.5.0/1.6.0 GCC/12.2.0 Linux/6.1.0 x86_64 CPPSDK"


class Refused(Exception):
    """The answer's head was no 200."""

    def __init__(self, status, headers, body):
        super().__init__(f"{status} {headers} {body!r}")
        self.status, self.headers, self.body = status, headers, body

    @property
    def code(self):
        return self.headers.get("x-amzn-errortype", "").split(":")[0]


class Put:
    """One PutMedia connection. `variant`: `c` signs as the C producer, `java` with the STREAMING literal, `presigned` in the
    query, `unsigned` not at all."""

    def __init__(self, server, stream, *, timecodes="ABSOLUTE", start="1795347223.436", variant="c", acks="1", key=None, secret=None,
                 token=None, date=None, port=None, drop=(), extra=(), tls=False, sign_as=None, corrupt=False):
        key, secret = key or server.access_key, secret or server.secret
        by_arn = stream.startswith("arn:")
        self.headers = [
            ("Host", "127.0.0.1"),
            ("Accept", "*/*"),
            ("connection", "keep-alive"),
            ("content-type", "application/json"),
            ("transfer-encoding", "chunked"),
            ("user-agent", AGENT),
            ("X-Amz-Date", date or sigv4.now()),
            ("x-amzn-fragment-acknowledgment-required", acks),
            ("x-amzn-fragment-timecode-type", timecodes),
            ("x-amzn-producer-start-timestamp", start),
            ("x-amzn-stream-arn" if by_arn else "x-amzn-stream-name", stream),
            ("Expect", "100-continue"),
        ]
        self.headers = [(name, value) for name, value in self.headers if name.lower() not in drop] + list(extra)
        target = self._sign(variant, key, secret, sign_as or {}, corrupt)
        if token:
            self.headers.append(("x-amz-security-token", token))
        self.socket = socket.create_connection((server.host, port or server.port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            self.socket = context.wrap_socket(self.socket)
        self.acks, self.ended, self.continued = queue.Queue(), threading.Event(), False
        self._buffer = b""
        # The chunks of the answer as they came.
        self.chunks = []
        lines = [f"POST {target} HTTP/1.1", *(f"{name}: {value}" for name, value in self.headers)]
        self.socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        self.status, self.answer_headers = self._read_head()
        if self.status == 100:
            self.continued = True
            self.status, self.answer_headers = self._read_head()
        if self.status != 200:
            raise Refused(self.status, self.answer_headers, self._rest())
        threading.Thread(target=self._read_acks, daemon=True).start()

    def _sign(self, variant, key, secret, sign_as, corrupt):
        date = dict(self.headers).get("X-Amz-Date")
        signed = [(name, sign_as.get(name.lower(), value)) for name, value in self.headers if name.lower() in C_SIGNED]
        scope = (key, secret, date, REGION, "kinesisvideo")
        if variant == "unsigned":
            return "/putMedia"
        if variant == "presigned":
            self.headers = [(name, value) for name, value in self.headers if name != "X-Amz-Date"]
            signed = [(name, value) for name, value in signed if name != "X-Amz-Date"]
            query = sigv4.presigned("POST", "/putMedia", signed, sigv4.EMPTY, *scope)
            return "/putMedia?" + (query[:-4] + "0000" if corrupt else query)
        payload = sigv4.EMPTY
        if variant == "java":
            payload = sigv4.STREAMING
            self.headers.append(("x-amz-content-sha256", payload))
            signed.append(("x-amz-content-sha256", payload))
        value = sigv4.authorization("POST", "/putMedia", signed, payload, *scope)
        self.headers.append(("Authorization", value[:-4] + "0000" if corrupt else value))
        return "/putMedia"

    def _read_head(self):
        while b"\r\n\r\n" not in self._buffer:
            more = self.socket.recv(65536)
            if not more:
                raise ConnectionError(f"the server closed the connection within the head: {self._buffer!r}")
            self._buffer += more
        text, self._buffer = self._buffer.split(b"\r\n\r\n", 1)
        first, *lines = text.decode("latin-1").split("\r\n")
        pairs = (line.split(":", 1) for line in lines)
        return int(first.split()[1]), {name.strip().lower(): value.strip() for name, value in pairs}

    def _rest(self):
        length = int(self.answer_headers.get("content-length", 0))
        while len(self._buffer) < length:
            more = self.socket.recv(65536)
            if not more:
                break
            self._buffer += more
        return self._buffer

    def _pieces(self):
        """The answer's body, chunk by chunk."""
        while True:
            while b"\r\n" not in self._buffer:
                more = self.socket.recv(65536)
                if not more:
                    return
                self._buffer += more
            size, self._buffer = self._buffer.split(b"\r\n", 1)
            size = int(size.split(b";")[0], 16)
            while len(self._buffer) < size + 2:
                more = self.socket.recv(65536)
                if not more:
                    return
                self._buffer += more
            piece, self._buffer = self._buffer[:size], self._buffer[size + 2:]
            if size == 0:
                return
            yield piece

    def _read_acks(self):
        text = b""
        try:
            for piece in self._pieces():
                self.chunks.append(piece)
                text += piece
                *lines, text = text.split(b"\n")
                for line in lines:
                    if line.strip():
                        ack = json.loads(line)
                        ack["line"], ack["at"] = line.decode(), time.monotonic()
                        self.acks.put(ack)
        except OSError:
            pass
        self.ended.set()
        self.acks.put(None)

    def send(self, data, piece=8192):
        """Sends body bytes, one HTTP chunk a piece. Returns False if the server closed the connection meanwhile."""
        try:
            for at in range(0, len(data), piece):
                part = data[at:at + piece]
                self.socket.sendall(b"%x\r\n%b\r\n" % (len(part), part))
            return True
        except OSError:
            return False

    def finish(self):
        """Ends the body."""
        try:
            self.socket.sendall(b"0\r\n\r\n")
        except OSError:
            pass

    def close(self):
        """Closes the connection wherever it is."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()

    def ack(self, within=20):
        """The next ack, None at the end of the answer."""
        return self.acks.get(timeout=within)

    def until(self, event, within=20):
        """Acks up to the first of this event type."""
        found = []
        while True:
            ack = self.ack(within)
            assert ack is not None, f"the answer ended without {event}: {found}"
            found.append(ack)
            if ack["EventType"] == event:
                return found

    def rest(self, within=30):
        """All acks up to the end of the answer."""
        found = []
        while (ack := self.ack(within)) is not None:
            found.append(ack)
        return found


def put(server, stream, body, *, piece=8192, **options):
    """Sends a whole body and returns all acks."""
    connection = Put(server, stream, **options)
    connection.send(body, piece)
    connection.finish()
    acks = connection.rest()
    connection.close()
    return acks


def summary(acks):
    return [(ack["EventType"], ack.get("FragmentTimecode")) for ack in acks]


def errors(acks):
    return [(ack["ErrorId"], ack["ErrorCode"]) for ack in acks if ack["EventType"] == "ERROR"]


def persisted(acks):
    return [ack["FragmentNumber"] for ack in acks if ack["EventType"] == "PERSISTED"]
