#!/usr/bin/env python3
"""Verifies a Tidegate recording: verify.py KEYS.pem FILE.tgr

Written from docs/reference/recording.md alone, with nothing but Python's
standard library, to prove that the page is enough. It prints a report, or the
segment and the byte at which the recording is not whole.
"""
import base64
import hashlib
import json
import re
import sys
from datetime import datetime

# Ed25519 as RFC 8032 describes it, for verifying alone: slow, and simple.
P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT = pow(2, (P - 1) // 4, P)


def recover_x(y, sign):
    if y >= P:
        return None
    xx = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(xx, (P + 3) // 8, P)
    if (x * x - xx) % P:
        x = x * ROOT % P
    if (x * x - xx) % P or (x == 0 and sign):
        return None
    return P - x if x & 1 != sign else x


def point(data):
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    x = recover_x(y, sign)
    return None if x is None else (x, y, 1, x * y % P)


def add(p, q):
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def times(n, p):
    q = (0, 1, 1, 0)
    while n:
        if n & 1:
            q = add(q, p)
        p, n = add(p, p), n >> 1
    return q


BASE_Y = 4 * pow(5, P - 2, P) % P
BASE = point(BASE_Y.to_bytes(32, "little"))


def signed_by(key, message, signature):
    if len(signature) != 64 or len(key) != 32:
        return False
    a, r, s = point(key), point(signature[:32]), int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= ORDER:
        return False
    h = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % ORDER
    left, right = times(s, BASE), add(r, times(h, a))
    return (left[0] * right[2] - right[0] * left[2]) % P == 0 and (left[1] * right[2] - right[1] * left[2]) % P == 0


class Fault(Exception):
    pass


def want(true, what):
    if not true:
        raise Fault(what)


def b64(text):
    try:
        out = base64.b64decode(text, validate=True)
    except ValueError:
        raise Fault("not base64")
    want(base64.b64encode(out).decode() == text, "not base64 as it should be")
    return out


def only_once(pairs):
    out = dict(pairs)
    want(len(out) == len(pairs), "a field stands twice")
    return out


def parse(body):
    try:
        out = json.loads(body.decode("utf-8"), object_pairs_hook=only_once)
    except ValueError as e:
        raise Fault("not JSON: %s" % e)
    want(isinstance(out, dict), "not a JSON object")
    return out


def moment(text):
    found = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,9})?Z", text)
    want(found, "not a time: %r" % text)
    return datetime.fromisoformat(found[1]).timestamp() + float(found[2] or 0)


def key_id(key):
    return hashlib.sha256(key).hexdigest()[:16]


def fields(value, allowed):
    want(set(value) <= set(allowed), "a field that is not in the list")


HEADER = ["v", "session", "segment", "prev", "key", "opened", "certificate"]
EVENT = ["type", "time", "op", "session", "operation", "decision", "held", "outcome", "direction", "data", "columns", "rows", "text"]
TYPES = ["session.start", "op.open", "hold.open", "hold.answer", "data", "resize", "notice", "op.close", "session.end"]


class Verifier:
    def __init__(self, trusted):
        self.trusted = {key_id(k): k for k in trusted}
        self.certified = {}
        self.report = {"session": "", "segments": 0, "events": 0, "sealed": False, "open": 0, "head": ""}
        self.header = self.closed = self.lines = None

    def line(self, raw):
        want(not self.report["sealed"], "something follows the last segment")
        want(raw.endswith(b"\n"), "the last line is not whole")
        want(len(raw) >= 4 and raw[1:2] == b" " and raw[:1] in b"HECS", "a line of another form")
        want(self.closed is None or raw[:1] == b"S", "want a signature here")
        getattr(self, "line_" + chr(raw[0]))(raw, raw[2:-1])

    def line_H(self, raw, body):
        want(self.lines is None, "a segment inside another")
        h = self.header = parse(body)
        fields(h, HEADER)
        want(h["v"] in (1, 2) and (h["v"] == 2 or "certificate" not in h), "an unknown version")
        want(h["segment"] == self.report["segments"], "segments are not numbered in order")
        want(h["prev"] == self.report["head"], "the chain is broken")
        want(self.report["session"] in ("", h["session"]), "another session")
        if "certificate" in h:
            self.certificate(h)
        want(h["key"] in self.certified or h["key"] in self.trusted, "the key is not trusted")
        self.report["session"], self.report["open"] = h["session"], 0
        self.lines = raw

    def certificate(self, h):
        body, _, signature = h["certificate"].partition(".")
        body, signature = b64(body), b64(signature)
        message = b"tidegate recorder v1\n" + body
        want(any(signed_by(ca, message, signature) for ca in self.trusted.values()), "the certificate is of no trusted CA")
        c = parse(body)
        fields(c, ["installation", "gateway", "key", "from", "until"])
        key = b64(c["key"])
        want(key_id(key) == h["key"], "the certificate is of another key")
        want(moment(c["from"]) <= moment(h["opened"]) < moment(c["until"]), "the certificate was not good then")
        self.certified[h["key"]] = key
        self.report["installation"], self.report["gateway"] = c["installation"], c["gateway"]

    def line_E(self, raw, body):
        want(self.lines is not None, "an event outside a segment")
        e = parse(body)
        fields(e, EVENT)
        want(e.get("type") in TYPES, "an unknown type")
        moment(e.get("time", ""))
        b64(e.get("data", ""))
        self.report["open"] += 1
        self.lines += raw

    def line_C(self, raw, body):
        want(self.lines is not None, "a segment ends that did not begin")
        c = self.closed = parse(body)
        fields(c, ["segment", "events", "closed", "last"])
        want(c["segment"] == self.header["segment"] and c["events"] == self.report["open"], "the count is wrong")
        self.lines += raw

    def line_S(self, raw, body):
        want(self.closed is not None, "a signature without a closed segment")
        digest = hashlib.sha256(self.lines)
        told, _, signature = body.decode("ascii", "replace").partition(" ")
        want(told == digest.hexdigest(), "the content was changed")
        key = self.certified.get(self.header["key"]) or self.trusted[self.header["key"]]
        label = b"tidegate segment v%d\n" % self.header["v"]
        want(signed_by(key, label + digest.digest(), b64(signature)), "the signature is wrong")
        self.report.update(segments=self.report["segments"] + 1, events=self.report["events"] + self.report["open"],
                           open=0, head=told, sealed=self.closed["last"])
        self.lines = self.closed = None


def read_keys(path):
    with open(path) as f:
        blocks = re.findall(r"-----BEGIN PUBLIC KEY-----(.*?)-----END PUBLIC KEY-----", f.read(), re.S)
    return [base64.b64decode(b)[-32:] for b in blocks]


def main(keys, path):
    v, offset = Verifier(read_keys(keys)), 0
    try:
        with open(path, "rb") as f:
            for raw in f:
                v.line(raw)
                offset += len(raw)
        want(v.closed is None, "the file ends before a signature")
        want(v.report["session"], "the file is empty")
    except (Fault, KeyError, TypeError) as e:
        sys.exit("segment %d, byte %d: %s" % (v.report["segments"], offset, e))
    print(json.dumps(v.report))


if __name__ == "__main__":
    main(*sys.argv[1:])
