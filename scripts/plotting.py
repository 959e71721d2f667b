"""What the scripts that draw the documentation's pictures share: real servers to measure on, and
SVG that is readable on light and on dark pages."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time

IMAGES = os.path.join(os.path.dirname(__file__), "..", "docs", "images")

# Class of what is drawn: property, colour on light, colour on dark.
COLOURS = [
    ("back", "fill", "#ffffff", "#0d1117"),
    ("shade", "fill", "#f0f0f0", "#21262d"),
    ("text", "fill", "#333333", "#c9d1d9"),
    ("grid", "stroke", "#dddddd", "#30363d"),
    ("axis", "stroke", "#444444", "#8b949e"),
    ("blue", "stroke", "#0066cc", "#58a6ff"),
    ("orange", "stroke", "#b35900", "#f0a04b"),
    ("green", "stroke", "#1a7f37", "#56d364"),
    ("red", "stroke", "#aa0000", "#ff7b72"),
    ("blue-fill", "fill", "#0066cc", "#58a6ff"),
    ("orange-fill", "fill", "#b35900", "#f0a04b"),
    ("green-fill", "fill", "#1a7f37", "#56d364"),
    ("red-fill", "fill", "#aa0000", "#ff7b72"),
    ("bar", "fill", "#0066cc", "#1f6feb"),
    ("other-bar", "fill", "#8c8c8c", "#6e7681"),
    ("spread", "stroke", "#111111", "#ffffff"),
]


class Connection:
    """As much of RESP2 as the replies of buckets need."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.file = self.socket.makefile("rb")

    def call(self, *words):
        parts = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        self.socket.sendall(f"*{len(words)}\r\n{parts}".encode())
        return self.reply()

    def reply(self):
        line = self.file.readline().decode().rstrip("\r\n")
        kind, rest = line[:1], line[1:]
        if kind == "*":
            return [self.reply() for _ in range(int(rest))]
        if kind == ":":
            return int(rest)
        if kind == "$":
            return None if rest == "-1" else self.file.read(int(rest) + 2)[:-2].decode()
        if kind == "+":
            return rest
        raise RuntimeError(line)

    def info(self, section, field):
        lines = self.call("INFO", section).splitlines()
        return next((line.split(":", 1)[1] for line in lines if line.startswith(f"{field}:")), None)

    def version(self):
        """What the server is, such as `Redis 7.0.15`."""
        valkey = self.info("server", "valkey_version")
        return f"Valkey {valkey}" if valkey else f"Redis {self.info('server', 'redis_version')}"


@contextlib.contextmanager
def started(server, module, *arguments, port=0):
    """A server with the module, which ends with the block; yields a connection."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "s")
        # A server changes into its directory before it loads the module.
        module = os.path.abspath(module)
        options = ["--port", str(port), "--unixsocket", path, "--save", "", "--dir", directory]
        process = subprocess.Popen(
            [server, *options, "--loadmodule", module, *arguments], stdout=subprocess.DEVNULL
        )
        try:
            until(lambda: answers(path), "the server to start")
            yield Connection(path)
        finally:
            process.terminate()
            process.wait()


def answers(path):
    # The socket has its name before anybody listens.
    try:
        return Connection(path).call("PING") == "PONG"
    except OSError:
        return False


def until(condition, what):
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited in vain for {what}")
        time.sleep(0.01)


def escaped(text):
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def text(x, y, words, colour="text", anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{colour}" text-anchor="{anchor}">{escaped(words)}</text>'


def line(points, colour, width=2, dashes=""):
    """A line through points of the picture."""
    through = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<path d="M{through}" class="{colour}" fill="none" stroke-width="{width}"{dashed}/>'


def bar(x, y, width, height, colour):
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" class="{colour}"/>'


def write(name, width, height, title, description, parts):
    """Writes a picture into the folder of them. Title and description are for those who hear it."""

    def rules(column):
        return "".join(f".{row[0]}{{{row[1]}:{row[column]}}}" for row in COLOURS)

    picture = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12" role="img" aria-labelledby="title desc">',
        f'<title id="title">{escaped(title)}</title>',
        f'<desc id="desc">{escaped(description)}</desc>',
        f"<style>{rules(2)}@media (prefers-color-scheme:dark){{{rules(3)}}}</style>",
        bar(0, 0, width, height, "back"),
        *parts,
        "</svg>",
        "",
    ]
    with open(os.path.join(IMAGES, name), "w", encoding="ascii") as file:
        file.write("\n".join(picture))


def arguments(usage, count):
    """Those of the command line, or else how it is used."""
    if len(sys.argv) != count + 1:
        sys.exit(usage)
    return sys.argv[1:]
