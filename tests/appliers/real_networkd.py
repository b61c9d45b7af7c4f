"""Compares `netguard conflicts` with the real systemd-networkd: it configures veth
pairs by random .network files in namespaces of their own.

real_networkd.py NETGUARD TREES SEED
"""

import fnmatch
import itertools
import os
import signal
import subprocess
import sys

import trees

PROGRAM = "/usr/lib/systemd/systemd-networkd"
FOLDERS = [
    "/etc/systemd/network", "/run/systemd/network", "/usr/local/lib/systemd/network",
    "/usr/lib/systemd/network", "/etc/systemd/networkd.conf.d", "/run/systemd/netif",
]
NETWORKS = FOLDERS[:4]
# Of each glob below there is one that no other name means.
PAIRS = [("eth0", "cali1"), ("eth1", "cali12"), ("e.1", "lxc1"), ("eth2", "cali13"), ("cali2", "lxc2"), ("e2", "lxc12")]
LINKS = [name for pair in PAIRS for name in pair]
# The names that the patterns below mean.
NAMES = ["accept_local", "accept_ra", "proxy_arp", "proxy_ndp", "use_tempaddr"]
GUARDED = {
    "net.ipv4.ip_forward": "0",
    "net.ipv6.conf.all.forwarding": "0",
    "net.ipv6.conf.eth0.accept_ra": "2",
    "net.ipv6.conf.cali*.accept_ra": "1",
    "net.ipv4.conf.eth0.proxy_arp": "1",
    "net.ipv4.conf.cali*.proxy_arp": "1",
    "net.ipv4.conf.e/1.proxy_arp": "1",
    "net.ipv6.conf.eth1.use_tempaddr": "2",
    "net.ipv[!4].conf.cali1*.use_temp*": "2",
    "net.ipv6.conf.eth0.proxy_ndp": "1",
    "net.ipv6.conf.lxc*.proxy_ndp": "1",
    "net.ipv4.conf.eth1.route_localnet": "1",
    "net.*4.conf.lxc1.accept_loca?": "1",
    "net.ipv6.conf.e/1.hop_limit": "64",
    "net.ipv6.conf.lxc1.dad_transmits": "1",
    "net.ipv4.conf.eth0.promote_secondaries": "0",
    "net.ipv6.conf.eth1.disable_ipv6": "1",
    "net.ipv4.conf.eth0.rp_filter": "0",
    "net.ipv4.conf.lo.promote_secondaries": "0",
    "net.ipv4.conf.all.accept_redirects": "1",
    "net.ipv4.conf.cali13.forwarding": "0",
    "net.ipv6.conf.lxc2.forwarding": "0",
    "net.ipv6.conf.default.forwarding": "0",
    "net.ipv6.conf.eth2.mtu": "1500",
}


def keys(selector):
    """The keys that a selector means here."""
    if not any(letter in selector for letter in "*?["):
        return [selector]
    parts = selector.split(".")
    known = (["net"], ["ipv4", "ipv6"], ["conf"], LINKS, NAMES)
    meant = [fnmatch.filter(names, part) for names, part in zip(known, parts)]
    return [".".join(key) for key in itertools.product(*meant)]


def make_links():
    """The links, once for all trees: making them takes longer than all else."""
    trees.unshare(trees.CLONE_NEWNET)
    for one, other in PAIRS:
        subprocess.run(["ip", "link", "add", one, "type", "veth", "peer", "name", other], check=True)


def exactly(guarded):
    """The same with each interface by its name, without what one interface sets for
    all: whether there is one for a pattern that was made at random is not known."""
    of_all = ("forward", "forwarding", "accept_redirects")
    own = {key: value for selector, value in guarded.items() for key in keys(selector)}
    return {key: value for key, value in own.items() if not key.endswith(of_all)}


def real(tree, guarded):
    trees.enter_namespaces(trees.CLONE_NEWNS)
    trees.enter_root(tree, FOLDERS)
    # Read-only, as in a container: then networkd does not wait for udev.
    trees.mount("sysfs", "/sys", "sysfs", trees.MS_RDONLY)
    for selector, value in guarded.items():
        for key in keys(selector):
            trees.put(key, value)
    configure()
    turned = {}
    for selector, value in guarded.items():
        wrong = [trees.read(key) for key in keys(selector) if trees.read(key) != value]
        if wrong:
            turned[selector] = wrong[0]
    return turned


def configure():
    """Runs networkd until it has looked after all links."""
    os.chmod("/run/systemd/netif", 0o777)
    for folder in ("links", "leases", "lldp"):
        os.makedirs(f"/run/systemd/netif/{folder}", exist_ok=True)
        os.chmod(f"/run/systemd/netif/{folder}", 0o777)
    watch = trees.Watch("/run/systemd/netif/links")
    waiting = {index(name) for name in LINKS}
    environment = {"SYSTEMD_LOG_LEVEL": os.environ.get("NETWORKD_LOG", "emerg"), "PATH": "/usr/bin:/usr/sbin"}
    daemon = subprocess.Popen([PROGRAM], env=environment)
    try:
        while True:
            waiting = {link for link in waiting if not settled(link)}
            if not waiting:
                break
            # Much longer than it takes: other tests may hold the kernel's rtnl lock.
            if not watch.wait(120):
                raise RuntimeError(f"networkd left {waiting}, {daemon.poll()}")
    finally:
        daemon.send_signal(signal.SIGKILL)
        daemon.wait()


def index(name):
    with open(f"/sys/class/net/{name}/ifindex") as file:
        return int(file.read())


def settled(link):
    """Whether networkd has decided about a link: it sets sysctls before it says so."""
    try:
        with open(f"/run/systemd/netif/links/{link}") as file:
            state = dict(line.rstrip().split("=", 1) for line in file if "=" in line)
    except FileNotFoundError:
        return False
    return state.get("ADMIN_STATE") in ("configuring", "configured", "unmanaged", "failed")


def make(random, tree):
    chance = lambda percent: random.random() * 100 < percent
    # A pattern made at random need not match an interface of this machine, and
    # netguard takes one for a glob for interfaces that there are.
    exact = chance(50)
    wants = "/etc/systemd/system/multi-user.target.wants/systemd-networkd.service"
    trees.write(tree, wants, "")
    # The version of this machine, as netguard finds it.
    trees.write(tree, f"/usr/lib/systemd/{shared_library()}", "")
    for _ in range(random.choice([1, 2, 3, 4, 5, 9])):
        name = random.choice(["05-a", "10-b", "10-b", "50-c", "50-c", "99-z", "eth0", ".hidden", "A", "10-b.x"]) + ".network"
        path = f"{random.choice(NETWORKS)}/{name}"
        place(random, tree, path, lambda: "" if chance(4) else network(random, exact))
        for _ in range(random.choice([0, 0, 0, 1, 2])):
            drop_in = random.choice(["10-x.conf", "90-y.conf", "zz.conf", ".hidden.conf", "no", "10-x.conf", "~.conf", "Z.CONF", "1.conf~"])
            place(random, tree, f"{random.choice(NETWORKS)}/{name}.d/{drop_in}", lambda: options(random))
    if chance(10):
        trees.write(tree, "/etc/systemd/networkd.conf", "[Network]\nIPv4Forwarding=yes\nIPv6PrivacyExtensions=yes\n")
    return exactly(GUARDED) if exact else GUARDED


def place(random, tree, path, text):
    """A file at `path`, or what else may be there under such a name."""
    if os.path.lexists(tree + path) and not os.path.isfile(tree + path):
        return
    odd = random.random() * 100
    if odd > 14:
        return trees.write(tree, path, text())
    if os.path.lexists(tree + path):
        return
    os.makedirs(os.path.dirname(tree + path), exist_ok=True)
    if odd < 8:
        os.symlink("/dev/null", tree + path)
    elif odd < 9:
        os.symlink("nothing-there", tree + path)
    elif odd < 10:
        os.makedirs(tree + path)
    elif odd < 12:
        os.symlink(f"/usr/lib/systemd/network/{random.choice(['05-a', '10-b', '99-z'])}.network", tree + path)
    else:
        trees.write(tree, "/etc/elsewhere", text())
        os.symlink("../../elsewhere" if path.startswith("/etc/systemd/network/") and path.count("/") == 4 else "/etc/elsewhere", tree + path)


def pattern(random):
    """A pattern made of the name of a link."""
    text = ""
    for c in random.choice(LINKS):
        way = random.random()
        if way < 0.75:
            text += c
        elif way < 0.82:
            text += "?"
        elif way < 0.88:
            text += "*"
        else:
            text += random.choice([f"[{c}]", f"[!{c}]", f"[a-{c}]", f"[{c}-z]", "[0-9]", f"[]{c}]", f"[^]x-]", f"[{c}-]", f"[-{c}]", "[z-a]", f"[!-{c}]", "[[]", f"\\\\{c}", f"\\{c}", f"[\\\\{c}]", "[!]", "[]", f"[{c}", "**", f"[{c.upper()}{c}]", "[!0-9]"])
    return text + random.choice(["", "", "", "", "*", "?", "[0-9]"])


def shared_library():
    for folder in ("/usr/lib/x86_64-linux-gnu/systemd", "/usr/lib/aarch64-linux-gnu/systemd", "/usr/lib/systemd"):
        for name in os.listdir(folder) if os.path.isdir(folder) else []:
            if name.startswith("libsystemd-shared-"):
                return name
    raise RuntimeError("there is no libsystemd-shared")


def network(random, exact):
    chance = lambda percent: random.random() * 100 < percent
    lines = []
    if chance(93):
        lines.append("[Match]")
        names = random.choice([
            "eth0", "eth1", "eth*", "cali*", "cali1", "cali1*", "*", "lxc? e.1", "e.1 eth0", "!eth0", "!cali* lxc1",
            "eth[0-9]", "cali1 cali12", "* ", "e*", '"eth0"', "eth[[:digit:]]", "eth[0", "e\\th0", "! eth0", "!eth0 !eth1", "eth0 !eth0", "lxc[!1]", "cali[^2]", "eth0,eth1", "eth0:1 lxc1", "12 lxc2", "all cali2",
            "!* eth0", "?????", "lxc1\\", "cali1*\nName=!cali12", "!lxc*\nName=!cali*", "lo", "!lo", "* !lo !eth*", "eth0\nName=cali*", "eth0\nName=\nName=lxc1", "* !eth0",
        ])
        if exact and chance(60):
            names = " ".join(random.choice(["", "", "", "!"]) + pattern(random) for _ in range(random.choice([1, 1, 2, 3])))
        if chance(95):
            lines.append(f"Name{random.choice(['=', ' = '])}{names}")
        if chance(6):
            lines.append(random.choice(["Driver=veth", "Type=ether", "Type=wlan", "Kind=veth", "MACAddress=00:11:22:33:44:55", "Virtualization=!vm", "Odd=1", "KernelVersion=>=3.0", "KernelCommandLine=!quiet", "Architecture=x86-64", "Path=*", "Property=A=b", "MACAddress=x", "Driver=\nDriver=veth", "Type=ether\nType=", "Version=1", "Firmware=uefi", "Host=a\nHost=", "PermanentMACAddress=00:11:22:33:44:55", "WLANInterfaceType=station", "SSID=x", "BSSID=00:11:22:33:44:55", "Credential=a", "Host=*", "Host=!nobody", "Virtualization=no", "KernelVersion=<3.0 >=4", "Kind=!veth", "Driver=!veth", "Type=!loopback", "Property=!A=b", "OriginalName=eth0", "Name =", "MACAddress =  ", "Kind="]))
    if chance(12):
        lines += ["[Link]", random.choice(["ActivationPolicy=up", "ActivationPolicy=manual", "ActivationPolicy=always-down", "RequiredForOnline=no", "ARP=no", "Multicast=yes", "unmanaged=yes", "# Unmanaged=yes"]), "Unmanaged=" + random.choice(["yes", "no", "1", "true", "maybe", "on", "t", "", "yes\nUnmanaged=", "yes\nUnmanaged=no"])]
    if chance(10):
        lines += ["[Match]", random.choice(["Name=eth2", "Name=!eth1", "Name=\teth0\tlxc2 ", "Name=", "Host=!nobody"])]
    text = "\n".join(lines) + "\n" + options(random)
    if chance(8):
        text = text.replace("\n", random.choice(["\r\n", "\r\n", "\r", "\n\r", "\n\n", "\0\n", " \n", "\t\r\n", "\n\t"]))
    return ("\ufeff" if chance(4) else "") + text


def options(random):
    boolean = lambda: random.choice(["yes", "no", "1", "0", "true", "off", "y", "f", "maybe", "", "yes # x", '"no"', "YES", "n", "T", "2", "-1", "on", "\u00a0yes", "oN", "oFF", "F", "Y", "TRUE", "fAlse", "ja", "'yes'", "yes;", "yes no", "0x1", "01", "yes\\", "No\t"])
    lines = [random.choice(["[Network]"] * 9 + ["[Network] ", " [Network]", "[network]", "[Network"])]
    for _ in range(random.randint(0, 4)):
        lines.append(random.choice([
            f"IPv4ProxyARP={boolean()}",
            f"ProxyARP = {boolean()}",
            f"IPv4RouteLocalnet={boolean()}",
            f"IPv4AcceptLocal={boolean()}",
            f"IPv6AcceptRA={boolean()}",
            f"IPv6ProxyNDP={boolean()}",
            f"IPv6PrivacyExtensions={random.choice(['yes', 'no', 'prefer-public', 'kernel', 'odd', '1', '0', ''])}",
            f"IPv6HopLimit={random.choice(['64', '0', '1', '255', '256', 'x', '', '-1', '0x40', '010', '+7', '64 ', '0b11', '0o10', '99999999999', '1e1', '7_0'])}",
            f"IPv6DuplicateAddressDetection={random.choice(['0', '1', '3', 'x', '', '-1', '0x2', '2147483648'])}",
            f"IPForward={random.choice(['yes', 'no', 'ipv4', 'ipv6', 'odd', 'kernel', '0', '', 'both', 'IPv4', '1'])}",
            f"IPMasquerade={random.choice(['yes', 'no', 'ipv4', 'ipv6', 'both', 'odd', '', 'true'])}",
            f"IPv6SendRA={boolean()}",
            f"IPv4ReversePathFilter={random.choice(['strict', 'no', 'loose'])}",
            f"LinkLocalAddressing={random.choice(['yes', 'no', 'ipv4', 'ipv6', '', 'fallback', 'ipv4-fallback', 'fallback-ipv4', 'both'])}",
            f"IPv6ProxyNDPAddress={random.choice(['fe80::1', '::', 'x', '', '10.0.0.1', 'fe80::1/64'])}",
            f"IPv6LinkLocalAddressGenerationMode={random.choice(['none', 'eui64', 'random', 'odd'])}",
            f"KeepMaster={boolean()}",
            "Bridge=br0",
            f"IPv6MTUBytes={random.choice(['1280', '1K', '2K', 'x'])}",
            "Address=10.1.1.1/24",
            "[Network]",
            "[Network",
            "[Net\"work]",
            "IPv4ProxyARP=no\nIPv4ProxyARP=",
            "IPv4ProxyARP=no \\",
            "IPv4ProxyARP=n\\\no",
            "IPv4ProxyARP=\\\\",
            "\x0bIPv4ProxyARP=no",
            "IPv4ProxyARP=no\x0b",
            "ipv4proxyarp=no",
            "IPv4ProxyARP:no",
            "=no",
            "\ufeff[Network]",
            "[DHCPv4]\nIPv4ProxyARP=no\n[Network]",
            "[Match]\nName=cali1",
            "IPv4Forwarding=yes",
            "# IPForward=yes",
            "; IPForward=yes",
            "IPv4ProxyARP=\\\nno",
            "IPv4ProxyARP=\\\n# comment\nyes",
            "Description=a \\",
            "IPv4ProxyARP",
            "  IPv6ProxyNDP = yes",
            "[Odd]",
            f"IPv4ProxyARPPrivateVLAN={boolean()}",
            f"IPv6Forwarding={boolean()}",
            f"IPv6LinkLocalAddressGenerationMode={random.choice(['none', 'stable-privacy', '', 'EUI64', '0'])}",
            f"IPv6StableSecretAddress={random.choice(['fe80::1', '', 'x'])}",
            "LinkLocalAddressing=IPv6",
            "LinkLocalAddressing=no\nLinkLocalAddressing=",
            "LinkLocalAddressing=no\nLinkLocalAddressing=YES",
            f"IPv6AcceptRouterAdvertisements={boolean()}",
            f"DHCP={boolean()}",
            f"IPv6PrefixDelegation={boolean()}",
            f"IPForwarding={boolean()}",
            "VRF=vrf0",
            "Bond=bond0",
            "MACVLAN=m0",
            "Tunnel=t0",
            "[IPv6AcceptRA]\nUseDNS=no\n[Network]",
            "[Address]\nAddress=10.1.1.2/24\nProxyARP=no\n[Network]",
            "[Route]\nGateway=10.1.1.3\n[Network]",
            "[Link]\nUnmanaged=" + boolean() + "\n[Network]",
            "[Network]\nIPv4ProxyARP=no\n[Link]",
            "Description=\udcff\udcfe",
            "# \udcff",
            "Description=\ufffe",
            "Description=\ufdd0",
            "Description=\U0001f600",
            "IPv4ProxyARP=no\\\r\n",
            "IPv4ProxyARP=n\\\n; comment\n\\\no",
            "\\",
            "\\\n[Network]",
            "[Network]\\\n",
            "[Network];",
            "[Network]#",
            "[ Network ]",
            "[]",
            "[Match]\nName=",
            "[Match]\nName=!cali*\n[Network]",
            "[Match]\nHost=\n[Network]",
            "X-Foo=1",
            "\tIPv4ProxyARP\t=\tno\t",
            "IPv4ProxyARP==no",
            "IPv4ProxyARP=no=yes",
        ]))
    return "\n".join(lines) + random.choice(["\n", "\n", ""])


if __name__ == "__main__":
    make_links()
    sys.exit(trees.run(make, real, "networkd", int(sys.argv[2]), int(sys.argv[3]), sys.argv[1], GUARDED))
