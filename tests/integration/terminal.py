"""A terminal as a person has one: a pty, and a screen that understands its escape sequences."""
import errno
import fcntl
import os
import pty
import select
import struct
import subprocess
import termios

import pyte  # it does not know every sequence of xterm (REP, SU): TERM is linux

from lab import PATIENCE, poll


class Terminal:
    def __init__(self, words, env, cwd, rows=24, columns=80):
        self.screen = pyte.Screen(columns, rows)
        self.stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.master, self.slave = pty.openpty()
        self.size(rows, columns)
        self.before = termios.tcgetattr(self.slave)
        self.child = subprocess.Popen(list(map(str, words)), cwd=cwd, env={**env, "TERM": "linux"},
                                      stdin=self.slave, stdout=self.slave, stderr=self.slave,
                                      start_new_session=True, preexec_fn=self._own)

    @staticmethod
    def _own():
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # job control and SIGWINCH, as in a terminal

    def size(self, rows, columns):
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.screen.resize(rows, columns)

    def type(self, text):
        os.write(self.master, text.encode())

    def read(self):
        while select.select([self.master], [], [], 0)[0]:
            try:
                data = os.read(self.master, 65536)
            except OSError as e:
                if e.errno != errno.EIO:
                    raise
                return
            self.raw += data
            self.stream.feed(data)

    def lines(self):
        self.read()
        return [line.rstrip() for line in self.screen.display]

    def text(self):
        return "\n".join(self.lines())

    def wait_for(self, what, fact=None):
        """Until a text is on the screen, or fact(text) is true; the screen's text then."""
        def there():
            text = self.text()
            return text if (fact(text) if fact else what in text) else None
        try:
            return poll(f"on the screen: {what}", there)
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.text()}") from None

    def end(self):
        """Waits for the program's own end: exit code; the terminal must be as it was."""
        def gone():
            self.read()
            return self.child.poll() is not None
        poll("the program ends", gone, PATIENCE)
        self.read()
        assert termios.tcgetattr(self.slave) == self.before, "the terminal's modes are as before"
        return self.child.returncode

    def close(self):
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()
        os.close(self.slave)
        os.close(self.master)
