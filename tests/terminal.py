"""A terminal of so many columns in which a command runs, as a person would see it: a pty, and pyte that reads it."""

import fcntl
import os
import pty
import struct
import subprocess
import termios

import pyte


def screen(command, columns, lines=100, **environment):
    """The screen when the command has ended: what stands there, and in which colours."""
    shown = pyte.Screen(columns, lines)
    stream = pyte.ByteStream(shown)
    stream.feed(read(command, columns, lines, **environment))
    return shown


def read(command, columns, lines=100, **environment):
    """What a command writes to a terminal of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    known = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    env = known | {"TERM": "xterm-256color"} | environment
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, close_fds=True)
    os.close(theirs)
    told = b""
    while True:
        try:
            piece = os.read(ours, 1 << 16)
        except OSError:  # nobody has the other end any more
            break
        if not piece:
            break
        told += piece
    os.close(ours)
    process.wait()
    return told
