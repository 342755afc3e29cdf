"""What is inside a rented machine: its users, keys, files and GPUs.

Pure: no sockets, no clock, nothing of this computer is read or run. The SSH server and the
simulation ask the same guest, so both see the same machine.

Text in and out is `str`. Bytes that are not UTF-8 survive as surrogates, so a file that went in
comes out as it was: `to_text` and `to_bytes` are the two ways across.

Faults, in `Guest.faults`; a name that is not here changes nothing:

| Fault      | What a visitor sees                                                            |
|------------|--------------------------------------------------------------------------------|
| gpu.absent | no `nvidia-smi`: exit 127                                                      |
| gpu.driver | `nvidia-smi` cannot talk to the driver: exit 9                                 |
| gpu.fewer  | one GPU less than rented; of one, none ("No devices were found", exit 6)       |
| gpu.other  | another model with less memory                                                 |
| gpu.vram   | the right model with half of its memory                                        |
| cuda.old   | a driver that runs CUDA 11.4 at most                                           |
| disk.full  | nothing can be written                                                         |
| disk.small | a fifth of the disk that was asked for                                         |
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from dataclasses import dataclass, field

from providers import deadman
from providers.sandbox import shell
from providers.sandbox.shell import Result

DEAD_MAN_PID = 412  # any number
DIRECTORIES = frozenset(
    {"/", "/etc", "/home", "/proc", "/root", "/run", "/tmp", "/var", "/var/lib", "/workspace"}  # noqa: S108
)


def to_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def to_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


@dataclass
class Guest:
    """One machine from within. Whoever makes it sets the facts; commands change only files and directories.

    There are no permissions: every user may read and write everything.
    """

    machine_id: str
    gpu_name: str  # as the provider's menu writes it
    gpu_count: int
    vram_mb: int  # MiB of one GPU, as `nvidia-smi` counts
    cuda: str  # the highest CUDA version that the driver runs, such as "12.8"
    users: tuple[str, ...] = ("root",)
    authorized_keys: list[str] = field(default_factory=list)  # "ssh-ed25519 AAAA…"
    files: dict[str, str] = field(default_factory=dict)  # absolute path: content
    faults: set[str] = field(default_factory=set)
    env: dict[str, str] = field(default_factory=dict)
    gpu_utilisation: int | Callable[[], int] = 0  # percent
    disk_gb: int = 50
    directories: set[str] = field(default_factory=lambda: set(DIRECTORIES))  # empty ones too

    def accepts(self, user: str, public_key: str) -> bool:
        """Whether this key logs in as this user. Comments on either side do not matter."""
        return user in self.users and _bare(public_key) in {_bare(line) for line in self.authorized_keys}

    def run(self, user: str, command: str, stdin: bytes | str = b"") -> Result:
        """Answer one command line, as `sh -c` would for the few commands known here.

        Understood: quotes, `$NAME`, `$(...)`, `;`, newline, `&&`, `||`, `|`, and redirections.
        Exit status 127: no such command; 2: the line cannot be parsed.
        """
        text = to_text(stdin) if isinstance(stdin, bytes) else stdin
        return shell.run(self, user, command, text)

    def reads_stdin(self, command: str) -> bool:
        """Whether `run` has to be given the input first; what does not read it must not wait for its end."""
        return shell.reads_stdin(command)

    def start_dead_man(self, deadline: int) -> None:
        """Put there what the dead man's switch keeps on a machine while it runs. `deadline`: unix seconds.

        When it acts is for the owner of the machine to work out, from `files[deadman.DEADLINE_FILE]`.
        """
        self.make_directory(f"/proc/{DEAD_MAN_PID}")
        self.files |= {deadman.DEADLINE_FILE: f"{deadline}\n", deadman.PID_FILE: f"{DEAD_MAN_PID}\n"}

    def stop_dead_man(self) -> None:
        """The switch dies; its files stay, as they would."""
        self.directories.discard(f"/proc/{DEAD_MAN_PID}")

    @property
    def has_dead_man(self) -> bool:
        return f"/proc/{self.files.get(deadman.PID_FILE, '').strip()}" in self.directories

    def home(self, user: str) -> str:
        return "/root" if user == "root" else f"/home/{user}"

    def resolve(self, user: str, path: str) -> str:
        """The absolute, normalised form of a path that a user typed in their home."""
        return "/" + posixpath.normpath(posixpath.join(self.home(user), path)).lstrip("/")

    def is_directory(self, path: str) -> bool:
        homes = {self.home(user) for user in self.users}
        return path in self.directories | homes or any(name.startswith(f"{path}/") for name in self.files)

    def make_directory(self, path: str) -> None:
        """Make `path` and what is missing above it."""
        while path != "/":
            self.directories.add(path)
            path = posixpath.dirname(path)

    def read(self, path: str) -> str:
        """Raises: FileNotFoundError, IsADirectoryError; their text is what the shell says."""
        if path in self.files:
            return self.files[path]
        if self.is_directory(path):
            raise IsADirectoryError("Is a directory")
        raise FileNotFoundError("No such file or directory")

    def write(self, path: str, content: str) -> None:
        """Raises: FileNotFoundError (no such directory), IsADirectoryError, OSError (disk full)."""
        if self.is_directory(path):
            raise IsADirectoryError("Is a directory")
        if not self.is_directory(posixpath.dirname(path)):
            raise FileNotFoundError("No such file or directory")
        if "disk.full" in self.faults:
            raise OSError("No space left on device")
        self.files[path] = content

    def list_directory(self, path: str) -> list[str]:
        """The names in a directory, sorted. Raises FileNotFoundError."""
        if not self.is_directory(path):
            raise FileNotFoundError("No such file or directory")
        start = path.rstrip("/") + "/"
        below = {*self.files, *self.directories, *(self.home(user) for user in self.users)}
        return sorted({name[len(start) :].split("/")[0] for name in below if name.startswith(start) and name != start})


def _bare(public_key: str) -> tuple[str, ...]:
    return tuple(public_key.split()[:2])
