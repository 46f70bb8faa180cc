"""A small server in a process of its own, for the tests of server commands: it serves a chat, and misbehaves as told.

python small_server.py --port 4711 --mark some-text [--fork stubborn] [--after 20 exit:3] …
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def main() -> None:
    """Serve until a signal, or as the options say."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--mark", default="", help="to be found in a list of processes")
    parser.add_argument("--prints", default="", help="what it prints at its start")
    parser.add_argument("--floods", type=int, default=0, help="so many bytes of output before it listens")
    parser.add_argument("--ends", default="", help="how it ends at once: exit:3, signal:SIGSEGV")
    parser.add_argument("--after", nargs=2, metavar=("REQUESTS", "END"), help="how it ends after so many requests")
    parser.add_argument("--lists", nargs=2, metavar=("TIMES", "END"), help="how it ends after so many lists")
    parser.add_argument("--refuses-list", type=float, default=0, help="seconds in which the list gets 503")
    parser.add_argument("--lists-none", type=float, default=0, help="seconds in which the list is empty")
    parser.add_argument("--never", action="store_true", help="never listen")
    parser.add_argument("--refuses", type=int, default=0, help="so many chats get 503 first")
    parser.add_argument("--loads", type=float, default=0, help="seconds in which chats get 503")
    parser.add_argument("--shows", default="", help="print this variable")
    parser.add_argument("--fork", choices=("stubborn", "detached", "background"), help="leave another process")
    parser.add_argument("--stubborn", action="store_true", help="ignore SIGTERM")
    parser.add_argument("--alone", metavar="FILE", help="end with 9 while another one with this file is up")
    parser.add_argument("--from-start", nargs=2, metavar=("FILE", "N"), help="end as told only from the Nth start on")
    options = parser.parse_args()
    if options.alone:
        be_alone(options.alone)
    if options.from_start:
        with Path(options.from_start[0]).open("ab+") as starts:
            starts.write(b".")
            if starts.tell() < int(options.from_start[1]):
                options.ends = options.after = options.never = None
    if options.prints:
        sys.stdout.buffer.write(options.prints.encode("latin-1", "replace").decode("unicode_escape").encode("latin-1"))
        sys.stdout.buffer.write(b"\n")
        sys.stdout.flush()
    if options.shows:
        sys.stdout.write(f"{options.shows} is {os.environ.get(options.shows)}\n")
        sys.stdout.flush()
    if options.floods:
        line = b"x" * 127 + b"\n"
        for _ in range(options.floods // len(line)):
            sys.stdout.buffer.write(line)
        sys.stdout.write("the last line\n")
        sys.stdout.flush()
    if options.stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if options.fork:
        leave(options.fork)
    if options.ends:
        end(options.ends)
    if options.never:
        time.sleep(3600)
    serve(options)


def be_alone(path: str) -> None:
    """Hold a lock for as long as this process lives."""
    import fcntl  # noqa: PLC0415 - where it is asked for

    lock = os.open(path, os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os._exit(9)


def leave(how: str) -> None:
    """Start another process: a child that ignores SIGTERM, one that has left the session, or the server itself."""
    if how == "background":
        if os.fork():
            os._exit(0)
        os.setsid()
        return
    if os.fork():
        return
    if how == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        os.setsid()
        if os.fork():
            os._exit(0)
    time.sleep(3600)


def end(how: str) -> None:
    """End in this way."""
    kind, _, what = how.partition(":")
    if kind == "exit":
        os._exit(int(what))
    os.kill(os.getpid(), getattr(signal, what))
    time.sleep(60)


def serve(options: argparse.Namespace) -> None:
    """A list of one model, and chats of three tokens."""
    began, count, lists, lock = time.monotonic(), 0, 0, threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            since = time.monotonic() - began
            models = [] if since < options.lists_none else [{"id": "small", "object": "model"}]
            self.reply(503 if since < options.refuses_list else 200, {"object": "list", "data": models})
            nonlocal lists
            lists += 1
            if options.lists and lists >= int(options.lists[0]):
                end(options.lists[1])

        def do_POST(self) -> None:
            nonlocal count
            self.rfile.read(int(self.headers["content-length"]))
            with lock:
                count += 1
                if options.after and count > int(options.after[0]):
                    end(options.after[1])
            if time.monotonic() - began < options.loads or count <= options.refuses:
                self.reply(503, {"error": {"message": "Loading model"}})
                return
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for word in ("one ", "two ", "three"):
                self.event({"choices": [{"index": 0, "delta": {"content": word}}]})
                time.sleep(0.002)
            self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            self.event({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3}})
            self.chunk(b"data: [DONE]\n\n")
            self.wfile.write(b"0\r\n\r\n")

        def event(self, event: object) -> None:
            self.chunk(b"data: " + json.dumps(event).encode() + b"\n\n")

        def chunk(self, data: bytes) -> None:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()

        def reply(self, status: int, body: object) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    ThreadingHTTPServer(("127.0.0.1", options.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
