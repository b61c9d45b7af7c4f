"""Compares what `netguard conflicts` says of routes and rules with the real
systemd-networkd, which removes those that it did not make: before and after the
remedies are carried out.

Usage: networkd_foreign.py NETGUARD, or with a folder as well for one run in namespaces
of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import trees

PROGRAM = "/usr/lib/systemd/systemd-networkd"
FILES = {
    "systemd/network/10-managed.network": "[Match]\nName=eth0\n\n[Network]\nLinkLocalAddressing=no\n",
    "systemd/network/20-unmanaged.network": "[Match]\nName=eth1\n\n[Link]\nUnmanaged=yes\n",
    "systemd/system/multi-user.target.wants/systemd-networkd.service": "",
    "netguard/netguard.toml": """
[[route]]
to = "10.50.0.0/16"
dev = "eth0"
[[route]]
to = "10.51.0.0/16"
dev = "eth1"
[[route]]
to = "10.52.0.0/16"
dev = "eth2"
[[rule]]
priority = 100
from = "10.39.0.0/24"
table = 200
""",
}
# What makes each, and how it is shown.
GUARDED = {
    "route/main/10.50.0.0/16": ("route add 10.50.0.0/16 dev eth0", "10.50.0.0/16 dev eth0"),
    "route/main/10.51.0.0/16": ("route add 10.51.0.0/16 dev eth1", "10.51.0.0/16 dev eth1"),
    "route/main/10.52.0.0/16": ("route add 10.52.0.0/16 dev eth2", "10.52.0.0/16 dev eth2"),
    "rule/ipv4/100/from=10.39.0.0/24/table=200": (
        "rule add priority 100 from 10.39.0.0/24 table 200",
        "from 10.39.0.0/24 lookup 200",
    ),
}
LINKS = ["eth0", "eth1", "eth2"]


def ip(line):
    return subprocess.run(["ip", *line.split()], check=True, capture_output=True, text=True).stdout


def removed(folder):
    """What the real networkd removes."""
    trees.enter_namespaces()
    trees.mount(f"{folder}/systemd", "/etc/systemd", None, trees.MS_BIND)
    for place in ("/run/systemd", "/run/udev"):
        os.makedirs(place, exist_ok=True)
        trees.mount("tmpfs", place, "tmpfs")
    trees.mount("sysfs", "/sys", "sysfs")
    for name in LINKS:
        ip(f"link add {name} type veth peer name {name}p")
        ip(f"link set {name}p up")
        ip(f"link set {name} up")
    for line, _ in GUARDED.values():
        ip(line)
    # As if udev had seen the links: networkd knows what there is before it configures them.
    os.makedirs("/run/udev/data")
    for name in os.listdir("/sys/class/net"):
        with open(f"/sys/class/net/{name}/ifindex") as index, \
                open(f"/run/udev/data/n{index.read().strip()}", "w") as known:
            known.write("I:1\nV:1\n")
    open("/run/udev/control", "w").close()
    os.makedirs("/run/systemd/netif/links")
    os.chmod("/run/systemd/netif", 0o777)
    os.chmod("/run/systemd/netif/links", 0o777)
    with open("/sys/class/net/eth0/ifindex") as file:
        link = f"/run/systemd/netif/links/{file.read().strip()}"
    watch = trees.Watch("/run/systemd/netif/links")
    daemon = subprocess.Popen([PROGRAM], env={"SYSTEMD_LOG_LEVEL": "emerg", "PATH": "/usr/bin:/usr/sbin"})
    deadline = time.monotonic() + 60
    state = ""
    while "ADMIN_STATE=configured" not in state:
        if time.monotonic() > deadline:
            raise RuntimeError(f"networkd left eth0 in {state!r}")
        watch.wait(1)
        if os.path.exists(link):
            with open(link) as file:
                state = file.read()
    daemon.send_signal(signal.SIGKILL)
    daemon.wait()
    there = ip("route") + ip("rule")
    return sorted(key for key, (_, shown) in GUARDED.items() if shown not in there)


def said(netguard, folder):
    """What netguard says of it, and the remedies."""
    root = f"{folder}/root"
    shutil.rmtree(root, ignore_errors=True)
    for name in ("systemd", "netguard"):
        shutil.copytree(f"{folder}/{name}", f"{root}/etc/{name}")
    os.makedirs(f"{root}/usr/lib/systemd")
    version = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True).stdout.split()[1]
    open(f"{root}/usr/lib/systemd/libsystemd-shared-{version}.so", "w").close()
    output = subprocess.run([netguard, "--root", root, "conflicts", "--json"], capture_output=True, text=True)
    lines = [line for line in json.loads(output.stdout)["lines"] if line["conflict"]]
    return sorted(line["guarded"] for line in lines), [step for line in lines for step in line["steps"]]


def run(folder):
    """In a process of its own, for its namespaces."""
    output = subprocess.run([sys.executable, "-B", __file__, "-", folder], capture_output=True, text=True)
    if output.returncode:
        sys.exit(output.stderr)
    return json.loads(output.stdout)


def main(netguard):
    with tempfile.TemporaryDirectory() as folder:
        for name, text in FILES.items():
            path = f"{folder}/{name}"
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w") as file:
                file.write(text)
        before, steps = said(netguard, folder)
        real = run(folder)
        assert before and before == real, f"said: {before}, removed: {real}"
        for step in steps:
            path = folder + step["file"].removeprefix("/etc")
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "a") as file:
                file.write(step["text"] + "\n")
        (after, _), real = said(netguard, folder), run(folder)
        assert after == [] and real == [], f"said: {after}, removed: {real}"
        print(f"{len(GUARDED)} routes and rules, {len(before)} removed, none after {len(steps)} steps")


if sys.argv[1] == "-":
    print(json.dumps(removed(sys.argv[2])))
else:
    main(sys.argv[1])
