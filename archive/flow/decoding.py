"""Frames are decoded in a process of its own: a codec that falls over a damaged picture costs nobody else anything.

Each side writes one line of JSON, with the length of the bytes that follow it. The process begins with the first frame and ends with
its parent, whose death closes its input.
"""

import contextlib
import dataclasses
import json
import select
import signal
import subprocess
import sys
import threading
import time
from typing import IO

from archive.dicom.decoding import Picture, decode_frame
from archive.errors import NotUnderstood

DECODE_SECONDS_MAX = 60.0


class Decoder:
    """Decodes frames for any number of threads, one after the other.

    Parameters
    ----------
    frame_bytes_max : int
        Largest decoded frame.
    """

    def __init__(self, frame_bytes_max: int) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def decode(self, transfer_syntax_uid: str, picture: Picture, frame: bytes) -> tuple[bytes, str]:
        """As `archive.dicom.decoding.decode_frame`; also `NotUnderstood` where the codec crashed or took too long."""
        if picture.frame_bytes > self._frame_bytes_max:
            raise NotUnderstood(f"a frame of {picture.frame_bytes} bytes, limits.inflated_bytes_max is {self._frame_bytes_max}")
        with self._lock:
            process = self._started()
            try:
                return _ask(process, transfer_syntax_uid, picture, frame)
            except OSError as error:
                self._end()
                raise NotUnderstood(f"a frame of transfer syntax {transfer_syntax_uid} makes its decoder fail: {error}") from error

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process is None or self._process.poll() is not None:
            self._end()
            command = [sys.executable, "-P", "-m", "archive.flow.decoding"]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):  # What it did not read any more.
                stream.close()


def _ask(process: "subprocess.Popen[bytes]", transfer_syntax_uid: str, picture: Picture, frame: bytes) -> tuple[bytes, str]:
    assert process.stdin is not None and process.stdout is not None
    request = {"syntax": transfer_syntax_uid, "picture": dataclasses.asdict(picture), "length": len(frame)}
    process.stdin.write(json.dumps(request).encode() + b"\n" + frame)
    process.stdin.flush()
    deadline = time.monotonic() + DECODE_SECONDS_MAX
    answering = select.poll()  # Its number may be more than select.select takes.
    answering.register(process.stdout, select.POLLIN)
    if not answering.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise TimeoutError(f"no answer within {DECODE_SECONDS_MAX:g} s")
    line = process.stdout.readline()
    if not line:
        raise OSError(f"it ended with {process.wait()}")
    answer = json.loads(line)
    if "error" in answer:
        raise NotUnderstood(answer["error"])
    data = process.stdout.read(answer["length"])
    if len(data) != answer["length"]:
        raise OSError("it ended in the middle of its answer")
    return data, answer["photometric_interpretation"]


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """The process's whole life."""
    while line := requests.readline():
        request = json.loads(line)
        frame = requests.read(request["length"])
        try:
            decoded, photometric = decode_frame(request["syntax"], Picture(**request["picture"]), frame)
        except NotUnderstood as error:
            answers.write(json.dumps({"error": str(error)}).encode() + b"\n")
        else:
            answer = {"length": len(decoded), "photometric_interpretation": photometric}
            answers.write(json.dumps(answer).encode() + b"\n" + decoded)
        answers.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # A terminal sends it to the whole node.
    serve(sys.stdin.buffer, sys.stdout.buffer)
