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

complete -c netguard -n "__fish_netguard_needs_command" -l config -d 'Read this configuration alone, without drop-ins' -r -F
complete -c netguard -n "__fish_netguard_needs_command" -l root -d 'Use DIR as an alternate root directory' -r -F
complete -c netguard -n "__fish_netguard_needs_command" -s h -l help -d 'Print help'
complete -c netguard -n "__fish_netguard_needs_command" -s V -l version -d 'Print version'
complete -c netguard -n "__fish_netguard_needs_command" -f -a "run" -d 'Guard the invariants until told to stop (the daemon)'
complete -c netguard -n "__fish_netguard_needs_command" -f -a "status" -d 'Say how things stand with the daemon, and how long what was wrong since the boot'
complete -c netguard -n "__fish_netguard_needs_command" -f -a "check" -d 'Look once, write nothing and say what does not hold'
complete -c netguard -n "__fish_netguard_needs_command" -f -a "apply" -d 'Restore once what does not hold'
complete -c netguard -n "__fish_netguard_needs_command" -f -a "validate" -d 'Check the configuration and say where it is wrong'
complete -c netguard -n "__fish_netguard_needs_command" -f -a "config" -d 'Print the effective invariants, each with the file and line it comes from'
complete -c netguard -n "__fish_netguard_needs_command" -f -a "conflicts" -d 'Find the files of this node that would undo what is guarded, and say what to do'
complete -c netguard -n "__fish_netguard_needs_command" -f -a "explain" -d 'Say what a key means, what is wanted of it and why, what it is, and what would change it'
complete -c netguard -n "__fish_netguard_needs_command" -f -a "history" -d 'Print what the guard did and saw, from the journal'
complete -c netguard -n "__fish_netguard_needs_command" -f -a "watch" -d 'Print what the guard does and sees as it happens'
complete -c netguard -n "__fish_netguard_needs_command" -f -a "demo" -d 'Replay the incident in throwaway namespaces, without and with the guard'
complete -c netguard -n "__fish_netguard_using_subcommand run" -l log -d 'Where records go: the journal where there is one (auto), the journal, or stderr as text or as JSON' -r -f -a "auto\t''
journal\t''
text\t''
json\t''"
complete -c netguard -n "__fish_netguard_using_subcommand run" -l config -d 'Read this configuration alone, without drop-ins' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand run" -l root -d 'Use DIR as an alternate root directory' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand run" -l no-state -d 'Neither read nor write the state in /run/netguard'
complete -c netguard -n "__fish_netguard_using_subcommand run" -s h -l help -d 'Print help'
complete -c netguard -n "__fish_netguard_using_subcommand status" -l config -d 'Read this configuration alone, without drop-ins' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand status" -l root -d 'Use DIR as an alternate root directory' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand status" -l json -d 'Print JSON'
complete -c netguard -n "__fish_netguard_using_subcommand status" -s h -l help -d 'Print help'
complete -c netguard -n "__fish_netguard_using_subcommand check" -l config -d 'Read this configuration alone, without drop-ins' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand check" -l root -d 'Use DIR as an alternate root directory' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand check" -l json -d 'Print JSON'
complete -c netguard -n "__fish_netguard_using_subcommand check" -l persistent -d 'Look at the files too that would undo it later, as `conflicts` does'
complete -c netguard -n "__fish_netguard_using_subcommand check" -l all -d 'Show each key, however many there are of one pattern'
complete -c netguard -n "__fish_netguard_using_subcommand check" -l ignore-observed -d 'Ignore drift of keys in mode "observe"'
complete -c netguard -n "__fish_netguard_using_subcommand check" -l brief -d 'Print a one-line summary, the most important first (node-problem-detector keeps 80 bytes)'
complete -c netguard -n "__fish_netguard_using_subcommand check" -s h -l help -d 'Print help'
complete -c netguard -n "__fish_netguard_using_subcommand apply" -l config -d 'Read this configuration alone, without drop-ins' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand apply" -l root -d 'Use DIR as an alternate root directory' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand apply" -l dry-run -d 'Show what would be written and what cannot be, and write nothing'
complete -c netguard -n "__fish_netguard_using_subcommand apply" -l all -d 'Show each key, however many there are of one pattern'
complete -c netguard -n "__fish_netguard_using_subcommand apply" -s h -l help -d 'Print help'
complete -c netguard -n "__fish_netguard_using_subcommand validate" -l config -d 'Read this configuration alone, without drop-ins' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand validate" -l root -d 'Use DIR as an alternate root directory' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand validate" -s h -l help -d 'Print help'
complete -c netguard -n "__fish_netguard_using_subcommand config" -l config -d 'Read this configuration alone, without drop-ins' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand config" -l root -d 'Use DIR as an alternate root directory' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand config" -l json -d 'Print JSON'
complete -c netguard -n "__fish_netguard_using_subcommand config" -s h -l help -d 'Print help'
complete -c netguard -n "__fish_netguard_using_subcommand conflicts" -l config -d 'Read this configuration alone, without drop-ins' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand conflicts" -l root -d 'Use DIR as an alternate root directory' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand conflicts" -l json -d 'Print JSON'
complete -c netguard -n "__fish_netguard_using_subcommand conflicts" -s h -l help -d 'Print help'
complete -c netguard -n "__fish_netguard_using_subcommand explain" -l config -d 'Read this configuration alone, without drop-ins' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand explain" -l root -d 'Use DIR as an alternate root directory' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand explain" -l all -d 'Show each key, however many there are of one pattern'
complete -c netguard -n "__fish_netguard_using_subcommand explain" -s h -l help -d 'Print help'
complete -c netguard -n "__fish_netguard_using_subcommand history" -l since -d 'Show nothing older than this: "2026-11-23 16:56", yesterday, -1h (systemd.time(7))' -r
complete -c netguard -n "__fish_netguard_using_subcommand history" -l until -d 'Show nothing newer than this' -r
complete -c netguard -n "__fish_netguard_using_subcommand history" -l key -d 'Show what is about this key, or all keys that match' -r
complete -c netguard -n "__fish_netguard_using_subcommand history" -l unit -d 'Show what happened while this unit\'s job ran, or was written by a process of it' -r
complete -c netguard -n "__fish_netguard_using_subcommand history" -l episode -d 'Show what belongs to the network restart with this number, of the last boot that had one' -r
complete -c netguard -n "__fish_netguard_using_subcommand history" -l last -d 'Show the last N' -r
complete -c netguard -n "__fish_netguard_using_subcommand history" -l saved -d 'Read what journalctl -o json or run --log json printed, - for standard input' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand history" -l config -d 'Read this configuration alone, without drop-ins' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand history" -l root -d 'Use DIR as an alternate root directory' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand history" -l json -d 'Print each record as a JSON object on a line of its own, with the journal\'s field names'
complete -c netguard -n "__fish_netguard_using_subcommand history" -s h -l help -d 'Print help'
complete -c netguard -n "__fish_netguard_using_subcommand watch" -l key -d 'Show what is about this key, or all keys that match' -r
complete -c netguard -n "__fish_netguard_using_subcommand watch" -l unit -d 'Show what happened while this unit\'s job ran, or was written by a process of it' -r
complete -c netguard -n "__fish_netguard_using_subcommand watch" -l config -d 'Read this configuration alone, without drop-ins' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand watch" -l root -d 'Use DIR as an alternate root directory' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand watch" -l json -d 'Print each record as a JSON object on a line of its own, with the journal\'s field names'
complete -c netguard -n "__fish_netguard_using_subcommand watch" -s h -l help -d 'Print help'
complete -c netguard -n "__fish_netguard_using_subcommand demo" -l config -d 'Read this configuration alone, without drop-ins' -r -F
complete -c netguard -n "__fish_netguard_using_subcommand demo" -s h -l help -d 'Print help'
