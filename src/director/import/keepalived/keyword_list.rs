//! The keywords of keepalived, by block, and what becomes of each: the one list from which the importer
//! takes what it converts and what it reports.

use super::keyword_fate::KeywordFate::{Block, Carried, Reported, Values, Warned};
use super::keyword_fate::Keywords;

/// Any number of words.
const MANY: usize = usize::MAX;

const MAIL: &str = "there are no mails: watch the metrics, or use `notify` programs";
const PROCESS: &str = "a setting of keepalived's own processes";
const SNMP: &str = "there is no SNMP and no D-Bus: use the metrics";
const FIFO: &str = "there is no notify FIFO: use `notify` programs";
const ANNOUNCE: &str = "the announcements of addresses are those of the key `announce`";
const FIREWALL: &str = "no firewall rules are made";
const LOG: &str = "a setting of keepalived's log";
const NO_BFD: &str = "there is no BFD: nothing depends on it";
const GROUP: &str = "advertisements go to the group of the RFC: a keepalived with another group does not \
    hear them, and both are master";
const STRICT: &str = "the checks of strict mode do not apply, and the addresses accept packets";
const STATIC: &str = "not added: use the network settings of the system";
const LINK: &str = "the link is read from the kernel";
const ADDRESSES: &str = "other addresses in an advertisement are reported only";
const DOWN_TIMER: &str = "a backup waits for three intervals, as in the RFC";
const LOWER: &str = "a master answers an advertisement of lower priority at once";
const HIGHER: &str = "no advertisement is sent before the addresses are released";
const STALLED: &str = "a master that was stalled releases its addresses first, always";
const OWNER: &str = "the owner of the addresses ignores no advertisements";
const VMAC_NAME: &str = "the interface of a virtual MAC is called vrrp.VRID";
const DELETED: &str = "a virtual router that a reload removes is stopped: see `notify_stop`";
const WARMUP: &str = "the first check is at once; later ones differ by `jitter`";
const FLUSH: &str = "the director removes its own services of the kernel when it stops, and leaves those of \
    other programs alone";
const TLS_END: &str = "TLS is always ended as the RFC says";
const CONNECT_IP: &str = "the check asks the server's own address: a server that is checked elsewhere \
    needs a check of type `command`";
const CHOSEN: &str = "chosen by the system";

pub(super) const TOP: Keywords = &[
    (&["global_defs"], Block(GLOBAL)),
    (&["vrrp_script"], Block(SCRIPT)),
    (&["vrrp_sync_group"], Block(SYNC_GROUP)),
    (&["vrrp_instance"], Block(INSTANCE)),
    (&["vrrp_track_process"], Block(TRACK_PROCESS)),
    (&["track_file", "vrrp_track_file"], Block(TRACK_FILE)),
    (&["virtual_server_group"], Values),
    (&["virtual_server"], Block(VIRTUAL_SERVER)),
    (&["SSL"], Warned("checks by TLS accept any certificate, and show none")),
    (&["static_ipaddress", "static_routes", "static_rules"], Warned(STATIC)),
    (&["track_group"], Reported("for static addresses and routes only")),
    (&["garp_group"], Reported(ANNOUNCE)),
    (&["linkbeat_interfaces", "linkbeat_use_polling"], Reported(LINK)),
    (&["interface_up_down_delays"], Reported("a change of a link counts at once")),
    (&["bfd_instance"], Warned(NO_BFD)),
    (
        &["net_namespace", "net_namespace_ipvs"],
        Warned("start the director in this network namespace, as by `ip netns exec`"),
    ),
    (&["namespace_with_ipsets"], Reported(FIREWALL)),
    (&["use_pid_dir", "instance", "child_wait_time"], Reported(PROCESS)),
];

const GLOBAL: Keywords = &[
    (&["vrrp_version", "default_interface", "vrrp_startup_delay", "v3_checksum_as_v2"], Carried(1)),
    (&["script_user"], Carried(2)),
    (
        &[
            "router_id",
            "notification_email",
            "notification_email_from",
            "smtp_server",
            "smtp_helo_name",
            "smtp_connect_timeout",
            "smtp_alert",
            "smtp_alert_vrrp",
            "smtp_alert_checker",
            "no_email_faults",
            "no_checker_emails",
        ],
        Reported(MAIL),
    ),
    (&["startup_script"], Warned("not run: start it before the director (`ExecStartPre=`)")),
    (&["shutdown_script"], Warned("not run: start it after the director (`ExecStopPost=`)")),
    (&["startup_script_timeout", "shutdown_script_timeout"], Reported("the script is not run")),
    (&["vrrp_mcast_group4", "vrrp_mcast_group6"], Warned(GROUP)),
    (&["vrrp_down_timer_adverts"], Reported(DOWN_TIMER)),
    (
        &[
            "vrrp_garp_master_delay",
            "vrrp_garp_master_repeat",
            "vrrp_garp_master_refresh",
            "vrrp_garp_master_refresh_repeat",
            "vrrp_garp_lower_prio_delay",
            "vrrp_garp_lower_prio_repeat",
            "vrrp_garp_interval",
            "vrrp_gna_interval",
            "vrrp_min_garp",
            "vrrp_garp_extra_if",
            "vrrp_vmac_garp_intvl",
        ],
        Reported(ANNOUNCE),
    ),
    (&["vrrp_lower_prio_no_advert"], Reported(LOWER)),
    (&["vrrp_higher_prio_send_advert"], Reported(HIGHER)),
    (&["vrrp_delay_after_boot"], Reported("see the key `start_delay`")),
    (&["vrrp_strict"], Warned(STRICT)),
    (&["vrrp_skip_check_adv_addr"], Reported(ADDRESSES)),
    (&["vrrp_check_unicast_src"], Reported("always so")),
    (&["vrrp_owner_ignore_adverts"], Reported(OWNER)),
    (
        &[
            "vrrp_iptables",
            "vrrp_ipsets",
            "nftables",
            "nftables_priority",
            "nftables_ifindex",
            "nftables_counters",
            "nftables_ipvs",
            "nftables_ipvs_priority",
            "nftables_ipvs_start_fwmark",
        ],
        Reported(FIREWALL),
    ),
    (&["lvs_sync_daemon", "lvs_timeouts"], Carried(MANY)),
    (&["lvs_flush", "lvs_flush_on_stop", "lvs_flush_onstop"], Reported(FLUSH)),
    (
        &[
            "notify_fifo",
            "notify_fifo_script",
            "vrrp_notify_fifo",
            "vrrp_notify_fifo_script",
            "lvs_notify_fifo",
            "lvs_notify_fifo_script",
        ],
        Warned(FIFO),
    ),
    (&["vrrp_notify_priority_changes", "fifo_write_vrrp_states_on_reload"], Reported(FIFO)),
    (&["rs_init_notifies"], Reported("programs run for changes, not for the first state")),
    (&["enable_script_security"], Reported("check who may write the scripts")),
    (&["set_supplementary_groups"], Reported("supplementary groups are not set")),
    (&["use_symlink_paths"], Reported("the paths of scripts are taken as they are")),
    (&["dynamic_interfaces"], Warned("an interface must exist when the director starts")),
    (&["checker_log_all_failures", "log_unknown_vrids"], Reported(LOG)),
    (
        &[
            "enable_traps",
            "enable_snmp_vrrp",
            "enable_snmp_keepalived",
            "enable_snmp_rfc",
            "enable_snmp_rfcv2",
            "enable_snmp_rfcv3",
            "enable_snmp_checker",
            "snmp_socket",
            "snmp_vs_stats_update_interval",
            "snmp_rs_stats_update_interval",
            "enable_dbus",
            "dbus_service_name",
            "dbus_no_interface_name",
        ],
        Reported(SNMP),
    ),
    (&["vmac_prefix", "vmac_addr_prefix"], Reported(VMAC_NAME)),
    (&["reload_check_config"], Reported("a reload checks the configuration first, always")),
    (&["include_check"], Reported("a pattern that names no file is reported")),
    (
        &[
            "disable_local_igmp",
            "process_names",
            "process_name",
            "vrrp_process_name",
            "checker_process_name",
            "lvs_process_name",
            "bfd_process_name",
            "max_auto_priority",
            "min_auto_priority_delay",
            "vrrp_priority",
            "vrrp_no_swap",
            "vrrp_rt_priority",
            "vrrp_cpu_affinity",
            "vrrp_rlimit_rttime",
            "vrrp_rlimit_rtime",
            "checker_priority",
            "checker_no_swap",
            "checker_rt_priority",
            "checker_cpu_affinity",
            "checker_rlimit_rttime",
            "checker_rlimit_rtime",
            "bfd_priority",
            "bfd_no_swap",
            "bfd_rt_priority",
            "bfd_cpu_affinity",
            "bfd_rlimit_rttime",
            "bfd_rlimit_rtime",
            "vrrp_netlink_cmd_rcv_bufs",
            "vrrp_netlink_cmd_rcv_bufs_force",
            "vrrp_netlink_monitor_rcv_bufs",
            "vrrp_netlink_monitor_rcv_bufs_force",
            "lvs_netlink_cmd_rcv_bufs",
            "lvs_netlink_cmd_rcv_bufs_force",
            "lvs_netlink_monitor_rcv_bufs",
            "lvs_netlink_monitor_rcv_bufs_force",
            "process_monitor_rcv_bufs",
            "process_monitor_rcv_bufs_force",
            "vrrp_rx_bufs_policy",
            "vrrp_rx_bufs_multiplier",
            "umask",
            "random_seed",
            "reload_time_file",
            "reload_repeat",
            "reload_file",
            "config_save_dir",
            "tmp_config_directory",
            "data_use_instance",
            "json_version",
            "iproute_usr_dir",
            "iproute_etc_dir",
            "state_dump_file",
            "stats_dump_file",
            "json_dump_file",
        ],
        Reported(PROCESS),
    ),
];

const SCRIPT: Keywords = &[
    (&["script", "interval", "timeout", "rise", "fall"], Carried(1)),
    (&["weight", "user"], Carried(2)),
    (&["init_fail"], Carried(0)),
];

const TRACK_PROCESS: Keywords = &[
    (&["process"], Carried(MANY)),
    (&["weight"], Carried(2)),
    (&["quorum", "quorum_max", "param_match", "full_command"], Carried(1)),
    (&["delay", "fork_delay", "terminate_delay"], Carried(1)),
];

const TRACK_FILE: Keywords = &[
    (&["file"], Carried(1)),
    (&["weight"], Carried(2)),
    (&["init_file"], Reported("the file is not created")),
];

const SYNC_GROUP: Keywords = &[
    (&["group", "track_interface", "track_script", "track_file", "track_process"], Values),
    (&["notify", "notify_master", "notify_backup", "notify_fault", "notify_stop"], Carried(3)),
    (&["sync_group_tracking_weight"], Carried(0)),
    (&["track_bfd"], Warned(NO_BFD)),
    (&["notify_deleted"], Reported(DELETED)),
    (&["notify_priority_changes"], Reported(FIFO)),
    (&["smtp_alert"], Reported(MAIL)),
    (&["global_tracking"], Reported("deprecated in keepalived")),
];

const INSTANCE: Keywords = &[
    (
        &[
            "state",
            "interface",
            "virtual_router_id",
            "priority",
            "version",
            "advert_int",
            "preempt_delay",
            "unicast_src_ip",
            "mcast_src_ip",
            "v3_checksum_as_v2",
            "check_unicast_src",
        ],
        Carried(1),
    ),
    (&["nopreempt", "preempt", "native_ipv6", "accept", "track_src_ip"], Carried(0)),
    (&["use_vmac"], Carried(MANY)),
    (&["notify", "notify_master", "notify_backup", "notify_fault", "notify_stop"], Carried(3)),
    (&["authentication"], Block(&[(&["auth_type"], Carried(1)), (&["auth_pass"], Carried(MANY))])),
    (
        &["auth_hmac"],
        Block(&[
            (&["key"], Carried(2)),
            (&["active_key", "anti_replay", "mode"], Carried(1)),
            (&["time_window"], Reported("the window is three intervals, at least 5 s")),
        ]),
    ),
    (
        &[
            "virtual_ipaddress",
            "virtual_ipaddress_excluded",
            "virtual_routes",
            "unicast_peer",
            "track_interface",
            "track_script",
            "track_file",
            "track_process",
        ],
        Values,
    ),
    (&["virtual_rules"], Warned("the rules are not added")),
    (&["track_bfd"], Warned(NO_BFD)),
    (&["notify_deleted"], Reported(DELETED)),
    (&["notify_master_rx_lower_pri"], Warned("not run")),
    (&["notify_priority_changes"], Reported(FIFO)),
    (&["smtp_alert"], Reported(MAIL)),
    (&["no_accept"], Warned("the addresses accept packets: drop them by a firewall rule")),
    (&["no_virtual_ipaddress"], Reported("a virtual router needs an address")),
    (
        &["dont_track_primary"],
        Warned("the virtual router is in state fault while its interface is down"),
    ),
    (&["mcast_dst_ip"], Warned(GROUP)),
    (&["use_ipvlan"], Warned("the addresses are on the interface itself")),
    (&["use_vmac_addr"], Reported("see `use_vmac`")),
    (
        &["vmac_xmit_base"],
        Reported("advertisements are sent from the virtual MAC, over IPv6 from the interface"),
    ),
    (&["vrf"], Warned("name the interface of the advertisements")),
    (&["unicast_ttl"], Reported("advertisements have the hop limit 255")),
    (&["unicast_fault_no_peer"], Reported("without peers, advertisements are sent by multicast")),
    (&["old_unicast_checksum"], Reported("the checksum is that of the RFC")),
    (&["skip_check_adv_addr"], Reported(ADDRESSES)),
    (&["strict_mode"], Warned(STRICT)),
    (&["promote_secondaries"], Reported("each address has the prefix length that is written")),
    (&["linkbeat_use_polling"], Reported(LINK)),
    (&["lvs_sync_daemon_interface"], Carried(1)),
    (
        &[
            "garp_master_delay",
            "garp_master_repeat",
            "garp_master_refresh",
            "garp_master_refresh_repeat",
            "garp_lower_prio_delay",
            "garp_lower_prio_repeat",
            "garp_extra_if",
            "vmac_garp_intvl",
        ],
        Reported(ANNOUNCE),
    ),
    (&["lower_prio_no_advert"], Reported(LOWER)),
    (&["higher_prio_send_advert"], Reported(HIGHER)),
    (&["down_timer_adverts"], Reported(DOWN_TIMER)),
    (&["timer_expired_backup", "thread_timer_expired"], Reported(STALLED)),
    (&["owner_ignore_adverts"], Reported(OWNER)),
    (&["kernel_rx_buf_size"], Reported(PROCESS)),
    (&["debug"], Reported(LOG)),
];

const VIRTUAL_SERVER: Keywords = &[
    (
        &[
            "protocol",
            "lvs_sched",
            "lb_algo",
            "persistence_timeout",
            "persistence_granularity",
            "quorum",
            "hysteresis",
            "virtualhost",
            "weight",
            "delay_loop",
            "retry",
            "delay_before_retry",
            "connect_timeout",
            "inhibit_on_failure",
        ],
        Carried(1),
    ),
    (&["sh-port", "sh-fallback", "mh-port", "mh-fallback", "flag-1", "flag-2", "ops"], Carried(0)),
    (&["lvs_method", "lb_kind"], Carried(MANY)),
    (&["quorum_up", "quorum_down"], Carried(3)),
    (&["sorry_server"], Carried(2)),
    (&["real_server"], Block(REAL_SERVER)),
    (&["flag-3"], Warned("no scheduler has this flag")),
    (&["hashed"], Reported("deprecated in keepalived")),
    (&["persistence_engine"], Warned("persistence is by the client's address")),
    (&["sorry_server_inhibit"], Reported("the sorry server is never removed")),
    (&["sorry_server_lvs_method"], Carried(MANY)),
    (&["ip_family"], Carried(1)),
    (&["ha_suspend"], Reported("checks run without the address too")),
    (&["omega"], Reported("programs of servers do not run when the director stops")),
    (&["alpha"], Carried(1)),
    (&["warmup"], Reported(WARMUP)),
    (&["smtp_alert"], Reported(MAIL)),
    (&["snmp_name"], Reported(SNMP)),
];

const REAL_SERVER: Keywords = &[
    (
        &[
            "weight",
            "uthreshold",
            "lthreshold",
            "inhibit_on_failure",
            "virtualhost",
            "delay_loop",
            "retry",
            "delay_before_retry",
            "connect_timeout",
        ],
        Carried(1),
    ),
    (&["lvs_method"], Carried(MANY)),
    (&["notify_up", "notify_down"], Carried(3)),
    (&["HTTP_GET", "SSL_GET"], Block(HTTP_CHECKER)),
    (&["TCP_CHECK", "PING_CHECK"], Block(CHECKER)),
    (&["SMTP_CHECK", "DNS_CHECK", "MISC_CHECK", "UDP_CHECK", "FILE_CHECK"], Block(CHECKER)),
    (&["BFD_CHECK"], Warned(NO_BFD)),
    (&["alpha"], Carried(1)),
    (&["warmup"], Reported(WARMUP)),
    (&["smtp_alert"], Reported(MAIL)),
    (&["snmp_name"], Reported(SNMP)),
];

const CHECKER: Keywords = &[
    (
        &[
            "connect_port",
            "connect_timeout",
            "bindto",
            "retry",
            "delay_before_retry",
            "delay_loop",
            "helo_name",
            "name",
            "type",
            "misc_path",
            "misc_timeout",
            "track_file",
            "min_reply_length",
            "max_reply_length",
        ],
        Carried(1),
    ),
    (&["misc_dynamic"], Carried(0)),
    (&["user", "weight"], Carried(2)),
    (&["payload", "require_reply"], Carried(MANY)),
    (&["connect_ip", "host"], Warned(CONNECT_IP)),
    (&["bind_port", "bind_if"], Reported(CHOSEN)),
    (&["fwmark"], Warned("the packets of the check have no mark")),
    (&["alpha"], Carried(1)),
    (&["warmup"], Reported(WARMUP)),
    (&["log_all_failures"], Reported(LOG)),
    (&["dynamic"], Reported("the file's number is added to the weight, always")),
];

const HTTP_CHECKER: Keywords = &[
    (&["url"], Block(URL)),
    (
        &[
            "connect_port",
            "connect_timeout",
            "bindto",
            "retry",
            "nb_get_retry",
            "delay_before_retry",
            "delay_loop",
            "virtualhost",
            "enable_sni",
            "sni_name",
        ],
        Carried(1),
    ),
    (&["http_protocol"], Reported("the request is of HTTP/1.1")),
    (&["fast_recovery"], Reported("all paths are checked at the same time")),
    (&["tls_compliant"], Reported(TLS_END)),
    (&["connect_ip"], Warned(CONNECT_IP)),
    (&["bind_port", "bind_if"], Reported(CHOSEN)),
    (&["fwmark"], Warned("the packets of the check have no mark")),
    (&["alpha"], Carried(1)),
    (&["warmup"], Reported(WARMUP)),
    (&["log_all_failures"], Reported(LOG)),
];

const URL: Keywords = &[
    (&["path", "digest", "virtualhost", "regex"], Carried(1)),
    (&["regex_no_match"], Carried(0)),
    (&["status_code", "regex_options"], Carried(MANY)),
    (&["regex_stack"], Reported("there is no stack to set")),
    (&["regex_min_offset", "regex_max_offset"], Warned("the whole body is searched")),
    (&["tls_compliant"], Reported(TLS_END)),
];
