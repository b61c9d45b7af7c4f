//! The demo's output: plain ASCII, 80 columns, printed as it happens.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use netguard_lab::{Figures, GATEWAY, POD, POD_LINK, UPLINK};

use super::configuration::{DemoConfiguration, OWN};
use super::record::Record;
use crate::clock::realtime_usec;
use crate::model::Source;
use crate::words::Span;

const NEXT: &str = "
To guard this machine: put those lines into /etc/netguard/netguard.toml, check
them with `netguard validate`, then start `netguard run`, or, where the package
is installed, `systemctl enable --now netguard`.
";

const NEXT_WITH_FILE: &str = "
To guard this machine with that file: copy it to /etc/netguard/netguard.toml,
then start `netguard run`, or, where the package is installed,
`systemctl enable --now netguard`.
";

/// Where the account goes, and the moment from which its times count.
pub struct Account<W> {
    out: W,
    wanted: DemoConfiguration,
    started: Instant,
    last: Instant,
    script: Option<u32>,
}

impl<W: Write> Account<W> {
    /// An account that nothing stands in yet.
    pub fn new(out: W, wanted: DemoConfiguration) -> Self {
        let now = Instant::now();
        Account {
            out,
            wanted,
            started: now,
            last: now,
            script: None,
        }
    }

    /// The introduction.
    pub fn introduce(&mut self) -> io::Result<()> {
        write!(
            self.out,
            "\
A network restart as CentOS 7 does it, on this machine's kernel, in network
namespaces of its own: nothing outside them is changed.

    pod {POD} --- {POD_LINK} [node] {UPLINK} --- {GATEWAY} outside

The pod sends 1,000 numbered UDP packets a second to the outside host, which
counts what arrives. The node forwards them while net.ipv4.ip_forward is 1, and
answers by the pod's route and ARP entry.
"
        )
    }

    /// Opens the act with or without the guard.
    pub fn act(&mut self, guarded: bool) -> io::Result<()> {
        if !guarded {
            return writeln!(self.out, "\nWithout netguard");
        }
        if let Some(file) = self.wanted.file() {
            return writeln!(self.out, "\nWith netguard and {}", file.display());
        }
        writeln!(self.out, "\nWith netguard and this configuration\n")?;
        for line in OWN.lines() {
            let blanks = if line.is_empty() { "" } else { "    " };
            writeln!(self.out, "{blanks}{line}")?;
        }
        writeln!(self.out)
    }

    /// The flow has started: times count from here.
    pub fn begin(&mut self, started: Instant, guard: Option<u32>) -> io::Result<()> {
        (self.started, self.last) = (started, started);
        self.event(started, "the flow starts; net.ipv4.ip_forward is 1")?;
        match guard {
            Some(pid) => self.detail(&format!("`netguard run` has started, pid {pid}")),
            None => Ok(()),
        }
    }

    /// Something happened at this moment.
    pub fn event(&mut self, at: Instant, what: &str) -> io::Result<()> {
        // Two children's lines may have been read in another order than written.
        self.last = self.last.max(at);
        let since = self.last.saturating_duration_since(self.started);
        let since = since.as_secs_f64();
        writeln!(self.out, "{since:8.3} s  {what}")
    }

    /// The network restart begins, played by this process.
    pub fn restart(&mut self, at: Instant, pid: u32) -> io::Result<()> {
        self.script = Some(pid);
        self.event(at, &format!("network restart begins, pid {pid}"))
    }

    /// A line that belongs to the event before it.
    fn detail(&mut self, what: &str) -> io::Result<()> {
        writeln!(self.out, "            {what}")
    }

    /// A record of the guard's about a value.
    pub fn record(&mut self, at: Instant, record: &Record) -> io::Result<()> {
        let field = |name| record.field(name).unwrap_or_else(|| "?".to_owned());
        if !record.is("drift-restored") {
            return self.event(at, &format!("netguard: {}", field("MESSAGE")));
        }
        if field("NETGUARD_KIND") != "sysctl" {
            return self.restored(at, record);
        }
        let (key, found, ours) = (field("NETGUARD_KEY"), field("NEWVALUE"), field("OURVALUE"));
        let took = span(record);
        self.event(
            at,
            &format!("netguard: {key} was {found}, restored to {ours} in {took}"),
        )?;
        let mut detail = detected(record);
        if let Some(pid) = record.field("OBJECT_PID") {
            detail.push_str(&format!("; written by pid {pid}"));
            if self.script.is_some_and(|script| script.to_string() == pid) {
                detail.push_str(", the network restart");
            }
        }
        self.detail(&detail)
    }

    /// A route or whatever it is was restored.
    fn restored(&mut self, at: Instant, record: &Record) -> io::Result<()> {
        let field = |name| record.field(name).unwrap_or_else(|| "?".to_owned());
        self.event(at, &format!("netguard: {} restored", field("NETGUARD_KEY")))?;
        // The guard waits to see whether it was one of many before it reports it.
        let when = record.field("NETGUARD_TIME_USEC");
        let ago = when.and_then(|it| realtime_usec().checked_sub(it.parse().ok()?));
        let at = ago.map_or_else(String::new, |ago| {
            let at = Instant::now().checked_sub(Duration::from_micros(ago));
            let since = at
                .unwrap_or(self.started)
                .saturating_duration_since(self.started);
            format!(", until {:.3} s", since.as_secs_f64())
        });
        let detail = format!(
            "was {} for {}{at}; {}",
            field("NEWVALUE"),
            span(record),
            detected(record)
        );
        self.detail(&detail)
    }

    /// What there is of the pod.
    pub fn pod(&mut self, (route, neighbour): (bool, bool)) -> io::Result<()> {
        let word = |is_there| if is_there { "there" } else { "gone" };
        let (route, neighbour) = (word(route), word(neighbour));
        self.detail(&format!(
            "the pod's route is {route}, its ARP entry is {neighbour}"
        ))
    }

    /// What became of the flow.
    pub fn figures(&mut self, at: Instant, figures: &Figures) -> io::Result<()> {
        self.event(
            at,
            &format!(
                "the flow ends: {} packets sent, {} lost",
                grouped(figures.sent),
                grouped(figures.lost)
            ),
        )?;
        self.detail(&format!(
            "{} lost during the restart, {} of {} after it",
            grouped(figures.lost_during),
            grouped(figures.lost_after),
            grouped(figures.sent_after)
        ))
    }

    /// What it means, and what to do next.
    pub fn conclude(&mut self, without: &Figures, with: &Figures) -> io::Result<()> {
        self.out.write_all(b"\n")?;
        self.out.write_all(meaning(without, with).as_bytes())?;
        if with.cut_off() {
            return Ok(());
        }
        let next = match self.wanted {
            DemoConfiguration::Own => NEXT,
            DemoConfiguration::File(..) => NEXT_WITH_FILE,
        };
        self.out.write_all(next.as_bytes())
    }
}

/// How long a restore took.
fn span(record: &Record) -> String {
    let usec = record.field("NETGUARD_RESTORE_USEC");
    let usec = usec.and_then(|it| it.parse().ok());
    let span = usec.map(|it| Span(Duration::from_micros(it)).to_string());
    span.unwrap_or_else(|| "an unknown time".to_owned())
}

/// How a drift was detected, as MESSAGE has it.
fn detected(record: &Record) -> String {
    match record.field("NETGUARD_SOURCE").as_deref() {
        Some(source) if source == Source::Start.as_str() => "found at startup".to_owned(),
        source => format!("detected by {}", source.unwrap_or("?")),
    }
}

fn meaning(without: &Figures, with: &Figures) -> &'static str {
    if with.cut_off() {
        "\
The pod stayed cut off with netguard too: the configuration does not guard what
the restart had changed, or that is a fault in netguard.
"
    } else if !without.cut_off() {
        "\
Without netguard some packets came through after the restart had written 0:
this kernel, or something else on this machine, behaves unexpectedly.
"
    } else if with.lost_after > 0 {
        "\
Without netguard the restart cut the pod off permanently. With netguard the pod
was reachable again, but lost some packets after the restart: is this machine
very busy?
"
    } else {
        "\
Without netguard the restart cut the pod off permanently: no packet arrived
afterwards. With netguard no packet was lost after the restart. The packets lost
during the restart are due to the restart itself: eth0 was down.
"
    }
}

/// The number with a comma between thousands.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(lost_after: usize) -> Figures {
        Figures {
            sent: 3000,
            lost: 400 + lost_after,
            lost_during: 400,
            sent_after: 2000,
            lost_after,
        }
    }

    #[test]
    fn numbers_are_grouped() {
        let cases = [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1234567, "1,234,567"),
        ];
        for (number, text) in cases {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn the_account_is_ascii_and_fits_80_columns() -> io::Result<()> {
        let mut out = Vec::new();
        let mut account = Account::new(&mut out, DemoConfiguration::Own);
        account.introduce()?;
        account.act(true)?;
        let start = Instant::now();
        account.begin(start, Some(4_194_304))?;
        let record = r#"{"NETGUARD_EVENT":"drift-restored","NETGUARD_KEY":"net.ipv4.ip_forward",
            "NETGUARD_KIND":"sysctl","NEWVALUE":"0","OURVALUE":"1","NETGUARD_SOURCE":"fanotify",
            "NETGUARD_RESTORE_USEC":"123456","OBJECT_PID":"4194303"}"#;
        let at = start + Duration::from_micros(1_234_567);
        account.restart(at, 4_194_303)?;
        account.record(at, &Record::parse(record).expect("a record"))?;
        let record = r#"{"NETGUARD_EVENT":"drift-restored",
            "NETGUARD_KEY":"neighbour/cali5f1d8a2c3b4/10.65.0.2","NETGUARD_KIND":"neighbour",
            "NEWVALUE":"absent","NETGUARD_SOURCE":"rtnetlink","NETGUARD_RESTORE_USEC":"123456"}"#;
        account.record(at, &Record::parse(record).expect("a record"))?;
        account.pod((true, false))?;
        account.figures(at, &figures(0))?;
        for (lost_without, lost_with) in [(2000, 0), (2000, 1), (5, 0), (2000, 2000)] {
            account.conclude(&figures(lost_without), &figures(lost_with))?;
        }
        let text = String::from_utf8(out).expect("UTF-8");
        for line in text.lines() {
            assert!(line.is_ascii() && line.len() <= 80, "{line}");
        }
        let expected = "
   1.235 s  network restart begins, pid 4194303
   1.235 s  netguard: net.ipv4.ip_forward was 0, restored to 1 in 123.4 ms
            detected by fanotify; written by pid 4194303, the network restart
   1.235 s  netguard: neighbour/cali5f1d8a2c3b4/10.65.0.2 restored
            was absent for 123.4 ms; detected by rtnetlink
            the pod's route is there, its ARP entry is gone
   1.235 s  the flow ends: 3,000 packets sent, 400 lost
            400 lost during the restart, 0 of 2,000 after it
";
        assert!(text.contains(expected), "{text}");
        Ok(())
    }
}
