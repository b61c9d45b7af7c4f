"""What the differential tests share: random trees of files, a root made of one
of them, netguard's answer about it, and its remedies carried out."""

import ctypes
import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
import traceback

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
MS_RDONLY, MS_BIND, MS_REC, MS_PRIVATE = 0x1, 0x1000, 0x4000, 0x40000
IN_CREATE_OR_MOVED_TO_OR_CLOSED = 0x100 | 0x80 | 0x8

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result):
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def mount(source, target, kind=None, flags=0, data=None):
    encode = lambda it: it.encode() if it else None
    _check(_libc.mount(encode(source), encode(target), encode(kind), flags, encode(data)))


class Watch:
    """Waits for changes of the files in a folder."""

    def __init__(self, folder):
        self.descriptor = _libc.inotify_init1(os.O_CLOEXEC)
        _check(-1 if self.descriptor < 0 else 0)
        watch = _libc.inotify_add_watch(self.descriptor, folder.encode(), IN_CREATE_OR_MOVED_TO_OR_CLOSED)
        _check(-1 if watch < 0 else 0)

    def wait(self, seconds):
        """Whether something changed before that time was over."""
        ready, _, _ = select.select([self.descriptor], [], [], seconds)
        if ready:
            os.read(self.descriptor, 65536)
        return bool(ready)


def unshare(kinds):
    _check(_libc.unshare(kinds))


def enter_namespaces(kinds=CLONE_NEWNS | CLONE_NEWNET):
    """A mount namespace for this process, and of the network where that is new too."""
    unshare(kinds)
    mount("none", "/", None, MS_REC | MS_PRIVATE)


def enter_root(tree, folders):
    """Makes this machine's files with those of `tree` over them the root; of
    `folders` the tree's files alone."""
    root = tempfile.mkdtemp(prefix="root-", dir=os.path.dirname(tree))
    for folder in folders:
        os.makedirs(tree + folder, exist_ok=True)
    mount("overlay", root, "overlay", 0, f"lowerdir={tree}:/")
    mount("tmpfs", root + "/run", "tmpfs")
    for folder in ("/proc", "/sys", "/dev", "/tmp"):
        mount(folder, root + folder, None, MS_BIND | MS_REC)
    for folder in folders:
        os.makedirs(root + folder, exist_ok=True)
        mount(tree + folder, root + folder, None, MS_BIND)
    os.chroot(root)
    os.chdir("/")


def write(tree, path, text):
    path = tree + path
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", newline="", errors="surrogateescape") as file:
        file.write(text)


def key_path(key):
    """Where a key is: `net.ipv4.conf.eth0/1.x` is of the interface eth0.1."""
    return "/proc/sys/" + key.translate(str.maketrans("./", "/."))


def read(key):
    try:
        with open(key_path(key)) as file:
            return " ".join(file.read().split())
    except FileNotFoundError:
        return None


def put(key, value):
    with open(key_path(key), "w") as file:
        file.write(value)


def in_child(work):
    """What `work` returns, run in a process of its own."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            with os.fdopen(writer, "w") as out:
                json.dump(work(), out)
            status = 0
        except BaseException:
            traceback.print_exc()
            status = 1
        os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as answer:
        text = answer.read()
    _, status = os.waitpid(child, 0)
    if status != 0:
        raise RuntimeError(f"the child ended with {status}")
    return json.loads(text)


def ask(netguard, tree):
    answer = subprocess.run([netguard, "--root", tree, "conflicts", "--json"], capture_output=True)
    if answer.returncode not in (0, 1, 3):
        raise RuntimeError(answer.stderr.decode())
    return json.loads(answer.stdout)


def conflicts(report, by):
    """The lines that take precedence with `by`."""
    wins = lambda line: any(it["by"] == by and it["overridden"] is None for it in line["applied"])
    return [line for line in report["lines"] if line["conflict"] and wins(line)]


def follow(tree, remedy):
    """Does what a remedy says; False where it leaves that to a person."""
    change = re.match(r"change (\S+):(\d+) to `([^`]*)`", remedy)
    if change:
        path, number, line = change.groups()
        with open(tree + path, newline="", errors="surrogateescape") as file:
            lines = file.read().replace("\r\n", "\n").split("\n")
        lines[int(number) - 1] = line
        write(tree, path, "\n".join(lines))
        return True
    section = re.match(r"write (.*) below \[([^]]*)\] to (/[^\s:;,]+)", remedy)
    plain = re.match(r"write `([^`]*)` to (/[^\s:;,]+)", remedy)
    if section:
        written, name, path = section.groups()
        lines = [f"[{name}]"] + re.findall(r"`([^`]*)`", written)
        more = re.search(r"must have `([^`]*)` below \[([^]]*)\]", remedy)
        if more:
            lines += [f"[{more.group(2)}]", more.group(1)]
    elif plain:
        lines, path = [plain.group(1)], plain.group(2)
    else:
        return False
    known = ""
    if os.path.exists(tree + path):
        with open(tree + path, newline="", errors="surrogateescape") as file:
            known = file.read()
    if known and not known.endswith("\n"):
        known += "\n"
    write(tree, path, known + "\n".join(lines) + "\n")
    return True


def take(tree, step):
    """Does what a step for programs says."""
    path = tree + step["file"]
    text = ""
    if os.path.exists(path):
        with open(path, newline="", errors="surrogateescape") as file:
            text = file.read()
    lines = text.split("\n")
    if step["line"]:
        lines[step["line"] - 1] = step["text"]
    else:
        lines = lines[:-1] if lines[-1] == "" else lines
        lines += [step["text"], ""]
    write(tree, step["file"], "\n".join(lines))


def run(make, real, by, count, seed, netguard, guarded):
    """Compares `count` trees that `make(random, tree)` makes, which gives what is
    guarded in place of `guarded` where that differs: `real(tree, guarded)` gives the
    keys that the real program turns to something else."""
    import random as randomness

    random = randomness.Random(seed)
    # In memory: an overlay cannot have a folder and its own root as layers.
    scratch = tempfile.mkdtemp(prefix="netguard-trees-", dir="/dev/shm")
    counts = dict(trees=0, conflicts=0, unknown=0, remedies=0, left=0)
    differ = 0
    began = time.monotonic()
    for number in range(count):
        tree = f"{scratch}/{number}"
        guarded = make(random, tree) or guarded
        wanted = "".join(f'"{key}" = {json.dumps(value)}\n' for key, value in guarded.items())
        write(tree, "/etc/netguard/netguard.toml", "[sysctl]\n" + wanted)
        keep = f"{scratch}/kept"
        shutil.rmtree(keep, ignore_errors=True)
        shutil.copytree(tree, keep, symlinks=True)
        wrong = compare(tree, real, by, netguard, guarded, counts, scratch)
        if wrong:
            differ += 1
            saved = f"{tempfile.gettempdir()}/netguard-differs-{by}-{seed}-{number}"
            shutil.rmtree(saved, ignore_errors=True)
            shutil.copytree(keep, saved, symlinks=True)
            print(f"tree {number} of seed {seed}, kept in {saved}: {wrong}")
        shutil.rmtree(tree)
        counts["trees"] += 1
    shutil.rmtree(scratch)
    seconds = time.monotonic() - began
    print(f"{by}: seed {seed}: {counts}, {differ} differ, {seconds:.0f} s")
    return 1 if differ else 0


def compare(tree, real, by, netguard, guarded, counts, scratch):
    """What differs between the real program and netguard's answer; None if nothing."""
    def drifted():
        copy = f"{scratch}/run"
        shutil.copytree(tree, copy, symlinks=True)
        try:
            return in_child(lambda: real(copy, guarded))
        finally:
            shutil.rmtree(copy, ignore_errors=True)

    report = ask(netguard, tree)
    # What an invariant implies is not among the keys that are read.
    found = {line["guarded"] for line in conflicts(report, by)} & set(guarded)
    turned = drifted()
    unknown = {it["about"] for it in report["unknown"]}
    if unknown:
        counts["unknown"] += 1
        if by in unknown:
            return None
    differ = (found ^ set(turned)) - unknown
    if differ:
        return f"netguard {sorted(found)}, the real program {turned}, unknown {sorted(unknown)}"
    counts["conflicts"] += len(found)
    return obey(tree, by, netguard, counts, drifted, unknown)


def obey(tree, by, netguard, counts, drifted, unknown):
    """Carries out all remedies, one by one: then the real program turns nothing.
    In every other tree it does what programs are told, not what people read."""
    for_programs = counts["trees"] % 2
    done, left = [], set()
    while True:
        lines = conflicts(ask(netguard, tree), by)
        line = next((it for it in lines if it["guarded"] not in left), None)
        if line is None:
            break
        if len(done) > 30:
            return f"remedies without end: {done[-4:]}"
        if for_programs and line["steps"]:
            for step in line["steps"]:
                take(tree, step)
            done.append(line["steps"])
        elif follow(tree, line["remedy"]):
            done.append(line["remedy"])
        else:
            left.add(line["guarded"])
    counts["remedies"] += len(done)
    counts["left"] += len(left)
    if not done:
        return None
    turned = {key: value for key, value in drifted().items() if key not in left | unknown}
    return f"after {done} still {turned}" if turned else None
