# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_netguard_global_optspecs
    string join \n config= root= h/help V/version
end

function __fish_netguard_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_netguard_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_netguard_using_subcommand
    set -l cmd (__fish_netguard_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c netguard -n "__fish_netguard_needs_command" -l config -d 'Use only this configuration file; ignore drop-ins' -r -F
complete -c netguard -n "__fish_netguard_needs_command" -l root -d 'Use DIR as an alternate root directory' -r -F
complete -c netguard -n "__fish_netguard_needs_command" -s h -l help -d 'Print help'
complete -c netguard -n "__fish_netguard_needs_command" -s V -l version -d 'Print version'
complete -c netguard -n "__fish_netguard_needs_command" -f -a "run" -d 'Run the daemon in the foreground'
complete -c netguard -n "__fish_netguard_needs_command" -f -a "status" -d 'Show daemon status and drift statistics'
complete -c netguard -n "__fish_netguard_needs_command" -f -a "check" -d 'Check all values once, read-only, and report drift'
complete -c netguard -n "__fish_netguard_needs_command" -f -a "apply" -d 'Restore all drifted values once'
complete -c netguard -n "__fish_netguard_needs_command" -f -a "validate" -d 'Check the configuration and report errors'
complete -c netguard -n "__fish_netguard_needs_command" -f -a "config" -d 'Print the effective configuration, with the source of each entry'
complete -c netguard -n "__fish_netguard_needs_command" -f -a "conflicts" -d 'Find configuration files that override guarded values, with fixes'
complete -c netguard -n "__fish_netguard_needs_command" -f -a "explain" -d 'Explain a key: meaning, expected and current value, conflicts'
complete -c netguard -n "__fish_netguard_needs_command" -f -a "history" -d 'Show past drift and repairs from the journal'
complete -c netguard -n "__fish_netguard_needs_command" -f -a "watch" -d 'Follow drift and repairs live'
complete -c netguard -n "__fish_netguard_needs_command" -f -a "diagnose" -d 'Find out why packets between a pod and a destination do not arrive'
complete -c netguard -n "__fish_netguard_needs_command" -f -a "demo" -d 'Replay the incident, without and with netguard'
complete -c netguard -n "__fish_netguard_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c netguard -n "__fish_netguard_using_subcommand run" -l log -d 'Log destination: the journal if available, else stderr (auto), the journal, or stderr as text or JSON' -r -f -a "auto\t''
journal\t''
text\t''
json\t''"
complete -c netguard -n "__fish_netguard_using_subcommand run" -l config -d 'Use only this configuration file; ignore drop-ins' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand run" -l root -d 'Use DIR as an alternate root directory' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand run" -l no-state -d 'Do not read or write the state in /run/netguard'
complete -c netguard -n "__fish_netguard_using_subcommand run" -s h -l help -d 'Print help'
complete -c netguard -n "__fish_netguard_using_subcommand status" -l root -d 'Use DIR as an alternate root directory' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand status" -l brief -d 'Print one line, whether the daemon is running; exit 1 if not (for node-problem-detector)'
complete -c netguard -n "__fish_netguard_using_subcommand status" -l json -d 'Print JSON'
complete -c netguard -n "__fish_netguard_using_subcommand status" -s h -l help -d 'Print help'
complete -c netguard -n "__fish_netguard_using_subcommand check" -l config -d 'Use only this configuration file; ignore drop-ins' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand check" -l root -d 'Use DIR as an alternate root directory' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand check" -l json -d 'Print JSON'
complete -c netguard -n "__fish_netguard_using_subcommand check" -l persistent -d 'Also report conflicting configuration files (see `conflicts`)'
complete -c netguard -n "__fish_netguard_using_subcommand check" -l all -d 'List every key instead of grouping the keys of a pattern'
complete -c netguard -n "__fish_netguard_using_subcommand check" -l ignore-observed -d 'Ignore drift of keys in mode "observe"'
complete -c netguard -n "__fish_netguard_using_subcommand check" -l brief -d 'Print a one-line summary, most important first (node-problem-detector keeps 80 bytes)'
complete -c netguard -n "__fish_netguard_using_subcommand check" -s h -l help -d 'Print help'
complete -c netguard -n "__fish_netguard_using_subcommand apply" -l config -d 'Use only this configuration file; ignore drop-ins' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand apply" -l root -d 'Use DIR as an alternate root directory' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand apply" -l dry-run -d 'Only show what would be written, and what cannot be'
complete -c netguard -n "__fish_netguard_using_subcommand apply" -l all -d 'List every key instead of grouping the keys of a pattern'
complete -c netguard -n "__fish_netguard_using_subcommand apply" -s h -l help -d 'Print help'
complete -c netguard -n "__fish_netguard_using_subcommand validate" -l config -d 'Use only this configuration file; ignore drop-ins' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand validate" -l root -d 'Use DIR as an alternate root directory' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand validate" -s h -l help -d 'Print help'
complete -c netguard -n "__fish_netguard_using_subcommand config" -l config -d 'Use only this configuration file; ignore drop-ins' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand config" -l root -d 'Use DIR as an alternate root directory' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand config" -l json -d 'Print JSON'
complete -c netguard -n "__fish_netguard_using_subcommand config" -s h -l help -d 'Print help'
complete -c netguard -n "__fish_netguard_using_subcommand conflicts" -l config -d 'Use only this configuration file; ignore drop-ins' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand conflicts" -l root -d 'Use DIR as an alternate root directory' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand conflicts" -l json -d 'Print JSON'
complete -c netguard -n "__fish_netguard_using_subcommand conflicts" -s h -l help -d 'Print help'
complete -c netguard -n "__fish_netguard_using_subcommand explain" -l config -d 'Use only this configuration file; ignore drop-ins' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand explain" -l root -d 'Use DIR as an alternate root directory' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand explain" -l all -d 'List every key instead of grouping the keys of a pattern'
complete -c netguard -n "__fish_netguard_using_subcommand explain" -s h -l help -d 'Print help'
complete -c netguard -n "__fish_netguard_using_subcommand history" -l since -d 'Show entries since this time: "2026-11-23 16:56", yesterday, -1h (systemd.time(7))' -r
complete -c netguard -n "__fish_netguard_using_subcommand history" -l until -d 'Show entries until this time' -r
complete -c netguard -n "__fish_netguard_using_subcommand history" -l key -d 'Filter by key, a part of its name, a path below /proc/sys, a pattern, or another resource (link/eth0)' -r
complete -c netguard -n "__fish_netguard_using_subcommand history" -l kind -d 'Filter by kind of resource' -r -f -a "module\t''
link\t''
sysctl\t''
address\t''
neighbour\t''
fdb\t''
route\t''
rule\t''
chain\t''
set\t''
chains\t''
iptables\t''
nftables\t''
unit\t''"
complete -c netguard -n "__fish_netguard_using_subcommand history" -l unit -d 'Filter by systemd unit' -r
complete -c netguard -n "__fish_netguard_using_subcommand history" -l restart -d 'Filter by network restart, by the number shown in the table' -r
complete -c netguard -n "__fish_netguard_using_subcommand history" -l event -d 'Filter by kind of record (NETGUARD_EVENT); may be repeated' -r -f -a "started\t''
stopped\t''
drift-restored\t''
configuration-applied\t''
drift-observed\t''
drift-ended\t''
removal-accepted\t''
restore-failed\t''
contended\t''
source-unavailable\t''
source-recovered\t''
degraded\t''
recovered\t''
conntrack-nearly-full\t''
conntrack-recovered\t''
configuration-reloaded\t''
configuration-refused\t''
restart-handled\t''
conflict-found\t''
conflict-resolved\t''
records-dropped\t''"
complete -c netguard -n "__fish_netguard_using_subcommand history" -l last -d 'Show only the last N entries' -r
complete -c netguard -n "__fish_netguard_using_subcommand history" -l saved -d 'Read saved output of journalctl -o json or run --log json; - is stdin' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand history" -l root -d 'Use DIR as an alternate root directory' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand history" -l brief -d 'Print the newest entry on one line; exit 1 if there is one (for node-problem-detector)'
complete -c netguard -n "__fish_netguard_using_subcommand history" -l json -d 'Print one JSON object per line, with the journal\'s field names'
complete -c netguard -n "__fish_netguard_using_subcommand history" -s h -l help -d 'Print help'
complete -c netguard -n "__fish_netguard_using_subcommand watch" -l key -d 'Filter by key, a part of its name, a path below /proc/sys, a pattern, or another resource (link/eth0)' -r
complete -c netguard -n "__fish_netguard_using_subcommand watch" -l kind -d 'Filter by kind of resource' -r -f -a "module\t''
link\t''
sysctl\t''
address\t''
neighbour\t''
fdb\t''
route\t''
rule\t''
chain\t''
set\t''
chains\t''
iptables\t''
nftables\t''
unit\t''"
complete -c netguard -n "__fish_netguard_using_subcommand watch" -l unit -d 'Filter by systemd unit' -r
complete -c netguard -n "__fish_netguard_using_subcommand watch" -l root -d 'Use DIR as an alternate root directory' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand watch" -l json -d 'Print one JSON object per line, with the journal\'s field names'
complete -c netguard -n "__fish_netguard_using_subcommand watch" -s h -l help -d 'Print help'
complete -c netguard -n "__fish_netguard_using_subcommand diagnose" -l port -d 'Protocol and port at the destination: tcp/443, udp/53; default: ICMP echo' -r
complete -c netguard -n "__fish_netguard_using_subcommand diagnose" -l pcap -d 'Write the packets that were seen to FILE (pcapng); it must not exist' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand diagnose" -l config -d 'Use only this configuration file; ignore drop-ins' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand diagnose" -l root -d 'Use DIR as an alternate root directory' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand diagnose" -l reverse -d 'Diagnose packets from DEST to the pod'
complete -c netguard -n "__fish_netguard_using_subcommand diagnose" -l no-probe -d 'Only read; send no packets'
complete -c netguard -n "__fish_netguard_using_subcommand diagnose" -l trace -d 'Show each rule that the packets met; adds rules that mark them, and removes these at the end'
complete -c netguard -n "__fish_netguard_using_subcommand diagnose" -l watch -d 'Repeat until it works; print each result that differs from the last, with the time'
complete -c netguard -n "__fish_netguard_using_subcommand diagnose" -l json -d 'Print JSON'
complete -c netguard -n "__fish_netguard_using_subcommand diagnose" -s h -l help -d 'Print help'
complete -c netguard -n "__fish_netguard_using_subcommand demo" -l config -d 'Use only this configuration file; ignore drop-ins' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand demo" -s h -l help -d 'Print help'
complete -c netguard -n "__fish_netguard_using_subcommand help; and not __fish_seen_subcommand_from run status check apply validate config conflicts explain history watch diagnose demo help" -f -a "run" -d 'Run the daemon in the foreground'
complete -c netguard -n "__fish_netguard_using_subcommand help; and not __fish_seen_subcommand_from run status check apply validate config conflicts explain history watch diagnose demo help" -f -a "status" -d 'Show daemon status and drift statistics'
complete -c netguard -n "__fish_netguard_using_subcommand help; and not __fish_seen_subcommand_from run status check apply validate config conflicts explain history watch diagnose demo help" -f -a "check" -d 'Check all values once, read-only, and report drift'
complete -c netguard -n "__fish_netguard_using_subcommand help; and not __fish_seen_subcommand_from run status check apply validate config conflicts explain history watch diagnose demo help" -f -a "apply" -d 'Restore all drifted values once'
complete -c netguard -n "__fish_netguard_using_subcommand help; and not __fish_seen_subcommand_from run status check apply validate config conflicts explain history watch diagnose demo help" -f -a "validate" -d 'Check the configuration and report errors'
complete -c netguard -n "__fish_netguard_using_subcommand help; and not __fish_seen_subcommand_from run status check apply validate config conflicts explain history watch diagnose demo help" -f -a "config" -d 'Print the effective configuration, with the source of each entry'
complete -c netguard -n "__fish_netguard_using_subcommand help; and not __fish_seen_subcommand_from run status check apply validate config conflicts explain history watch diagnose demo help" -f -a "conflicts" -d 'Find configuration files that override guarded values, with fixes'
complete -c netguard -n "__fish_netguard_using_subcommand help; and not __fish_seen_subcommand_from run status check apply validate config conflicts explain history watch diagnose demo help" -f -a "explain" -d 'Explain a key: meaning, expected and current value, conflicts'
complete -c netguard -n "__fish_netguard_using_subcommand help; and not __fish_seen_subcommand_from run status check apply validate config conflicts explain history watch diagnose demo help" -f -a "history" -d 'Show past drift and repairs from the journal'
complete -c netguard -n "__fish_netguard_using_subcommand help; and not __fish_seen_subcommand_from run status check apply validate config conflicts explain history watch diagnose demo help" -f -a "watch" -d 'Follow drift and repairs live'
complete -c netguard -n "__fish_netguard_using_subcommand help; and not __fish_seen_subcommand_from run status check apply validate config conflicts explain history watch diagnose demo help" -f -a "diagnose" -d 'Find out why packets between a pod and a destination do not arrive'
complete -c netguard -n "__fish_netguard_using_subcommand help; and not __fish_seen_subcommand_from run status check apply validate config conflicts explain history watch diagnose demo help" -f -a "demo" -d 'Replay the incident, without and with netguard'
complete -c netguard -n "__fish_netguard_using_subcommand help; and not __fish_seen_subcommand_from run status check apply validate config conflicts explain history watch diagnose demo help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
