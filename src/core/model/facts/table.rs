//! The table. A row for a name comes before the row for its whole folder.

use super::{Access, All, Default, Effect, Fact, Format, INT, Obsolete, Offered, UINT, ULONG};
use crate::model::Errno;

/// A handler of a key has nothing to show.
const EIO: Errno = Errno(5);

const fn row(folder: &'static str, names: &'static [&'static str], format: Format) -> Fact {
    Fact {
        folder,
        names,
        means: "",
        kernel: "",
        module: None,
        offered: None,
        format,
        documented: None,
        all: All::Apart,
        default: Default::Apart,
        sets: &[],
        needs: None,
        alias: None,
        twin: None,
        access: Access::ReadWrite,
        obsolete: None,
        flickers: false,
        unset: None,
    }
}

/// Keys of `int`.
const fn int(folder: &'static str, names: &'static [&'static str]) -> Fact {
    within(folder, names, INT)
}

/// Keys of one integer within bounds that the kernel enforces.
const fn within(
    folder: &'static str,
    names: &'static [&'static str],
    (low, high): (i128, i128),
) -> Fact {
    fields(folder, names, 1, (low, high))
}

/// Keys of several integers within bounds that the kernel enforces.
const fn fields(
    folder: &'static str,
    names: &'static [&'static str],
    fields: u8,
    (low, high): (i128, i128),
) -> Fact {
    row(folder, names, Format::Integers { fields, low, high })
}

/// `int` keys of `net/ipv4/conf`. A change of `default` is copied to interfaces
/// that were never set.
const fn conf4(names: &'static [&'static str], all: All) -> Fact {
    int("net/ipv4/conf/*", names)
        .all(all)
        .default(Default::Copied)
}

/// `int` keys of `net/ipv6/conf`. `default` is for new interfaces alone.
const fn conf6(names: &'static [&'static str], all: All) -> Fact {
    int("net/ipv6/conf/*", names).all(all).default(Default::New)
}

/// Keys of a time.
const fn time(folder: &'static str, names: &'static [&'static str], per_second: u16) -> Fact {
    row(folder, names, Format::Time { per_second })
}

/// Keys that exist on old kernels only.
const fn removed(
    folder: &'static str,
    names: &'static [&'static str],
    version: &'static str,
) -> Fact {
    row(folder, names, Format::Unknown).obsolete(Obsolete::Removed(version))
}

impl Fact {
    const fn means(self, means: &'static str) -> Fact {
        Fact { means, ..self }
    }

    const fn kernel(self, kernel: &'static str) -> Fact {
        Fact { kernel, ..self }
    }

    const fn module(self, module: &'static str) -> Fact {
        let module = Some(module);
        Fact { module, ..self }
    }

    const fn offered(self, by: &'static str, module: &'static str) -> Fact {
        let offered = Some(Offered { by, module });
        Fact { offered, ..self }
    }

    /// The values that the documentation knows.
    const fn documented(self, low: i128, high: i128) -> Fact {
        let documented = Some((low, high));
        Fact { documented, ..self }
    }

    /// Documented as 0 or 1.
    const fn switch(self) -> Fact {
        self.documented(0, 1)
    }

    const fn all(self, all: All) -> Fact {
        Fact { all, ..self }
    }

    const fn default(self, default: Default) -> Fact {
        Fact { default, ..self }
    }

    const fn sets(self, sets: &'static [(&'static str, Effect)]) -> Fact {
        Fact { sets, ..self }
    }

    const fn needs(self, needs: &'static str) -> Fact {
        let needs = Some(needs);
        Fact { needs, ..self }
    }

    const fn alias(self, alias: &'static str) -> Fact {
        let alias = Some(alias);
        Fact { alias, ..self }
    }

    const fn twin(self, name: &'static str, effect: Effect) -> Fact {
        let twin = Some((name, effect));
        Fact { twin, ..self }
    }

    const fn access(self, access: Access) -> Fact {
        Fact { access, ..self }
    }

    const fn obsolete(self, obsolete: Obsolete) -> Fact {
        let obsolete = Some(obsolete);
        Fact { obsolete, ..self }
    }

    const fn unset(self, errno: Errno) -> Fact {
        let unset = Some(errno);
        Fact { unset, ..self }
    }

    const fn flickers(self) -> Fact {
        Fact {
            flickers: true,
            ..self
        }
    }
}

const NEIGH4: &str = "net/ipv4/neigh/*";
const NEIGH6: &str = "net/ipv6/neigh/*";
/// The neighbour table of a network namespace.
const TABLE: &str = "For all interfaces of the network namespace together.";
const VS: &str = "net/ipv4/vs";
const BRIDGE: &str = "net/bridge";

pub(super) const FACTS: &[Fact] = &[
    // Forwarding of IPv4.
    int("net/ipv4", &["ip_forward"])
        .switch()
        .means("Whether IPv4 packets are forwarded between interfaces. A node without it drops the packets of its pods.")
        .kernel("The same integer as net.ipv4.conf.all.forwarding. A change sets forwarding of `default` and of every interface, and conf.all.accept_redirects to the opposite; an equal write does nothing. Whether a packet is forwarded is decided by the flag of the interface it comes in by. CentOS 7's `network stop` always sets it to 0; sysctl.d is applied when the network starts again.")
        .alias("net/ipv4/conf/all/forwarding")
        .sets(&[
            ("net/ipv4/conf/*/forwarding", Effect::Same),
            ("net/ipv4/conf/all/accept_redirects", Effect::Opposite),
        ])
        .needs("net/ipv4/conf/*/forwarding")
        .flickers(),
    int("net/ipv4/conf/*", &["forwarding"])
        .switch()
        .all(All::Copied)
        .default(Default::New)
        .means("Whether IPv4 packets received on this interface are forwarded.")
        .kernel("A change of net.ipv4.ip_forward sets it for every interface. Writing ip_forward=1 where that is 1 already does not fix an interface that has 0.")
        .flickers(),
    // Other keys of an interface for IPv4.
    conf4(&["rp_filter"], All::Greater)
        .documented(0, 2)
        .means("Reverse path filter: 0 off, 1 strict, 2 loose.")
        .kernel("systemd's 50-default.conf sets it for every interface, at boot and, by udev, for each new one."),
    conf4(&["proxy_arp"], All::Either)
        .switch()
        .means("Proxy ARP: whether the node answers ARP requests for addresses that it routes elsewhere. Calico's pods find their gateway by it."),
    conf4(&["route_localnet"], All::Either)
        .switch()
        .default(Default::New)
        .means("Whether packets from and to 127.0.0.0/8 are routed on this interface. Host ports on loopback addresses need it."),
    conf4(&["accept_redirects"], All::Redirects)
        .switch()
        .means("Whether ICMP redirects are accepted. A router accepts none.")
        .kernel("A change of net.ipv4.ip_forward sets it for `all` to the opposite: turning forwarding off turns redirects on."),
    conf4(&["secure_redirects"], All::Either)
        .switch()
        .means("Whether ICMP redirects are accepted only from known gateways."),
    conf4(&["send_redirects"], All::Either)
        .switch()
        .means("Whether the node sends ICMP redirects."),
    conf4(&["accept_source_route"], All::Both)
        .switch()
        .means("Whether packets with the source route option are accepted."),
    conf4(&["accept_local"], All::Either)
        .switch()
        .means("Whether packets with a local source address are accepted."),
    conf4(&["arp_ignore"], All::Greater)
        .documented(0, 8)
        .means("For which target addresses ARP requests are answered: 0 any local address, 1 only those of the incoming interface, up to 8 none.")
        .kernel("kube-proxy with strictARP needs 1 for `all`."),
    conf4(&["arp_announce"], All::Greater)
        .documented(0, 2)
        .means("Which local source address is used in ARP requests: 0 any, 1 one of the target's subnet if possible, 2 the best local address.")
        .kernel("kube-proxy with strictARP needs 2 for `all`."),
    conf4(&["arp_filter"], All::Either)
        .switch()
        .means("Whether an interface answers ARP requests only where the answer would be routed out by it."),
    conf4(&["log_martians"], All::Either)
        .switch()
        .means("Whether packets with impossible addresses are logged."),
    conf4(&["src_valid_mark"], All::Either)
        .switch()
        .means("Whether the reverse path filter takes a packet's mark into account."),
    conf4(&["arp_accept"], All::Greater).documented(0, 2),
    conf4(&["arp_notify"], All::Greater).switch(),
    conf4(&["bc_forwarding", "bootp_relay", "arp_evict_nocarrier"], All::Both).switch(),
    conf4(
        &[
            "disable_policy",
            "disable_xfrm",
            "drop_unicast_in_l2_multicast",
            "promote_secondaries",
        ],
        All::Either,
    )
    .switch()
    .default(Default::New),
    conf4(
        &["drop_gratuitous_arp", "ignore_routes_with_linkdown", "shared_media"],
        All::Either,
    )
    .switch(),
    conf4(&["proxy_arp_pvlan"], All::Either).switch(),
    conf4(&["medium_id", "tag"], All::Nothing),
    int("net/ipv4/conf/*", &["mc_forwarding"])
        .all(All::Both)
        .access(Access::ReadOnly)
        .means("Whether IPv4 multicast is routed: set by a multicast routing daemon."),
    conf4(
        &["force_igmp_version", "igmpv2_unsolicited_report_interval", "igmpv3_unsolicited_report_interval"],
        All::Apart,
    ),
    conf4(&["*"], All::Apart)
        .means("A setting of an interface for IPv4.")
        .kernel("New interfaces begin with the value of `default`; writing `default` also changes interfaces that were never set themselves."),
    // The ARP table.
    time(NEIGH4, &["proxy_delay"], 100)
        .default(Default::Copied)
        .means("The longest time, in hundredths of a second, for which an answer by proxy ARP is delayed. With 0 it is answered immediately, as Calico requires."),
    time(NEIGH4, &["anycast_delay", "locktime"], 100).default(Default::Copied),
    time(NEIGH4, &["retrans_time"], 100)
        .default(Default::Copied)
        .twin("retrans_time_ms", Effect::Times(10)),
    time(NEIGH4, &["retrans_time_ms"], 1000)
        .default(Default::Copied)
        .twin("retrans_time", Effect::Part(10)),
    time(NEIGH4, &["base_reachable_time"], 1)
        .default(Default::Copied)
        .twin("base_reachable_time_ms", Effect::Times(1000)),
    time(NEIGH4, &["base_reachable_time_ms"], 1000)
        .default(Default::Copied)
        .twin("base_reachable_time", Effect::Part(1000)),
    time(NEIGH4, &["interval_probe_time_ms"], 1000).default(Default::Copied),
    time(NEIGH4, &["delay_first_probe_time", "gc_stale_time"], 1).default(Default::Copied),
    int("net/ipv4/neigh/default", &["gc_thresh1"])
        .means("Below this many entries, no garbage collection of the neighbour table.")
        .kernel(TABLE),
    int("net/ipv4/neigh/default", &["gc_thresh2"])
        .means("Above this many entries, those unused for five seconds are removed.")
        .kernel(TABLE),
    int("net/ipv4/neigh/default", &["gc_thresh3"])
        .means("The most entries of the neighbour table. When it is full new pods are not reached, and the kernel logs \"neighbour table overflow\".")
        .kernel(TABLE),
    within(NEIGH4, &["app_solicit", "mcast_resolicit", "mcast_solicit", "proxy_qlen", "ucast_solicit", "unres_qlen_bytes"], (0, INT.1))
        .default(Default::Copied)
        .means("A setting of the ARP table."),
    time("net/ipv4/neigh/default", &["gc_interval"], 1).kernel(TABLE),
    row(NEIGH4, &["unres_qlen"], Format::Unknown).default(Default::Copied),
    row(NEIGH4, &["*"], Format::Unknown)
        .default(Default::Copied)
        .means("A setting of the ARP table.")
        .kernel("New interfaces begin with the value of `default`; writing `default` also changes interfaces that were never set themselves."),
    // The rest of IPv4.
    within("net/ipv4", &["ip_nonlocal_bind"], (0, 255))
        .switch()
        .means("Whether programs may bind to addresses that the node does not have."),
    row(
        "net/ipv4",
        &["ip_local_port_range"],
        Format::Range {
            low: 1,
            high: 65535,
            empty: false,
        },
    )
    .means("The ports that outgoing connections use.")
    .kernel("It should not overlap Kubernetes' node ports, 30000 to 32767 by default, or a connection takes a service's port; ip_local_reserved_ports excludes some."),
    row(
        "net/ipv4",
        &["ping_group_range"],
        Format::Range {
            low: 0,
            high: UINT.1 - 1,
            empty: true,
        },
    )
    .means("The groups that may create ICMP echo sockets.")
    .kernel("An inverted range becomes `1 0`: no group."),
    row("net/ipv4", &["ip_local_reserved_ports"], Format::Ports)
        .means("Ports that are not used for outgoing connections unless asked for.")
        .kernel("The kernel sorts and joins the list."),
    fields("net/ipv4", &["tcp_rmem"], 3, (1, INT.1))
        .means("Minimum, default and maximum bytes of a TCP socket's receive buffer.")
        .kernel("A program that sets SO_RCVBUF is bound by net.core.rmem_max instead."),
    fields("net/ipv4", &["tcp_wmem"], 3, (1, INT.1))
        .means("Minimum, default and maximum bytes of a TCP socket's send buffer.")
        .kernel("A program that sets SO_SNDBUF is bound by net.core.wmem_max instead."),
    fields("net/ipv4", &["tcp_mem", "udp_mem"], 3, ULONG),
    within("net/ipv4", &["tcp_syncookies"], (0, 255))
        .documented(0, 2)
        .means("SYN cookies: 0 off, 1 under SYN flood, 2 always."),
    within(
        "net/ipv4",
        &[
            "tcp_abort_on_overflow",
            "tcp_moderate_rcvbuf",
            "tcp_no_metrics_save",
            "tcp_rfc1337",
            "tcp_sack",
            "tcp_slow_start_after_idle",
            "tcp_timestamps",
            "tcp_window_scaling",
            "tcp_keepalive_probes",
            "tcp_mtu_probing",
            "tcp_orphan_retries",
            "tcp_synack_retries",
            "tcp_retries1",
            "tcp_retries2",
            "ip_no_pmtu_disc",
        ],
        (0, 255),
    ),
    within("net/ipv4", &["tcp_syn_retries"], (1, 127)),
    within("net/ipv4", &["tcp_tw_reuse"], (0, 2)),
    within("net/ipv4", &["ip_default_ttl"], (1, 255)),
    within(
        "net/ipv4",
        &["icmp_echo_ignore_all", "icmp_echo_ignore_broadcasts", "icmp_ignore_bogus_error_responses"],
        (0, 1),
    ),
    within("net/ipv4", &["ip_unprivileged_port_start"], (0, 65535)),
    int(
        "net/ipv4",
        &[
            "tcp_fastopen",
            "tcp_max_syn_backlog",
            "tcp_max_tw_buckets",
            "tcp_base_mss",
            "tcp_challenge_ack_limit",
            "tcp_limit_output_bytes",
            "igmp_max_memberships",
            "igmp_max_msf",
        ],
    ),
    within("net/ipv4", &["tcp_notsent_lowat"], UINT),
    time(
        "net/ipv4",
        &["tcp_fin_timeout", "tcp_keepalive_intvl", "tcp_keepalive_time", "ipfrag_time"],
        1,
    ),
    within("net/ipv4", &["tcp_min_snd_mss", "tcp_mtu_probe_floor"], (48, 65535)),
    within("net/ipv4", &["igmp_qrv", "udp_rmem_min", "udp_wmem_min"], (1, INT.1)),
    within("net/ipv4", &["tcp_min_tso_segs"], (1, 255)),
    int("net/unix", &["max_dgram_qlen"]),
    time("net/ipv4", &["icmp_ratelimit", "tcp_invalid_ratelimit"], 1000),
    row("net/ipv4", &["tcp_congestion_control"], Format::Name)
        .means("The congestion control of new TCP connections.")
        .offered("net/ipv4/tcp_available_congestion_control", "tcp_")
        .kernel("tcp_available_congestion_control lists the names; others come with their module, tcp_NAME. Unknown names are rejected."),
    row("net/ipv4", &["tcp_allowed_congestion_control"], Format::Names)
        .means("The congestion controls that programs without privileges may use.")
        .offered("net/ipv4/tcp_available_congestion_control", "tcp_"),
    row("net/ipv4", &["tcp_available_congestion_control"], Format::Names).access(Access::ReadOnly),
    row("net/ipv4", &["tcp_ehash_entries", "udp_hash_entries"], Format::Unknown)
        .access(Access::ReadOnly),
    removed("net/ipv4", &["tcp_tw_recycle"], "4.12")
        .means("Fast recycling of TIME-WAIT sockets. It broke clients behind NAT."),
    removed(
        "net/ipv4",
        &["tcp_abc", "tcp_cookie_size", "tcp_dma_copybreak", "tcp_frto_response", "tcp_max_ssthresh"],
        "3.10",
    ),
    removed("net/ipv4", &["ip_conntrack_max"], "4.8")
        .means("An old name of net.netfilter.nf_conntrack_max."),
    removed("net/ipv4/netfilter", &["*"], "4.8")
        .means("Old names of the keys in net.netfilter."),
    within("net/ipv4", &["tcp_low_latency"], INT).obsolete(Obsolete::NoEffect("4.14")),
    within("net/ipv4", &["tcp_fack"], INT).obsolete(Obsolete::NoEffect("4.15")),
    int("net/ipv4", &["xfrm4_gc_thresh"]).obsolete(Obsolete::NoEffect("4.14")),
    row("net/ipv4/route", &["flush"], Format::Unknown)
        .access(Access::WriteOnly)
        .means("A write flushes cached routes."),
    int("net/ipv4/route", &["max_size", "gc_elasticity", "gc_thresh"])
        .obsolete(Obsolete::NoEffect("3.6"))
        .kernel("The IPv4 routing cache was removed in Linux 3.6."),
    time("net/ipv4/route", &["gc_interval", "gc_min_interval", "gc_timeout"], 1)
        .obsolete(Obsolete::NoEffect("3.6"))
        .kernel("The IPv4 routing cache was removed in Linux 3.6."),
    // Sockets and devices.
    within("net/core", &["somaxconn"], (0, INT.1))
        .means("The most connections that wait for a listening program to accept them.")
        .kernel("Each network namespace, so each pod, has its own."),
    int("net/core", &["rmem_max"])
        .means("The most bytes of a receive buffer that a program may ask for."),
    int("net/core", &["wmem_max"])
        .means("The most bytes of a send buffer that a program may ask for."),
    int("net/core", &["netdev_max_backlog"])
        .means("The most packets that wait for one processor between an interface and the network stack."),
    row("net/core", &["default_qdisc"], Format::Name)
        .means("The queueing discipline that new interfaces begin with.")
        .kernel("Unknown names are rejected."),
    // IPVS.
    int(VS, &["conntrack"])
        .switch()
        .module("ip_vs")
        .means("Whether IPVS connections are tracked, as NAT of kube-proxy's services needs."),
    int(VS, &["expire_nodest_conn"])
        .switch()
        .module("ip_vs")
        .means("Whether connections to a removed endpoint are terminated immediately."),
    int(VS, &["expire_quiescent_template"])
        .switch()
        .module("ip_vs")
        .means("Whether clients with session affinity are released when an endpoint's weight is 0."),
    row(VS, &["*"], Format::Unknown)
        .module("ip_vs")
        .means("A setting of IPVS."),
    // IPv6.
    int("net/ipv6/conf/all", &["forwarding"])
        .switch()
        .means("Whether IPv6 packets are forwarded between interfaces.")
        .kernel("Any write sets it for every interface. Turning it on removes the default routers learnt from router advertisements, unless accept_ra is 2. CentOS 7's network script sets it for every interface, by IPV6FORWARDING in /etc/sysconfig/network; not with IPV6_SET_SYSCTLS=no.")
        .sets(&[("net/ipv6/conf/*/forwarding", Effect::Same)]),
    conf6(&["forwarding"], All::Copied)
        .switch()
        .means("Whether the node is a router on this interface.")
        .kernel("An interface that forwards accepts router advertisements only with accept_ra=2."),
    int("net/ipv6/conf/all", &["disable_ipv6"])
        .switch()
        .means("Whether IPv6 is disabled on every interface.")
        .kernel("A write sets it for every interface, and turning it on removes the addresses.")
        .sets(&[("net/ipv6/conf/*/disable_ipv6", Effect::Same)]),
    conf6(&["disable_ipv6"], All::Copied)
        .switch()
        .means("Whether IPv6 is disabled on the interface.")
        .kernel("Turning it on removes the addresses."),
    int("net/ipv6/conf/all", &["ignore_routes_with_linkdown"])
        .switch()
        .sets(&[("net/ipv6/conf/*/ignore_routes_with_linkdown", Effect::Same)]),
    conf6(&["ignore_routes_with_linkdown"], All::Copied).switch(),
    within("net/ipv6/conf/all", &["addr_gen_mode"], (0, 3))
        .sets(&[("net/ipv6/conf/*/addr_gen_mode", Effect::Same)]),
    within("net/ipv6/conf/*", &["addr_gen_mode"], (0, 3))
        .all(All::Copied)
        .default(Default::New)
        .means("How link-local addresses are made: 0 EUI-64, 1 none, 2 stable secret, 3 random."),
    row("net/ipv6/conf/*", &["stable_secret"], Format::Ipv6)
        .default(Default::New)
        .unset(EIO)
        .means("What stable IPv6 addresses are made from (RFC 7217), written as an IPv6 address.")
        .kernel("It cannot be read until it is set. Setting it sets addr_gen_mode to 2; `all` cannot be set."),
    within("net/ipv6/conf/all", &["force_forwarding"], (0, 1))
        .sets(&[("net/ipv6/conf/*/force_forwarding", Effect::Same)]),
    within("net/ipv6/conf/*", &["force_forwarding"], (0, 1))
        .all(All::Copied)
        .default(Default::New),
    conf6(&["accept_ra"], All::Nothing)
        .documented(0, 2)
        .means("Whether router advertisements are accepted: 0 no, 1 if the interface does not forward, 2 always.")
        .kernel("CentOS 7's network script sets it for every interface, by IPV6FORWARDING and IPV6_AUTOCONF; not with IPV6_SET_SYSCTLS=no. systemd-networkd sets it to 0 where it handles router advertisements itself."),
    conf6(&["accept_redirects"], All::Nothing)
        .switch()
        .means("Whether ICMPv6 redirects are accepted.")
        .kernel("Only where the interface does not forward. CentOS 7's network script sets it for every interface, with accept_ra."),
    conf6(&["proxy_ndp"], All::Either)
        .switch()
        .means("Whether the node answers for addresses that `ip neigh add proxy` names. Calico's pods find their IPv6 gateway by it."),
    conf6(
        &["accept_ra_defrtr", "accept_ra_from_local", "accept_ra_pinfo", "accept_ra_rtr_pref", "autoconf"],
        All::Nothing,
    )
    .switch(),
    conf6(
        &[
            "accept_ra_min_hop_limit",
            "accept_ra_min_lft",
            "accept_ra_mtu",
            "accept_ra_rt_info_max_plen",
            "accept_ra_rt_info_min_plen",
            "dad_transmits",
            "max_addresses",
            "max_desync_factor",
            "regen_max_retry",
            "router_solicitations",
            "temp_prefered_lft",
            "temp_valid_lft",
            "use_tempaddr",
        ],
        All::Nothing,
    ),
    within("net/ipv6/conf/*", &["hop_limit"], (1, 255))
        .all(All::Nothing)
        .default(Default::New),
    conf6(&["accept_dad"], All::Greater).documented(0, 2),
    conf6(&["accept_source_route"], All::Lesser),
    conf6(
        &["disable_policy", "force_tllao", "ndisc_notify", "optimistic_dad", "use_oif_addrs_only", "use_optimistic", "enhanced_dad"],
        All::Either,
    )
    .switch(),
    conf6(&["drop_unicast_in_l2_multicast", "drop_unsolicited_na"], All::Apart).switch(),
    conf6(&["mc_forwarding"], All::Apart).access(Access::ReadOnly),
    conf6(
        &[
            "force_mld_version",
            "keep_addr_on_down",
            "regen_min_advance",
            "seg6_enabled",
            "seg6_require_hmac",
            "suppress_frag_ndisc",
        ],
        All::Apart,
    ),
    // Their bounds are not those of an `int`.
    row(
        "net/ipv6/conf/*",
        &[
            "accept_untracked_na",
            "ioam6_enabled",
            "ioam6_id",
            "ioam6_id_wide",
            "mldv1_unsolicited_report_interval",
            "mldv2_unsolicited_report_interval",
            "mtu",
            "ndisc_evict_nocarrier",
            "ndisc_tclass",
            "ra_defrtr_metric",
            "ra_honor_pio_life",
            "ra_honor_pio_pflag",
            "router_probe_interval",
            "router_solicitation_delay",
            "router_solicitation_interval",
            "router_solicitation_max_interval",
            "rpl_seg_enabled",
        ],
        Format::Unknown,
    )
    .default(Default::New),
    row("net/ipv6/conf/*", &["*"], Format::Unknown)
        .default(Default::New)
        .means("A setting of an interface for IPv6.")
        .kernel("New interfaces begin with the value of `default`."),
    within(NEIGH6, &["app_solicit", "mcast_resolicit", "mcast_solicit", "proxy_qlen", "ucast_solicit", "unres_qlen_bytes"], (0, INT.1))
        .default(Default::Copied),
    time(NEIGH6, &["anycast_delay", "locktime", "proxy_delay"], 100).default(Default::Copied),
    row(NEIGH6, &["retrans_time"], Format::Unknown)
        .default(Default::Copied)
        .twin("retrans_time_ms", Effect::Ticks),
    time(NEIGH6, &["retrans_time_ms"], 1000)
        .default(Default::Copied)
        .twin("retrans_time", Effect::Ticks),
    time(NEIGH6, &["base_reachable_time"], 1)
        .default(Default::Copied)
        .twin("base_reachable_time_ms", Effect::Times(1000)),
    time(NEIGH6, &["base_reachable_time_ms"], 1000)
        .default(Default::Copied)
        .twin("base_reachable_time", Effect::Part(1000)),
    time(NEIGH6, &["interval_probe_time_ms"], 1000).default(Default::Copied),
    time(NEIGH6, &["delay_first_probe_time", "gc_stale_time"], 1).default(Default::Copied),
    int("net/ipv6/neigh/default", &["gc_thresh1", "gc_thresh2", "gc_thresh3"]).kernel(TABLE),
    time("net/ipv6/neigh/default", &["gc_interval"], 1).kernel(TABLE),
    row(NEIGH6, &["unres_qlen"], Format::Unknown).default(Default::Copied),
    row(NEIGH6, &["*"], Format::Unknown).default(Default::Copied),
    within("net/ipv6", &["bindv6only", "ip_nonlocal_bind"], (0, 255)).switch(),
    row("net/ipv6/route", &["flush"], Format::Unknown)
        .access(Access::WriteOnly)
        .means("A write flushes cached routes."),
    int("net/ipv6/route", &["max_size"]).obsolete(Obsolete::NoEffect("6.3")),
    // Bridges and connection tracking.
    row(BRIDGE, &["bridge-nf-call-iptables"], Format::Switch)
        .switch()
        .module("br_netfilter")
        .means("Whether packets that a bridge passes between its ports go through iptables. A network plugin that connects pods to a bridge needs 1: without it the answer of a pod on the same bridge bypasses the address translation of services, and is dropped.")
        .kernel("Exists only while br_netfilter is loaded, and begins with 1; /usr/lib/sysctl.d/00-system.conf of RHEL 7 sets it to 0, which a restart of the network applies again."),
    row(BRIDGE, &["bridge-nf-call-ip6tables"], Format::Switch)
        .switch()
        .module("br_netfilter")
        .means("As bridge-nf-call-iptables, for ip6tables.")
        .kernel("Exists only while br_netfilter is loaded, and begins with 1."),
    row(BRIDGE, &["bridge-nf-call-arptables"], Format::Switch)
        .switch()
        .module("br_netfilter")
        .means("As bridge-nf-call-iptables, for arptables.")
        .kernel("Exists only while br_netfilter is loaded, and begins with 1."),
    row(
        BRIDGE,
        &["bridge-nf-filter-pppoe-tagged", "bridge-nf-filter-vlan-tagged", "bridge-nf-pass-vlan-input-dev"],
        Format::Switch,
    )
    .switch()
    .module("br_netfilter"),
    row(BRIDGE, &["*"], Format::Unknown)
        .module("br_netfilter")
        .means("A setting of bridges with netfilter.")
        .kernel("Exists only while br_netfilter is loaded."),
    within("net/netfilter", &["nf_conntrack_max"], (0, INT.1))
        .module("nf_conntrack")
        .alias("net/nf_conntrack_max")
        .means("The most connections that are tracked. When the table is full packets of new ones are dropped, and the kernel logs \"table full\".")
        .kernel("The same integer as net.nf_conntrack_max. kube-proxy sets it when it starts, to 32768 for each core and 131072 at least."),
    row("net/netfilter", &["nf_conntrack_count"], Format::Unknown)
        .module("nf_conntrack")
        .access(Access::ReadOnly)
        .means("The connections that are tracked now."),
    within(
        "net/netfilter",
        &["nf_conntrack_acct", "nf_conntrack_checksum", "nf_conntrack_timestamp", "nf_conntrack_tcp_be_liberal", "nf_conntrack_tcp_loose"],
        (0, 1),
    )
    .module("nf_conntrack"),
    time(
        "net/netfilter",
        &[
            "nf_conntrack_generic_timeout",
            "nf_conntrack_icmp_timeout",
            "nf_conntrack_tcp_timeout_close",
            "nf_conntrack_tcp_timeout_close_wait",
            "nf_conntrack_tcp_timeout_established",
            "nf_conntrack_tcp_timeout_fin_wait",
            "nf_conntrack_tcp_timeout_last_ack",
            "nf_conntrack_tcp_timeout_syn_recv",
            "nf_conntrack_tcp_timeout_syn_sent",
            "nf_conntrack_tcp_timeout_time_wait",
            "nf_conntrack_udp_timeout",
            "nf_conntrack_udp_timeout_stream",
        ],
        1,
    )
    .module("nf_conntrack"),
    removed("net/netfilter", &["nf_conntrack_helper"], "6.0").module("nf_conntrack"),
    row("net/netfilter", &["*"], Format::Unknown)
        .module("nf_conntrack")
        .means("A setting of connection tracking."),
    // Memory and the kernel.
    within("vm", &["overcommit_memory"], (0, 2))
        .documented(0, 2)
        .means("Memory overcommit: 0 heuristic, 1 always, 2 never.")
        .kernel("The kubelet sets 1, and with protectKernelDefaults refuses to start without it."),
    within("vm", &["panic_on_oom"], (0, 2))
        .documented(0, 2)
        .means("Whether running out of memory panics the node instead of killing a process.")
        .kernel("The kubelet sets 0, and with protectKernelDefaults refuses to start without it."),
    within("vm", &["swappiness"], (0, 200)),
    within("vm", &["max_map_count"], (0, INT.1)),
    int("vm", &["compact_memory"])
        .access(Access::WriteOnly)
        .means("A write compacts the memory."),
    removed("vm", &["hugepages_treat_as_movable"], "4.14"),
    removed("vm", &["percpu_pagelist_fraction"], "5.14"),
    removed("vm", &["nr_pdflush_threads"], "5.18"),
    int("kernel", &["panic"])
        .means("Seconds after which a node that has panicked reboots; 0 never.")
        .kernel("The kubelet sets 10, and with protectKernelDefaults refuses to start without it."),
    int("kernel", &["panic_on_oops"])
        .switch()
        .means("Whether a kernel oops panics the node.")
        .kernel("The kubelet sets 1, and with protectKernelDefaults refuses to start without it."),
    int("kernel/keys", &["root_maxkeys"])
        .means("The most keys that root may have; each container takes one.")
        .kernel("The kubelet sets 1000000."),
    int("kernel/keys", &["root_maxbytes"])
        .means("The most bytes in root's keys.")
        .kernel("The kubelet sets 25000000, 25 for each key."),
    fields("kernel", &["printk", "sem"], 4, INT),
    within("kernel", &["shmmax", "shmall"], ULONG),
    int("kernel", &["pid_max", "threads-max", "msgmax", "msgmnb", "msgmni", "shmmni", "sysrq"]),
    row("kernel", &["osrelease", "ostype", "version"], Format::Unknown).access(Access::ReadOnly),
    removed(
        "kernel",
        &[
            "sched_latency_ns",
            "sched_migration_cost_ns",
            "sched_min_granularity_ns",
            "sched_nr_migrate",
            "sched_tunable_scaling",
            "sched_wakeup_granularity_ns",
        ],
        "5.13",
    )
    .kernel("These settings of the scheduler are in /sys/kernel/debug/sched since Linux 5.13."),
    within("fs", &["file-max", "nr_open"], ULONG),
    row("fs", &["file-nr", "inode-nr", "inode-state", "dentry-state"], Format::Unknown)
        .access(Access::ReadOnly),
];
