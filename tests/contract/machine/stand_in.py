"""A stand-in for the agent with switches for illnesses: it speaks the frames and knows nothing of jobs."""

from __future__ import annotations

from fleet.machine.bundle import Bundle, build

MAIN = r"""
import json, os, struct, sys, threading, time, zlib

LOCK = threading.Lock()

def read(n):
    parts = []
    while n:
        part = os.read(0, min(n, 1 << 20))
        if not part:
            os._exit(0)
        parts.append(part)
        n -= len(part)
    return b"".join(parts)

def write(head, body=b""):
    text = json.dumps(head).encode()
    data = struct.pack(">II", len(text), len(body)) + text + body
    with LOCK:
        while data:
            data = data[os.write(1, data):]

def beat(every):
    while True:
        time.sleep(every)
        write({"type": "heartbeat", "free_bytes": 1, "load": 0.0})

def main():
    write({"type": "hello", "protocol": int(os.environ.get("STAND_IN_PROTOCOL", "1")), "version": "stand-in",
           "python": "%d.%d" % sys.version_info[:2], "pid": os.getpid(), "uid": os.getuid(),
           "home": os.path.expanduser("~"),
           "root": os.getuid() == 0, "boot_id": os.environ.get("FLEET_BOOT_ID"), "argv": sys.argv, "leases": []})
    waiting = {}
    while True:
        lengths = struct.unpack(">II", read(8))
        head, body = json.loads(read(lengths[0])), read(lengths[1])
        kind, number = head["type"], head.get("id")
        if kind == "part":
            waiting[number][1].append(body)
            if len(waiting[number][1]) < waiting[number][0]["parts"]:
                continue
            head, parts = waiting.pop(number)
            kind, body = head["type"], b"".join(parts)
        elif "parts" in head:
            waiting[number] = (head, [])
            continue
        if kind == "ping":
            write({"type": "reply", "id": number, "ok": True, "free_bytes": 1, "load": 0.0, "leases": []})
        elif kind == "echo":
            write({"type": "reply", "id": number, "ok": True, "bytes": len(body), "crc32": zlib.crc32(body)})
        elif kind == "refuse":
            write({"type": "reply", "id": number, "ok": False, "error": head["slug"], "message": head["message"]})
        elif kind == "flood":
            write({"type": "reply", "id": number, "ok": True})
            piece, offset = b"x" * head["piece"], 0
            while offset < head["bytes"]:
                write({"type": "data", "lease": "l", "offset": offset}, piece)
                offset += len(piece)
            write({"type": "exit", "lease": "l", "log_bytes": offset})
        elif kind == "beat":
            threading.Thread(target=beat, args=(head["every_s"],), daemon=True).start()
            write({"type": "reply", "id": number, "ok": True})
        elif kind == "die":
            os.write(2, head["words"].encode())
            os._exit(head["code"])
        elif kind == "babble":
            os.write(1, b"Traceback: this is no frame at all, it is a babbling program\n")
        elif kind == "chatter":
            for _ in range(head["lines"]):
                os.write(2, b"z" * 1000)
            write({"type": "reply", "id": number, "ok": True})
        elif kind == "deaf":
            write({"type": "reply", "id": number, "ok": True})
            time.sleep(3600)
        # "silence" gets no answer
"""


def stand_in_bundle() -> Bundle:
    return build({"__init__.py": b"", "__main__.py": MAIN.encode()})
