//! The packages as files: what CentOS 7's rpm can read, what EL8 and EL9 accept.
//! (`tests/system` installs them.)

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

const VERSION: &str = env!("CARGO_PKG_VERSION");
const MIB: u64 = 1024 * 1024;

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Past the harness's capture, for people to see.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// A built package. `None` where there is none, which is said; in CI that is a
/// failure.
fn package(name: &str) -> Option<PathBuf> {
    let path = source("target/packaging").join(name);
    if path.is_file() {
        return Some(path);
    }
    let message = format!("no {}; run tests/run --packages", path.display());
    assert!(env::var_os("CI").is_none(), "{message}");
    say(&format!("CANNOT RUN HERE: {message}"));
    None
}

fn rpm() -> Option<PathBuf> {
    package(&format!("netguard-{VERSION}-1.el7.x86_64.rpm"))
}

fn deb() -> Option<PathBuf> {
    package(&format!("netguard_{VERSION}-1_amd64.deb"))
}

/// What a program prints of a package; it must succeed.
fn ask(program: &str, arguments: &[&str], package: &Path) -> String {
    let output = Command::new(program)
        .args(arguments)
        .arg(package)
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {said}{complaint}");
    said
}

fn query(rpm: &Path, format: &str) -> String {
    ask(
        "rpm",
        &["--query", "--package", "--queryformat", format],
        rpm,
    )
}

#[test]
fn rpm_4_11_can_read_it() {
    let Some(rpm) = rpm() else { return };
    let requires = query(&rpm, "[%{REQUIRENAME} %{REQUIREVERSION}\n]");
    // What `rpm --showrc` of CentOS 7 lists, as far as anybody uses it.
    let known = [
        "CompressedFileNames",
        "FileDigests",
        "PayloadFilesHavePrefix",
        "PayloadIsXz",
        "VersionedDependencies",
    ];
    let mut features = 0;
    for line in requires.lines() {
        assert!(!line.starts_with('('), "a rich dependency: {line}");
        if let Some(feature) = line.strip_prefix("rpmlib(") {
            features += 1;
            let name = feature.split(')').next().unwrap_or_default();
            assert!(known.contains(&name), "4.11 does not know {line}");
        }
    }
    assert!(features > 0, "{requires}");
    let payload = query(
        &rpm,
        "%{PAYLOADFORMAT} %{PAYLOADCOMPRESSOR} %{FILEDIGESTALGO}",
    );
    // 8 is SHA-256.
    assert_eq!(payload, "cpio xz 8");
    for tag in [
        "RECOMMENDNAME",
        "SUGGESTNAME",
        "SUPPLEMENTNAME",
        "ENHANCENAME",
        "FILETRIGGERNAME",
    ] {
        assert_eq!(query(&rpm, &format!("[%{{{tag}}}\n]")), "", "{tag}");
    }
}

/// EL9 wants SHA-256 of the header and the payload; 4.11 knows only the others.
#[test]
fn every_el_can_check_it() {
    let Some(rpm) = rpm() else { return };
    let said = ask("rpm", &["--checksig", "--verbose", "--nosignature"], &rpm);
    for digest in [
        "Header SHA256 digest: OK",
        "Payload SHA256 digest: OK",
        "Header SHA1 digest: OK",
        "MD5 digest: OK",
    ] {
        assert!(said.contains(digest), "{digest}: {said}");
    }
}

/// Nothing but what a minimal CentOS 7, EL8 or EL9 brings: its C library up to
/// 2.17, a shell, systemd.
#[test]
fn it_requires_what_every_el_has() {
    let Some(rpm) = rpm() else { return };
    for name in query(&rpm, "[%{REQUIRENAME}\n]").lines() {
        if ["/bin/sh", "systemd", "config(netguard)", "rtld(GNU_HASH)"].contains(&name)
            || name.starts_with("rpmlib(")
        {
            continue;
        }
        let library = name.split('(').next().unwrap_or_default();
        let libraries = [
            "libc.so.6",
            "libdl.so.2",
            "libgcc_s.so.1",
            "libm.so.6",
            "libpthread.so.0",
            "librt.so.1",
        ];
        assert!(libraries.contains(&library), "{name}");
        let Some((_, symbols)) = name.split_once("GLIBC_") else {
            continue;
        };
        let version = symbols.split(')').next().unwrap_or_default();
        let numbers: Vec<u32> = version.split('.').flat_map(str::parse).collect();
        assert!(numbers <= vec![2, 17], "{name}");
    }
}

/// The bars: 2.4 MB, and 6.5 MB installed. They were 2 and 6 MB before `netguard diagnose`.
#[test]
fn it_is_small() {
    let Some(rpm) = rpm() else { return };
    let length = fs::metadata(&rpm).expect("a file").len();
    let installed: u64 = query(&rpm, "%{SIZE}").parse().expect("a number of bytes");
    say(&format!("the RPM: {length} bytes, {installed} installed"));
    assert!(length <= 12 * MIB / 5, "{length} bytes");
    assert!(installed <= 33 * MIB / 5, "{installed} bytes installed");
}

#[test]
fn rpmlint_finds_no_error() {
    let Some(rpm) = rpm() else { return };
    let configuration = source("packaging/rpmlint.toml");
    let configuration = configuration.to_str().expect("a path in UTF-8");
    let said = ask("rpmlint", &["--config", configuration], &rpm);
    assert!(said.contains(" 0 errors"), "{said}");
}

/// Both are made of packaging/files: what only one has is where the systems
/// differ.
#[test]
fn rpm_and_deb_install_the_same() {
    let (Some(rpm), Some(deb)) = (rpm(), deb()) else {
        return;
    };
    let of_rpm = query(&rpm, "[%{FILENAMES}\n]");
    let of_rpm: BTreeSet<_> = of_rpm.lines().collect();
    let listed = ask("dpkg-deb", &["--contents"], &deb);
    let of_deb: BTreeSet<_> = listed
        .lines()
        .filter(|line| !line.starts_with('d'))
        .filter_map(|line| line.split_whitespace().nth(5)?.strip_prefix('.'))
        .collect();
    let only_deb: Vec<_> = of_deb.difference(&of_rpm).collect();
    assert_eq!(
        only_deb,
        [
            &"/usr/share/doc/netguard/changelog.Debian.gz",
            &"/usr/share/doc/netguard/copyright",
            &"/usr/share/zsh/vendor-completions/_netguard"
        ]
    );
    let folders = [
        "/etc/netguard",
        "/etc/netguard/netguard.toml.d",
        "/usr/lib/netguard",
        "/usr/lib/netguard/drop-ins",
        "/usr/lib/netguard/profiles",
        "/usr/share/bash-completion/completions",
        "/usr/share/zsh/site-functions",
    ];
    assert!(folders.iter().all(|folder| of_rpm.contains(folder)));
    for needed in [
        "/usr/sbin/netguard",
        "/usr/lib/systemd/system/netguard.service",
        "/usr/lib/systemd/system/netguard-firewall.socket",
        "/usr/lib/systemd/system/netguard-firewall@.service",
        "/usr/lib/systemd/system-preset/90-netguard.preset",
        "/usr/lib/tmpfiles.d/netguard.conf",
        "/etc/netguard/netguard.toml",
        "/usr/lib/netguard/profiles/kubernetes.toml",
        "/usr/lib/netguard/drop-ins/systemd-239.conf",
        "/usr/lib/netguard/install-drop-ins",
        "/usr/share/man/man8/netguard.8.gz",
        "/usr/share/man/man5/netguard.toml.5.gz",
    ] {
        assert!(
            of_rpm.contains(needed) && of_deb.contains(needed),
            "{needed}"
        );
    }
}

/// An administrator's changes survive an upgrade.
#[test]
fn the_configuration_is_the_administrators() {
    let (Some(rpm), Some(deb)) = (rpm(), deb()) else {
        return;
    };
    let config = ask("rpm", &["--query", "--package", "--configfiles"], &rpm);
    assert_eq!(config, "/etc/netguard/netguard.toml\n");
    // 17: configuration (1) that is not replaced (16).
    let flags = query(&rpm, "[%{FILENAMES} %{FILEFLAGS}\n]");
    assert!(
        flags.contains("/etc/netguard/netguard.toml 17\n"),
        "{flags}"
    );
    let config = Command::new("dpkg-deb")
        .args(["--info".as_ref(), deb.as_os_str(), "conffiles".as_ref()])
        .output()
        .expect("dpkg-deb");
    assert_eq!(
        String::from_utf8_lossy(&config.stdout),
        "/etc/netguard/netguard.toml\n"
    );
}

#[test]
fn the_spec_is_of_this_version() {
    let spec = fs::read_to_string(source("packaging/netguard.spec")).expect("the spec");
    let line = format!("\nVersion:        {VERSION}\n");
    assert!(spec.contains(&line), "{line}");
}

/// One text, in the form of each package.
#[test]
fn the_changelog_is_that_of_the_project() {
    let (Some(rpm), Some(deb)) = (rpm(), deb()) else {
        return;
    };
    let project = fs::read_to_string(source("CHANGELOG.md")).expect("the changelog");
    assert!(
        project.contains(&format!("\n## [{VERSION}] - ")),
        "{project}"
    );
    let of_rpm = query(&rpm, "[* %{CHANGELOGNAME}\n%{CHANGELOGTEXT}\n]");
    let begin = format!("* the netguard developers <netguard@localhost> - {VERSION}-1\n- Added: ");
    assert!(of_rpm.starts_with(&begin), "{of_rpm}");
    let unpack = Command::new("sh")
        .arg("-c")
        .arg("dpkg-deb --fsys-tarfile \"$0\" | tar -xO ./usr/share/doc/netguard/changelog.Debian.gz | gzip -d")
        .arg(&deb)
        .output()
        .expect("sh");
    let of_deb = String::from_utf8_lossy(&unpack.stdout);
    let begin = format!("netguard ({VERSION}-1) unstable; urgency=medium\n\n  * Added: ");
    assert!(of_deb.starts_with(&begin), "{of_deb}");
    let items = |text: &str, mark: &str| {
        let lines = text.lines().filter_map(|line| line.strip_prefix(mark));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(items(&of_rpm, "- "), items(&of_deb, "  * "));
}
