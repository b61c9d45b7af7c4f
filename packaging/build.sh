# What build-rpm and build-deb share; they source this at the top of the tree.
#
# Everything that is fetched or made lies below $work:
#   tools/     cargo-zigbuild and zig, from PyPI, and Rust where there is none
#   cargo/     what cargo builds, kept from one build to the next
#   rpm/       rpmbuild's folders
# and the packages themselves in target/packaging.

out=$PWD/target/packaging
work=${NETGUARD_PACKAGING_CACHE:-$out/work}
target=x86_64-unknown-linux-gnu
# One pair that is known to work together, for every build alike.
zigbuild=0.23.4
zig=0.16.0
# As in Cargo.toml; where cargo is older, this Rust is fetched.
rust_floor=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
rust=1.95.0
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml)

say() {
	printf '==> %s\n' "$*"
}

die() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# What both command lines take.
release=1 binary=
options() {
	while (($#)); do
		case $1 in
		--release) release=${2:?--release needs a number} && shift 2 ;;
		--binary) binary=$(realpath -e -- "${2:?--binary needs a file}") && shift 2 ;;
		*) die "usage: packaging/${0##*/} [--release N] [--binary FILE]
  --release N     the package's release, 1 by default
  --binary FILE   package this program, which was built before, portably" ;;
		esac
	done
	mkdir -p "$out" "$work"
	[[ $(uname -m) == x86_64 ]] || die 'only for x86_64, on x86_64'
}

# What must be there, as COMMAND:PACKAGE or /FILE:PACKAGE, with the Debian package
# that has it.
need() {
	local pair missing=()
	for pair in "$@"; do
		[[ -e ${pair%:*} ]] || command -v "${pair%:*}" >/dev/null || missing+=("${pair#*:}")
	done
	((${#missing[@]})) || return 0
	command -v apt-get >/dev/null || die "please install ${missing[*]}; there is no apt-get"
	((EUID == 0)) || die "please have root run: apt-get install ${missing[*]}"
	say "Installing ${missing[*]}"
	apt-get update -q
	DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
}

# Whether version $1 is at least $2.
at_least() {
	[[ $(printf '%s\n' "$1" "$2" | sort -V | head -n 1) == "$2" ]]
}

# Rust, as new as Cargo.toml asks: the machine's, or one in $work.
prepare_rust() {
	local own=$work/tools/rust
	if [[ -d $own ]]; then
		export RUSTUP_HOME=$own/rustup CARGO_HOME=$own/cargo PATH=$own/cargo/bin:$PATH
	fi
	if command -v cargo >/dev/null && at_least "$(cargo --version | cut -d ' ' -f 2)" "$rust_floor"; then
		return
	fi
	need curl:curl
	say "Fetching Rust $rust"
	mkdir -p "$work/tools"
	curl -fsSL --proto '=https' -o "$work/tools/rustup-init" \
		"https://static.rust-lang.org/rustup/dist/$target/rustup-init"
	chmod +x "$work/tools/rustup-init"
	export RUSTUP_HOME=$own/rustup CARGO_HOME=$own/cargo PATH=$own/cargo/bin:$PATH
	RUSTUP_INIT_SKIP_PATH_CHECK=yes "$work/tools/rustup-init" -y -q --no-modify-path \
		--profile minimal --default-toolchain "$rust"
}

# Everything that a portable build needs.
prepare_build() {
	local venv=$work/tools/zigbuild-$zigbuild-zig-$zig
	need cc:gcc /usr/include/stdio.h:libc6-dev objdump:binutils python3:python3 \
		/etc/ssl/certs/ca-certificates.crt:ca-certificates
	# Debian keeps a part of Python's own library in a package of its own.
	python3 -c 'import ensurepip' 2>/dev/null || need ensurepip:python3-venv
	prepare_rust
	if [[ ! -d $venv ]]; then
		say "Fetching cargo-zigbuild $zigbuild and zig $zig"
		rm -rf "$venv.new"
		python3 -m venv "$venv.new"
		"$venv.new/bin/pip" install -q --disable-pip-version-check \
			"cargo-zigbuild==$zigbuild" "ziglang==$zig"
		# Scripts of a venv name its folder; neither of these is one.
		mv -T "$venv.new" "$venv"
	fi
	export PATH=$venv/bin:$PATH
	export CARGO_TARGET_DIR=$work/cargo
	export CARGO_ZIGBUILD_CACHE_DIR=$work/tools/cache ZIG_GLOBAL_CACHE_DIR=$work/tools/cache/zig
}

# The date of the last commit stands in for the time of the build; where there is
# no repository, that of a file that each release changes.
date_sources() {
	[[ ! -e .git ]] || need git:git
	SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.lock)}
	export SOURCE_DATE_EPOCH TZ=UTC LC_ALL=C.UTF-8
}
