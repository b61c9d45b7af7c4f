//! The plot: for each contender, how many of its tries were over by when.

use std::fmt::Write as _;
use std::time::Duration;

use super::bars::span;
use crate::conditions::Series;
use crate::contenders::Contender;
use crate::statistics::{Summary, sorted};

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 286.0;
const TOP: f64 = 46.0;
const BOTTOM: f64 = 56.0;
/// Powers of ten of microseconds at both ends of the axis: 1 us to 10 s.
const DECADES: (f64, f64) = (0.0, 7.0);

/// The latencies of the idle node; nothing where they were not measured.
pub fn plot(series: &[Series]) -> Option<String> {
    let lines: Vec<&Series> = series
        .iter()
        .filter(|series| series.condition == "idle" && !series.tries.latencies.is_empty())
        .collect();
    if lines.is_empty() {
        return None;
    }
    let mut svg = String::new();
    // Writing to a String does not fail.
    let _ = frame(&mut svg);
    let mut label = TOP + 12.0;
    for series in lines {
        let _ = line(&mut svg, series);
        let _ = legend(&mut svg, series, label);
        label += 40.0;
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

/// The colours of Okabe and Ito, which colour-blind people distinguish.
fn colour(contender: Contender) -> &'static str {
    match contender {
        Contender::Floor => "#999999",
        Contender::Netguard => "#0072b2",
        Contender::NetguardProfiles => "#56b4e9",
        Contender::Previous => "#0072b280",
        Contender::PreviousProfiles => "#56b4e980",
        Contender::InotifyMonitor => "#009e73",
        Contender::InotifyOnce => "#e69f00",
        Contender::Loop => "#d55e00",
        Contender::Monit => "#cc79a7",
        Contender::Tuned | Contender::IpMonitor | Contender::Keepalived => "#000000",
    }
}

fn x(latency: Duration) -> f64 {
    let decade = (latency.as_secs_f64() * 1e6).max(1.0).log10();
    let share = (decade.min(DECADES.1) - DECADES.0) / (DECADES.1 - DECADES.0);
    LEFT + share * (WIDTH - LEFT - RIGHT)
}

fn y(share: f64) -> f64 {
    HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)
}

fn frame(svg: &mut String) -> std::fmt::Result {
    writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"Helvetica, Arial, 'DejaVu Sans', sans-serif\" font-size=\"12\" fill=\"#333\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"15\" font-weight=\"bold\">How long net.ipv4.ip_forward stays 0 after a write of 0</text>"
    )?;
    for percent in [0, 25, 50, 75, 100] {
        let at = y(f64::from(percent) / 100.0);
        writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{percent} %</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            at + 4.0
        )?;
    }
    let names = [
        "1 us", "10 us", "100 us", "1 ms", "10 ms", "100 ms", "1 s", "10 s",
    ];
    for (decade, name) in names.iter().enumerate() {
        let at = x(Duration::from_micros(10_u64.pow(decade as u32)));
        writeln!(
            svg,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{name}</text>",
            HEIGHT - BOTTOM,
            HEIGHT - BOTTOM + 18.0
        )?;
    }
    writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">time until it is 1 again; share of tries that are over by then</text>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 14.0
    )
}

/// A step for each try; tries never restored leave the line short of 100 %.
fn line(svg: &mut String, series: &Series) -> std::fmt::Result {
    let latencies = sorted(&series.tries.latencies);
    let all = (latencies.len() + series.tries.missed) as f64;
    write!(
        svg,
        "<path fill=\"none\" stroke=\"{}\" stroke-width=\"2\" d=\"",
        colour(series.contender)
    )?;
    let mut last = None;
    for (number, latency) in latencies.iter().enumerate() {
        let (at, share) = (x(*latency), (number + 1) as f64 / all);
        match last {
            None => write!(svg, "M{at:.1} {:.1}", y(0.0))?,
            // What would fall on the same pixel is left out.
            Some(before) if at - before < 0.4 && number + 1 < latencies.len() => continue,
            Some(_) => {}
        }
        write!(svg, "L{at:.1} {:.1}", y(share))?;
        last = Some(at);
    }
    writeln!(svg, "\"/>")
}

fn legend(svg: &mut String, series: &Series, at: f64) -> std::fmt::Result {
    let left = WIDTH - RIGHT + 16.0;
    let summary = Summary::of(&series.tries.latencies);
    let never = match series.tries.missed {
        0 => String::new(),
        missed => format!(", {missed} never"),
    };
    writeln!(
        svg,
        "<rect x=\"{left}\" y=\"{:.1}\" width=\"14\" height=\"4\" fill=\"{}\"/>\
         <text x=\"{}\" y=\"{at:.1}\">{}</text>\
         <text x=\"{}\" y=\"{:.1}\" font-size=\"11\" fill=\"#777\">median {}, p99 {}, n {}{never}</text>",
        at - 6.0,
        colour(series.contender),
        left + 20.0,
        series.contender.title(),
        left + 20.0,
        at + 15.0,
        span(summary.median),
        span(summary.p99),
        summary.count
    )
}
