"""Compares `netguard conflicts` with the real tuned: its own classes load and
apply random profiles in namespaces of their own.

real_tuned.py NETGUARD TREES SEED, with tuned's modules in PYTHONPATH
"""

import os
import sys

from tuned.version import TUNED_VERSION_MAJOR, TUNED_VERSION_MINOR

import trees

GUARDED = {
    "net.ipv4.ip_forward": "1",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.lo.accept_local": "1",
    "net.ipv4.tcp_keepalive_time": "600",
    "net.core.somaxconn": "4096",
    "net.ipv6.conf.lo.max_addresses": "16",
}
NAMES = list(GUARDED) + ["net/ipv4/ip_forward", "net.ipv4.conf.all.forwarding", "net.ipv4..ip_forward"]
FOLDERS = ["/etc/tuned", "/usr/lib/tuned", "/etc/sysctl.d", "/run/sysctl.d"]
PROFILES = ["a", "b", "c", "d", "under_score", "d-e.f"]
VARIABLES = ["v", "w", "x"]


def real(tree, guarded):
    trees.enter_namespaces()
    trees.write(tree, "/etc/sysctl.conf", contents(tree + "/etc/sysctl.conf"))
    trees.enter_root(tree, FOLDERS)
    for key, value in guarded.items():
        trees.put(key, value)
    try:
        apply()
    except SystemExit:
        pass
    return {key: trees.read(key) for key, value in guarded.items() if trees.read(key) != value}


def contents(path):
    try:
        with open(path, newline="") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def apply():
    """As tuned's main program does, without D-Bus and without a thread."""
    import tuned.daemon
    import tuned.exceptions
    from tuned.utils.global_config import GlobalConfig

    try:
        application = tuned.daemon.Application(None, GlobalConfig())
    except Exception:
        return
    daemon = application._daemon
    if getattr(daemon, "_profile", None) is None:
        return
    try:
        daemon._unit_manager.create(daemon._profile.units)
    except Exception:
        return
    daemon._unit_manager.start_tuning()


def make(random, tree):
    chance = lambda percent: random.random() * 100 < percent
    main = ""
    if chance(50):
        main += f"reapply_sysctl = {random.choice(['0', '1', 'no', 'On', 'true', 'False', 'maybe'] + ['0'] * 6)}\n"
    if chance(10):
        main += "default_instance_priority = 3\n"
    main += random.choice([
        "", "", "# x\n", "daemon = 0 # once\n", "[later]\nreapply_sysctl = 1\n", "[DEFAULT]\nreapply_sysctl = 0\n",
        "; reapply_sysctl=1\n", "dynamic_tuning=off\n", "sleep_interval = 1_0\n",
    ])
    if chance(3):
        main += random.choice(["profile_dirs=/etc/tuned/a\n", "reapply_sysctl=%(sleep_interval)s\nsleep_interval=0\n", "log_file_max_size=1%\n"])
    if chance(3):
        main += random.choice(["sleep_interval=x\n", "daemon=t\n", "reapply_sysctl=\n", "=1\n", "word\n", "update_interval=0x1\n"])
    trees.write(tree, "/etc/tuned/tuned-main.conf", main)
    # The version of tuned, as netguard finds it.
    version = "/usr/lib/python3/dist-packages/tuned/version.py"
    trees.write(tree, version, f"TUNED_VERSION_MAJOR = {TUNED_VERSION_MAJOR}\nTUNED_VERSION_MINOR = {TUNED_VERSION_MINOR}\n")
    known = random.sample(PROFILES, random.randint(1, len(PROFILES)))
    for name in known:
        for folder in random.choice([["/etc/tuned"], ["/usr/lib/tuned"], ["/etc/tuned", "/usr/lib/tuned"]]):
            trees.write(tree, f"{folder}/{name}/tuned.conf", profile(random, name, known))
    active = random.sample(known, min(len(known), random.choice([1, 1, 1, 2, 3])))
    if chance(4):
        active.append(random.choice(["missing", "-" + known[0], "../" + known[0], "b@d"]))
    trees.write(tree, "/etc/tuned/active_profile", " ".join(active) + random.choice(["\n", "", "\n\n"]))
    trees.write(tree, "/etc/tuned/profile_mode", random.choice(["manual\n"] * 30 + ["odd\n", "", "auto\n", " manual \n\n", "Manual\n"]))
    if chance(25):
        trees.write(tree, "/etc/tuned/post_loaded_profile", random.choice(known + ["", "a b"]) + "\n")
    trees.write(tree, "/etc/tuned/vars.conf", variables(random))
    for _ in range(random.choice([0, 0, 1, 3])):
        name = random.choice(["10-a.conf", "50-b.conf", "99-z.conf", ".hidden.conf", "not.config", "zz-last.conf", ".conf", "é.conf", "\U0001f600.conf"])
        path = f"{random.choice(['/etc', '/run'])}/sysctl.d/{name}"
        if os.path.lexists(tree + path):
            continue
        target = random.choice([None] * 12 + ["/dev/null", "nowhere", "../sysctl.conf", ""])
        if target is None:
            trees.write(tree, path, sysctl_d(random))
        else:
            os.makedirs(os.path.dirname(tree + path), exist_ok=True)
            os.symlink(target, tree + path) if target else os.mkdir(tree + path)
    if chance(20):
        trees.write(tree, "/etc/sysctl.conf", sysctl_d(random))


def value(random, key):
    right = dict(GUARDED).get(key, "1")
    plain = random.choice([right, right, "0", "1", "2", "128", "5000"])
    odd = ["${f}", "\\${i:PROFILE_DIR}", "\\${f:strip:1}", "${f:strip:${v}}", "${f:nothing:1}", "}${v}", "${${v}}", f"{plain}:1", f"={plain}", f"{plain}=", f"+{plain}",
           f" {plain}\t", f"\"{plain}", f'""', f"> {plain} ", f"<+{plain}", ">1_0", f"{plain} {plain}", f"-{plain}", f"0{plain}", f"{plain}\x0b", "\u00a01", ">0x1", ">9999999999", "<-5", f"{plain}\n  {plain}", f"{plain};x", f"{plain} ; x",
           "${v}${none}", "${V}", "$v", "${ v }", "${v }", "\\\\${v}", "${f:assertion:a:1:2}", "${f:assertion:a:1:1}"]
    if random.random() < 0.12:
        return random.choice(odd)
    return random.choice(
        [plain] * 8
        + [f'"{plain}"', f"'{plain}'", f"{plain} # {plain}0", f"{plain}#1", f">{plain}", f"<{plain}", f"> {plain}", ">", "<x"]
        + ["${v}", "${w}", "\\${v}", "${v}${w}", ">${v}", '"${x}"', "${none}", "${f:strip: 0 }", "", "word", "0x10", "${i:PROFILE_DIR}"]
    )


def assignment(random, key):
    equals = random.choice(["=", " = ", "= ", "\t=\t"])
    return f"{key}{equals}{value(random, key)}"


def variables(random):
    lines = []
    for _ in range(random.randint(0, 4)):
        name = random.choice(VARIABLES)
        given = random.choice(["0", "1", "600", "${v}", "${w}", "0 # x", "${f:strip:1}", "\\${v}"])
        lines.append(random.choice([f"{name}={given}"] * 9 + [f"{name}-y=1", name, f"[s]\n{name}={given}"]))
    return "\n".join(lines) + "\n"


def profile(random, name, known):
    chance = lambda percent: random.random() * 100 < percent
    end = random.choice(["\n"] * 9 + ["\r\n"])
    lines = []
    if chance(60):
        lines += ["[main]", "summary=x"]
        if chance(75):
            names = [random.choice(known + [name]) for _ in range(random.choice([1, 1, 2]))]
            if chance(6):
                names.append(random.choice(["", ".", "missing", "-missing", "../" + known[0], "${v}", "${f:strip:a}"]))
            lines.append("include=" + random.choice([",", ", ", " ; ", " , ", ";"]).join(names))
    if chance(35):
        lines.append("[variables]")
        if chance(30):
            lines.append("include=" + random.choice(["/etc/tuned/vars.conf", "/etc/../etc/tuned/vars.conf", "/missing"]))
        for _ in range(random.randint(0, 3)):
            given = random.choice(["0", "1", "2", "600", "${v}", "${w}", '"0"', "${f:strip:0}", "x${v}"])
            lines.append(f"{random.choice(VARIABLES)}={given}")
    for _ in range(random.choice([0, 1, 1, 1, 2])):
        section = random.choice(["sysctl"] * 6 + ["other", "more", " sysctl ", "Sysctl"])
        lines.append(random.choice([f"[{section}]"] * 8 + [f"[{section}] # x", f"[{section}]x"]))
        if section not in ("sysctl",) and chance(80):
            lines.append(random.choice(["type=sysctl"] * 8 + ["type = sysctl # x", "type=Sysctl", "type=nothing", "Type=sysctl"]))
        if chance(15):
            lines.append("enabled=" + random.choice(["0", "1", "true", "false", "no", "True", "TRUE", "yes", "on", "", "1 # x", "${v}"]))
        if chance(15):
            lines.append("replace=" + random.choice(["1", "true", "yes", "0", "True", "TRUE", "false"]))
        if chance(15):
            dropped = random.sample(NAMES, random.choice([1, 2]))
            lines.append("drop=" + random.choice([",", ", ", " ; ", " ", ",,", " , "]).join(dropped))
        if chance(15):
            lines.append("priority=" + random.choice(["1", "-1", "5", "x", "1_0", "+3", "0x1", "${v}"] + ["2", "3"] * 12))
        if chance(4):
            lines.append("uname_regex=" + random.choice(["x86", "sparc", "(", "[a", "${v}", "^Linux"]))
        for _ in range(random.randint(0, 4)):
            lines.append(odd(random) if chance(8) else assignment(random, random.choice(NAMES)))
    text = end.join(lines) + end
    return text


def odd(random):
    return random.choice([
        "# net.ipv4.ip_forward=0",
        "; net.ipv4.ip_forward=0",
        "  net.ipv4.ip_forward=0",
        "\t# x",
        "",
        "net.ipv4.conf.*.rp_filter=1",
        "-net.ipv4.ip_forward=0",
        "net.ipv4.neigh.lo.base_reachable_time=1",
        "net.ipv4.missing=1",
        "net.ipv4.ip_forward",
        "net.ipv4.tcp_rmem=4096 1 2",
        "devices=lo",
        "[DEFAULT]\nnet.ipv4.ip_forward=0",
        "[main]\nsummary=y",
        "[variables]\nw=0",
        "[sysctl]",
        "  net.ipv4.ip_forward = 0\n  net.core.somaxconn = 128",
        "net.ipv4.ip_forward.=0",
        ".net.ipv4.ip_forward=0",
        "/net/ipv4/ip_forward=0",
        "NET.ipv4.ip_forward=0",
        "net.ipv4.ip_forward=0\n net.core.somaxconn=128",
        "net.ipv4.conf.all.forwarding:0=1",
        "devices_udev_regex=x",
        "script_pre=/bin/true",
        "net.ipv4.conf.default.forwarding=0",
        "net.ipv4.conf.lo.forwarding=0",
        "# comment\n# another",
        "=1",
        "[unclosed",
        "net.ipv4.ip_forward\0=0",
        "net.ipv4.ip_forward=0\0",
        "net.ipv4.ip_forward=0\x1c",
        "net.core.somaxconn=%(x)s",
        "\xa0net.ipv4.ip_forward=0",
        "\ufeffnet.ipv4.ip_forward=0",
        "net.ipv4.ip_forward==0",
        "net.ipv4.conf.lo/accept_local=0",
        "net/ipv4/conf.all/rp_filter = 1",
        "net.ipv4.ip_forward=0\rnet.core.somaxconn=128",
        "script_post=/bin/false",
        "\u2028",
    ])


def sysctl_d(random):
    lines = []
    for _ in range(random.randint(0, 4)):
        key = random.choice(NAMES)
        line = assignment(random, key).replace("${f:strip: 0 }", "0")
        lines.append(random.choice([line] * 8 + ["-" + line, "#" + line, ";" + line, "  " + line, key, "-" + key, "\0" + line] + [line + "\0", f"{key} := 1", key.replace(".", "/") + "=0", f"{key}=0\r{line}", line.replace("=", "= ="), random.choice(["\ufeff", "\x1c", "\xa0"]) + line]))
    end = random.choice(["\n"] * 8 + ["\r\n", "\r"])
    return end.join(lines) + random.choice([end, end, end, ""])


if __name__ == "__main__":
    import tuned.daemon  # once, for all
    import tuned.logs

    tuned.logs.get().setLevel("CRITICAL")
    sys.exit(trees.run(make, real, "tuned", int(sys.argv[2]), int(sys.argv[3]), sys.argv[1], GUARDED))
