"""The shell of a sandbox machine: a small part of `sh`, and the few commands that it knows.

Pure: commands read and change the guest that is passed in, and nothing else.
"""

from __future__ import annotations

import itertools
import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from providers.sandbox import nvidia_smi

if TYPE_CHECKING:
    from providers.sandbox.guest import Guest


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended and what it printed."""

    exit_status: int = 0
    stdout: str = ""
    stderr: str = ""


def run(guest: Guest, user: str, command: str, stdin: str = "") -> Result:
    """One command line; see `Guest.run`."""
    try:
        return _run_list(guest, user, list(_tokens(command)), stdin)
    except _SyntaxError as error:
        return Result(2, "", f"bash: line 1: syntax error: {error}\n")


def reads_stdin(command: str) -> bool:
    """See `Guest.reads_stdin`."""
    try:
        return any(_reads_stdin(pipeline) for pipeline, _ in _split(list(_tokens(command))))
    except _SyntaxError:
        return False


# --- The grammar --------------------------------------------------------------------------------------

_SUBSTITUTION = r"\$\([^()]*\)"
_QUOTED = r"""'[^']*' | "(?:\\.|[^"\\])*" """
_TOKEN = re.compile(
    rf"""[ \t]*(?:
        (?P<op> 2>&1 | 2>>? | && | \|\| | >> | [;|<>\n] )
      | (?P<word> (?: {_QUOTED} | \\. | {_SUBSTITUTION} | [^\s;|&<>()'"\\] )+ )
    )""",
    re.VERBOSE | re.DOTALL,
)
_PART = re.compile(
    rf"""'(?P<single>[^']*)' | "(?P<double>(?:\\.|[^"\\])*)" | \\(?P<escaped>.)
      | (?P<bare> (?: {_SUBSTITUTION} | [^'"\\] )+ )""",
    re.VERBOSE | re.DOTALL,
)
_DOLLAR = re.compile(r"\$\((?P<command>[^()]*)\)|\$\{(?P<braced>\w+)\}|\$(?P<name>\w+)")
_JOINTS = frozenset({";", "\n", "&&", "||"})


class _SyntaxError(ValueError):
    pass


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    is_operator: bool


def _tokens(line: str) -> Iterator[_Token]:
    position, line = 0, line.strip()
    while position < len(line):
        found = _TOKEN.match(line, position)
        if not found:
            raise _SyntaxError(f'"{line[position:].strip()[:1]}" unexpected')
        yield _Token(found.group("op") or found.group("word"), found.group("op") is not None)
        position = found.end()


def _run_list(guest: Guest, user: str, tokens: list[_Token], stdin: str) -> Result:
    """Pipelines joined by `;`, `&&` and `||`, left to right; each is given all of `stdin`."""
    total, joint = Result(), ";"
    for pipeline, next_joint in _split(tokens):
        wanted = joint == ";" or (total.exit_status == 0) == (joint == "&&")
        if wanted and pipeline:
            result = _run_pipeline(guest, user, pipeline, stdin)
            total = Result(result.exit_status, total.stdout + result.stdout, total.stderr + result.stderr)
            if pipeline[0].text == "exit":
                break
        joint = next_joint
    return total


def _split(tokens: list[_Token]) -> Iterator[tuple[list[_Token], str]]:
    part: list[_Token] = []
    for token in tokens:
        if token.is_operator and token.text in _JOINTS:
            yield part, ";" if token.text == "\n" else token.text
            part = []
        else:
            part.append(token)
    yield part, ";"


def _reads_stdin(pipeline: list[_Token]) -> bool:
    first = list(itertools.takewhile(lambda token: token.text != "|", pipeline))
    if any(token.is_operator and token.text == "<" for token in first):
        return False
    bare = itertools.takewhile(lambda token: not token.is_operator, first)
    words = [_unquoted(token.text, lambda dollar: dollar[0]) for token in bare]  # Nothing may run here.
    while words and (words[0] == "sudo" or words[0].startswith("-")):
        words = words[1:]
    match words:
        case ["sh" | "bash", "-c" | "-lc", script, *_]:
            return reads_stdin(script)
        case ["cat", *operands]:
            return not operands or "-" in operands
        case [name, *_]:
            return name in {"tee", "sh", "bash"}
    return False


def _run_pipeline(guest: Guest, user: str, tokens: list[_Token], stdin: str) -> Result:
    result, part, stderr = Result(stdout=stdin), [], ""
    for token in [*tokens, _Token("|", True)]:
        if not (token.is_operator and token.text == "|"):
            part.append(token)
            continue
        if not part:
            raise _SyntaxError('"|" unexpected')
        result = _run_simple(guest, user, part, result.stdout)
        stderr, part = stderr + result.stderr, []
    return replace(result, stderr=stderr)


def _run_simple(guest: Guest, user: str, tokens: list[_Token], stdin: str) -> Result:
    words: list[str] = []
    redirections: list[tuple[str, str]] = []
    rest = iter(tokens)
    for token in rest:
        if not token.is_operator:
            words.append(_expand(guest, user, token.text))
        elif token.text == "2>&1":
            redirections.append(("2>&1", ""))
        elif (target := next(rest, None)) and not target.is_operator:
            redirections.append((token.text, _expand(guest, user, target.text)))
        else:
            raise _SyntaxError("end of file unexpected")
    try:
        sources = [path for sign, path in redirections if sign == "<"]
        stdin = guest.read(guest.resolve(user, sources[-1])) if sources else stdin
        result = _execute(Call(guest, user, words, stdin))
        return _redirect(guest, user, result, [r for r in redirections if r[0] != "<"])
    except OSError as error:
        return Result(1, "", f"bash: line 1: {error}\n")


def _redirect(guest: Guest, user: str, result: Result, redirections: list[tuple[str, str]]) -> Result:
    out, err = "&1", "&2"
    for sign, path in redirections:
        if sign == "2>&1":
            err = out
        elif sign.startswith("2"):
            err = path
        else:
            out = path
    appended = {path for sign, path in redirections if sign.endswith(">>")}
    printed = {"&1": "", "&2": ""}
    for target, text in ((out, result.stdout), (err, result.stderr)):
        if target in printed:
            printed[target] += text
        else:
            _put(guest, user, target, text, append=target in appended)
            appended.add(target)
    return Result(result.exit_status, printed["&1"], printed["&2"])


def _put(guest: Guest, user: str, path: str, content: str, *, append: bool) -> None:
    if path == "/dev/null":
        return
    path = guest.resolve(user, path)
    guest.write(path, (guest.files.get(path, "") if append else "") + content)


def _expand(guest: Guest, user: str, word: str) -> str:
    word = guest.home(user) + word[1:] if word == "~" or word.startswith("~/") else word
    return _unquoted(word, lambda dollar: _value(guest, user, dollar))


def _unquoted(word: str, value: Callable[[re.Match[str]], str]) -> str:
    def part(found: re.Match[str]) -> str:
        if found["single"] is not None:
            return found["single"]
        if found["escaped"] is not None:
            return found["escaped"]
        text = found["bare"] if found["double"] is None else re.sub(r'\\(["\\])', r"\1", found["double"])
        return _DOLLAR.sub(value, text)

    return _PART.sub(part, word)


def _value(guest: Guest, user: str, dollar: re.Match[str]) -> str:
    if dollar["command"] is not None:
        return run(guest, user, dollar["command"]).stdout.rstrip("\n")
    return _environment(guest, user).get(dollar["braced"] or dollar["name"], "")


def _environment(guest: Guest, user: str) -> dict[str, str]:
    return {"HOME": guest.home(user), "USER": user, **guest.env}


# --- The commands -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Call:
    """One command as it is started: `words[0]` is its name."""

    guest: Guest
    user: str
    words: list[str]
    stdin: str

    @property
    def operands(self) -> list[str]:
        return [word for word in self.words[1:] if not word.startswith("-")]

    @property
    def paths(self) -> list[str]:
        return [self.guest.resolve(self.user, word) for word in self.operands]


def _execute(call: Call) -> Result:
    if not call.words:
        return Result()  # a redirection alone, such as `> FILE`
    command = _COMMANDS.get(posixpath.basename(call.words[0]))
    return command(call) if command else _not_found(call)


def _not_found(call: Call) -> Result:
    return Result(127, "", f"bash: line 1: {call.words[0]}: command not found\n")


def _fail(call: Call, what: str) -> Result:
    return Result(1, "", f"{call.words[0]}: {what}\n")


def _cat(call: Call) -> Result:
    stdout, stderr = "", ""
    for word in call.operands or ["-"]:
        try:
            stdout += call.stdin if word == "-" else call.guest.read(call.guest.resolve(call.user, word))
        except OSError as error:
            stderr += f"cat: {word}: {error}\n"
    return Result(1 if stderr else 0, stdout, stderr)


def _echo(call: Call) -> Result:
    words = call.words[1:]
    bare = words[:1] == ["-n"]
    return Result(0, " ".join(words[1:] if bare else words) + ("" if bare else "\n"))


def _printf(call: Call) -> Result:
    """`%s`, `%d`, `%%`, `\\n`, `\\t`; the format is used again while arguments are left, as printf does."""
    if len(call.words) < 2:
        return Result(2, "", "bash: line 1: printf: usage: printf format [arguments]\n")
    pattern, values = call.words[1].replace("\\n", "\n").replace("\\t", "\t"), call.words[2:]
    slots = max(1, len(re.findall("%[sd]", pattern)))
    rounds = [values[i : i + slots] for i in range(0, len(values), slots)] if "%" in pattern else []
    return Result(0, "".join(_filled(pattern, given) for given in rounds or [[]]))


def _filled(pattern: str, values: list[str]) -> str:
    left = iter(values)
    return re.sub("%[sd%]", lambda found: "%" if found[0] == "%%" else next(left, ""), pattern)


def _tee(call: Call) -> Result:
    for path in call.paths:
        _put(call.guest, call.user, path, call.stdin, append="-a" in call.words)
    return Result(0, call.stdin)


def _mkdir(call: Call) -> Result:
    for word, path in zip(call.operands, call.paths, strict=True):
        if "-p" not in call.words and call.guest.is_directory(path):
            return _fail(call, f"cannot create directory '{word}': File exists")
        call.guest.make_directory(path)
    return Result()


def _mv(call: Call) -> Result:
    if len(call.paths) != 2:
        return _fail(call, "missing file operand")
    source, target = call.paths
    if call.guest.is_directory(target):
        target = posixpath.join(target, posixpath.basename(source))
    if source not in call.guest.files:
        return _fail(call, f"cannot stat '{call.operands[0]}': No such file or directory")
    call.guest.files[target] = call.guest.files.pop(source)
    return Result()


def _rm(call: Call) -> Result:
    for word, path in zip(call.operands, call.paths, strict=True):
        if call.guest.files.pop(path, None) is None and "-f" not in call.words:
            return _fail(call, f"cannot remove '{word}': No such file or directory")
    return Result()


def _ls(call: Call) -> Result:
    path = (call.paths or [call.guest.home(call.user)])[0]
    if path in call.guest.files:
        return Result(0, call.operands[0] + "\n")
    try:
        return Result(0, "".join(f"{name}\n" for name in call.guest.list_directory(path)))
    except FileNotFoundError as error:
        return Result(2, "", f"ls: cannot access '{call.operands[0]}': {error}\n")


def _test(call: Call) -> Result:
    """`-e`, `-f`, `-s`, `-r`, `-w`, `-d` on one path; all else is false."""
    words = call.words[1:-1] if call.words[0] == "[" else call.words[1:]
    if len(words) != 2:
        return Result(1)
    path = call.guest.resolve(call.user, words[1])
    is_file, is_directory = path in call.guest.files, call.guest.is_directory(path)
    truth = {"-f": is_file, "-d": is_directory, "-s": bool(call.guest.files.get(path))}
    return Result(0 if truth.get(words[0], words[0] in {"-e", "-r", "-w"} and (is_file or is_directory)) else 1)


def _id(call: Call) -> Result:
    number = 0 if call.user == "root" else 1000
    if "-u" in call.words:
        return Result(0, f"{number}\n")
    return Result(0, f"uid={number}({call.user}) gid={number}({call.user}) groups={number}({call.user})\n")


def _sudo(call: Call) -> Result:
    words = [word for i, word in enumerate(call.words[1:]) if not (i == 0 and word.startswith("-"))]
    return _execute(replace(call, user="root", words=words))


def _sh(call: Call) -> Result:
    words = call.words[1:]
    script = words[1] if len(words) > 1 and words[0] in {"-c", "-lc"} else call.stdin
    return run(call.guest, call.user, script, call.stdin)


def _exit(call: Call) -> Result:
    status = call.words[1] if len(call.words) > 1 else "0"
    return Result(int(status) % 256 if status.isdigit() else 2)


def _df(call: Call) -> Result:
    """`-P` and `-k` give the POSIX table in KiB; `-h` the one for people; the root file system only."""
    total = call.guest.disk_gb * 10**9 // 1024 // (5 if "disk.small" in call.guest.faults else 1)
    used = total if "disk.full" in call.guest.faults else min(total, total // 10 + 2**20)
    percent = f"{100 * used // total}%"
    if any("h" in word for word in call.words[1:] if word.startswith("-")):
        head = "Filesystem      Size  Used Avail Use% Mounted on"
        line = f"overlay  {_gib(total):>11} {_gib(used):>5} {_gib(total - used):>5} {percent:>4} /"
    else:
        head = "Filesystem     1024-blocks      Used Available Capacity Mounted on"
        line = f"overlay        {total:>11} {used:>9} {total - used:>9} {percent:>8} /"
    return Result(0, f"{head}\n{line}\n")


def _gib(kib: int) -> str:
    return f"{kib / 2**20:.0f}G"


def _env(call: Call) -> Result:
    env = _environment(call.guest, call.user)
    if call.operands:
        return Result(0, env[call.operands[0]] + "\n") if call.operands[0] in env else Result(1)
    return Result(0, "".join(f"{name}={value}\n" for name, value in sorted(env.items())))


def _nvidia_smi(call: Call) -> Result:
    answer = nvidia_smi.run(call.guest, call.words[1:])
    return Result(*answer) if answer else _not_found(call)


_COMMANDS: dict[str, Callable[[Call], Result]] = {
    "nvidia-smi": _nvidia_smi,
    "true": lambda call: Result(),
    ":": lambda call: Result(),
    "sync": lambda call: Result(),
    "chmod": lambda call: Result(),
    "umask": lambda call: Result(),
    "set": lambda call: Result(),
    "false": lambda call: Result(1),
    "echo": _echo,
    "printf": _printf,
    "cat": _cat,
    "tee": _tee,
    "mkdir": _mkdir,
    "mv": _mv,
    "rm": _rm,
    "ls": _ls,
    "test": _test,
    "[": _test,
    "df": _df,
    "env": _env,
    "printenv": _env,
    "pwd": lambda call: Result(0, call.guest.home(call.user) + "\n"),
    "whoami": lambda call: Result(0, call.user + "\n"),
    "id": _id,
    "hostname": lambda call: Result(0, f"sandbox-{call.guest.machine_id}\n"),
    "uptime": lambda call: Result(0, " 12:00:00 up 1 min,  1 user,  load average: 0.08, 0.03, 0.01\n"),
    "uname": lambda call: Result(0, "Linux\n"),
    "sudo": _sudo,
    "sh": _sh,
    "bash": _sh,
    "exit": _exit,
}
