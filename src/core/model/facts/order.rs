//! The kernel's order: what must be written before what, and what a write
//! changes besides.

use std::sync::LazyLock;

use super::{Default, FACTS, Fact, target};
use crate::model::{Family, Selector, SysctlKey, Target, Value};

/// The place of a key in the order of restores, first to last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rank {
    /// IPv6 `accept_ra`: with 2 an interface keeps the routes that it learnt when
    /// forwarding is turned on.
    Keeper,
    /// Keys whose change sets others, such as `ip_forward`.
    Forwarding,
    /// `conf.all.*`
    All,
    /// `conf.default.*`
    Default,
    /// `conf.INTERFACE.*`
    Interface,
    /// What a change of forwarding sets to the opposite: `all.accept_redirects`.
    Reset,
    /// Keys that depend on none of these.
    Other,
}

/// How a change of one key changes another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It gets the same value.
    Same,
    /// It gets 0 for a value other than 0, and 1 for 0.
    Opposite,
    /// It shows the value in milliseconds, of which there are so many in one of its units.
    Times(u16),
    /// It shows the value, which is in milliseconds, in a unit of so many.
    Part(u16),
    /// It shows the value in ticks, or the other way round: how many there are in a second
    /// depends on how the kernel was built.
    Ticks,
}

impl Effect {
    /// Whether both show the same value, in units of their own.
    pub fn is_of_unit(self) -> bool {
        matches!(self, Effect::Times(_) | Effect::Part(_) | Effect::Ticks)
    }

    /// What the other key is when the one is `value`, where that is known: what becomes of
    /// a time between ticks depends on how many there are.
    pub fn of(self, value: &Value) -> Option<Value> {
        // At 100, 250, 300 and 1000 ticks a second.
        let is_whole = |milliseconds: &i128| milliseconds % 20 == 0;
        let number = || match value.integers()?[..] {
            [n] => Some(n),
            _ => None,
        };
        match self {
            Effect::Same => Some(value.clone()),
            Effect::Opposite => Some(Value::from(i128::from(*value == Value::new("0")))),
            Effect::Times(units) => {
                let whole = Some(number()? * i128::from(units)).filter(is_whole)?;
                Some(Value::from(whole))
            }
            Effect::Part(units) => {
                let units = i128::from(units);
                let whole = number().filter(|n| n % units == 0 && is_whole(n))?;
                Some(Value::from(whole / units))
            }
            Effect::Ticks => None,
        }
    }
}

/// Where forwarding for all interfaces is kept, in the order of [`Family`].
const SWITCHES: [&str; 2] = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"];

/// The place of `key` in the order of restores.
pub fn rank(key: &SysctlKey) -> Rank {
    if SWITCHES.contains(&key.path()) {
        return Rank::Forwarding;
    }
    match key.interface_key() {
        Some((_, _, "accept_ra")) => Rank::Keeper,
        Some((_, Target::All, "accept_redirects")) => Rank::Reset,
        Some((_, Target::All, _)) => Rank::All,
        Some((_, Target::Default, _)) => Rank::Default,
        Some((_, Target::Interface(_), _)) => Rank::Interface,
        None => Rank::Other,
    }
}

/// A key whose change sets others, and which.
struct Source {
    key: SysctlKey,
    sets: Vec<(Selector, Effect)>,
}

impl Source {
    fn effect(&self, key: &SysctlKey) -> Option<Effect> {
        // `all` is no interface: a pattern for the interfaces does not mean it.
        let means = |selector: &Selector| match selector {
            Selector::Key(other) => other == key,
            other => other.matches(key) && target(key) != Some(Target::All),
        };
        let (_, effect) = self.sets.iter().find(|(selector, _)| means(selector))?;
        Some(*effect)
    }
}

/// The keys whose change sets others, as the table has them.
fn sources() -> &'static [Source] {
    static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(|| {
        let mut sources = Vec::new();
        for fact in FACTS.iter().filter(|fact| !fact.sets.is_empty()) {
            for name in fact.names {
                let sets = fact.sets.iter();
                sources.extend(SysctlKey::parse(&fact.path(name)).map(|key| {
                    Source {
                        key,
                        sets: sets
                            .filter_map(|(path, effect)| {
                                Some((Selector::parse(path).ok()?, *effect))
                            })
                            .collect(),
                    }
                }));
            }
        }
        sources
    });
    &SOURCES
}

/// How a change of `cause` changes `key` because the kernel writes it too.
/// What follows from `default` is not included: see [`resets`].
pub fn effect(cause: &SysctlKey, key: &SysctlKey) -> Option<Effect> {
    let source = sources().iter().find(|it| it.key == *cause);
    let is_twin = |name: &str| {
        let folder = cause.path().strip_suffix(cause.name());
        key.name() == name && key.path().strip_suffix(name) == folder
    };
    match source {
        Some(source) => source.effect(key),
        None => {
            let (name, effect) = Fact::of_key(cause)?.twin?;
            is_twin(name).then_some(effect)
        }
    }
}

/// The key of the same interface that shows the same value in another unit.
pub fn twin(key: &SysctlKey) -> Option<SysctlKey> {
    let (name, _) = Fact::of_key(key)?.twin?;
    let folder = key.path().strip_suffix(key.name())?;
    SysctlKey::parse(&format!("{folder}{name}")).ok()
}

/// How a change of `cause` changes keys that `guarded` means.
pub fn effect_on(cause: &SysctlKey, guarded: &Selector) -> Option<Effect> {
    match guarded {
        Selector::Key(key) => effect(cause, key),
        _ => match sources().iter().find(|it| it.key == *cause) {
            Some(source) => {
                let met = source.sets.iter().find(|(set, _)| set.meets(guarded));
                met.map(|(_, effect)| *effect)
            }
            None => effect(cause, &twin(cause).filter(|it| guarded.means(it))?),
        },
    }
}

/// The key whose change the kernel reports first, or only, by its effect on
/// `key`, and that must be right before `key` is written.
///
/// IPv6 reports every interface before it reports `all` (measured on 3.10): an
/// interface's forwarding restored first would be lost again.
pub fn governor(key: &SysctlKey) -> Option<SysctlKey> {
    let (family, ..) = key.interface_key()?;
    let switch = SWITCHES[family as usize];
    let source = sources().iter().find(|it| it.key.path() == switch)?;
    source.effect(key).map(|_| source.key.clone())
}

/// Whether a change of `cause` may change `key`.
pub fn resets(cause: &SysctlKey, key: &SysctlKey) -> bool {
    effect(cause, key).is_some()
        || target(cause) == Some(Target::Default)
            && follows_default(key).is_some_and(|it| it == *cause)
}

/// The keys of which a change may change `key`, in the order of how far they
/// reach.
pub fn causes(key: &SysctlKey) -> Vec<SysctlKey> {
    let sources = sources().iter().filter(|it| it.effect(key).is_some());
    let all = sources.map(|it| it.key.clone());
    all.chain(twin(key)).chain(follows_default(key)).collect()
}

/// The key of `default` whose change is copied to `key`.
fn follows_default(key: &SysctlKey) -> Option<SysctlKey> {
    match target(key)? {
        Target::Interface(_) if is_copied(key) => key.with_target("default"),
        _ => None,
    }
}

/// Whether a change of `default` is copied to the interfaces that exist.
fn is_copied(key: &SysctlKey) -> bool {
    Fact::of_key(key).is_some_and(|fact| fact.default == Default::Copied)
}

/// Whether the kernel may show, for a moment, a value that is not in force.
///
/// A write of IPv4 forwarding sets the new value, and if the lock on all network
/// settings is not free, sets the old one again and restarts the syscall
/// (`devinet_sysctl_forward` in net/ipv4/devinet.c); IPv6 does not.
pub fn flickers(key: &SysctlKey) -> bool {
    Fact::of_key(key).is_some_and(|fact| fact.flickers)
}

/// Whether a write of `key` takes the kernel's lock on all network settings, which
/// it tries again and again to get (`rtnl_trylock` in net/ipv4/devinet.c and
/// net/ipv6/addrconf.c).
pub fn takes_rtnl(key: &SysctlKey) -> bool {
    const IPV6: [&str; 8] = [
        "addr_gen_mode",
        "disable_ipv6",
        "disable_policy",
        "force_forwarding",
        "forwarding",
        "ignore_routes_with_linkdown",
        "proxy_ndp",
        "stable_secret",
    ];
    match key.interface_key() {
        Some((Family::Ipv4, _, name)) => name == "forwarding",
        Some((Family::Ipv6, _, name)) => IPV6.contains(&name),
        None => SWITCHES.contains(&key.path()),
    }
}

/// Whether a change of `key` may change others.
pub fn resets_others(key: &SysctlKey) -> bool {
    let fact = Fact::of_key(key);
    let has_twin = fact.is_some_and(|fact| fact.twin.is_some());
    match target(key) {
        Some(Target::Interface(_)) => has_twin,
        Some(Target::Default) => has_twin || is_copied(key),
        Some(Target::All) | None => fact.is_some_and(|fact| !fact.sets.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> SysctlKey {
        SysctlKey::parse(text).expect(text).canonical()
    }

    #[test]
    fn the_order_is_the_kernels() {
        let mut keys = [
            "net.ipv4.conf.all.accept_redirects",
            "kernel.panic",
            "net.ipv4.conf.cali1.rp_filter",
            "net.ipv4.conf.default.rp_filter",
            "net.ipv4.conf.all.rp_filter",
            "net.ipv6.conf.all.forwarding",
            "net.ipv4.ip_forward",
            "net.ipv6.conf.eth0.accept_ra",
        ]
        .map(key);
        keys.sort_by_key(|key| (rank(key), key.clone()));
        assert_eq!(
            keys.map(|key| key.to_string()),
            [
                "net.ipv6.conf.eth0.accept_ra",
                "net.ipv4.ip_forward",
                "net.ipv6.conf.all.forwarding",
                "net.ipv4.conf.all.rp_filter",
                "net.ipv4.conf.default.rp_filter",
                "net.ipv4.conf.cali1.rp_filter",
                "net.ipv4.conf.all.accept_redirects",
                "kernel.panic",
            ]
        );
    }

    #[test]
    fn a_time_is_shown_in_two_units() {
        for (cause, changed, value, expected) in [
            (
                "ipv4.neigh.x.retrans_time",
                "ipv4.neigh.x.retrans_time_ms",
                "4",
                Some("40"),
            ),
            (
                "ipv4.neigh.x.retrans_time",
                "ipv4.neigh.x.retrans_time_ms",
                "3",
                None,
            ),
            (
                "ipv4.neigh.x.retrans_time_ms",
                "ipv4.neigh.x.retrans_time",
                "40",
                Some("4"),
            ),
            (
                "ipv4.neigh.x.retrans_time_ms",
                "ipv4.neigh.x.retrans_time",
                "41",
                None,
            ),
            (
                "ipv6.neigh.x.retrans_time_ms",
                "ipv6.neigh.x.retrans_time",
                "30",
                None,
            ),
            (
                "ipv6.neigh.default.base_reachable_time",
                "ipv6.neigh.default.base_reachable_time_ms",
                "3",
                Some("3000"),
            ),
        ] {
            let [cause, changed] = [cause, changed].map(|it| key(&format!("net.{it}")));
            let effect = effect(&cause, &changed).expect("an effect");
            let made = effect.of(&Value::new(value));
            assert_eq!(made, expected.map(Value::new), "{cause} {value}");
            assert_eq!(twin(&cause), Some(changed));
        }
    }

    #[test]
    fn forwarding_of_ipv4_flickers() {
        for (text, expected) in [
            ("net.ipv4.ip_forward", true),
            ("net.ipv4.conf.cali1.forwarding", true),
            ("net.ipv6.conf.all.forwarding", false),
            ("net.ipv4.conf.all.rp_filter", false),
            ("kernel.panic", false),
        ] {
            assert_eq!(flickers(&key(text)), expected, "{text}");
        }
    }

    #[test]
    fn forwarding_governs_and_resets_its_own_family() {
        for (cause, changed, expected) in [
            (
                "net.ipv4.ip_forward",
                "net.ipv4.conf.cali1.forwarding",
                true,
            ),
            (
                "net.ipv4.ip_forward",
                "net.ipv4.conf.default.forwarding",
                true,
            ),
            (
                "net.ipv4.ip_forward",
                "net.ipv4.conf.all.accept_redirects",
                true,
            ),
            (
                "net.ipv4.ip_forward",
                "net.ipv4.conf.eth0.accept_redirects",
                false,
            ),
            (
                "net.ipv4.ip_forward",
                "net.ipv6.conf.eth0.forwarding",
                false,
            ),
            (
                "net.ipv6.conf.all.forwarding",
                "net.ipv6.conf.eth0.forwarding",
                true,
            ),
            (
                "net.ipv6.conf.all.forwarding",
                "net.ipv6.conf.eth0.accept_ra",
                false,
            ),
            (
                "net.ipv4.conf.default.rp_filter",
                "net.ipv4.conf.eth0.rp_filter",
                true,
            ),
            (
                "net.ipv4.conf.default.rp_filter",
                "net.ipv4.conf.all.rp_filter",
                false,
            ),
            (
                "net.ipv6.conf.all.disable_ipv6",
                "net.ipv6.conf.eth0.disable_ipv6",
                true,
            ),
            (
                "net.ipv4.conf.eth0.rp_filter",
                "net.ipv4.conf.eth1.rp_filter",
                false,
            ),
            (
                "net.ipv4.neigh.eth0.retrans_time",
                "net.ipv4.neigh.eth0.retrans_time_ms",
                true,
            ),
            (
                "net.ipv4.neigh.eth0.retrans_time",
                "net.ipv4.neigh.eth1.retrans_time_ms",
                false,
            ),
        ] {
            assert_eq!(
                resets(&key(cause), &key(changed)),
                expected,
                "{cause} {changed}"
            );
            assert!(!expected || resets_others(&key(cause)), "{cause}");
            let causes = causes(&key(changed));
            assert_eq!(causes.contains(&key(cause)), expected, "{cause} {changed}");
        }
    }
}
