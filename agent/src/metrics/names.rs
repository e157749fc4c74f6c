//! Every metric of the gateway: its name (without `_total`), what it is, and its help. Nothing else is written (`metrics`), and what dashboard and
//! alert rules name stands here or in the desk's own list (a tidy test compares).
//!
//! Labels are `feed`, `lane`, `code` with `severity`, and on one info family who and what this is: all of closed lists or of the configuration, so
//! a page is bounded. No control ids, no peers, no texts (I7). What is counted is counted since the agent started, unless said otherwise.

use super::text::families;

families! {
    BUILD = "siteward_build_info", Gauge, "1, with the gateway's site and id and the agent's version.";
    UPTIME = "siteward_uptime_seconds", Gauge, "Time since the agent started.";
    STARTS = "siteward_starts", Counter, "How often an agent was started on this spool.";
    CLOCK_SUSPECT = "siteward_clock_suspect", Gauge, "1 while the system's clock cannot be believed, else 0.";

    UPLINK_UP = "siteward_uplink_up", Gauge, "1 while connected to the hub's broker, else 0.";
    UPLINK_STATE_AGE = "siteward_uplink_state_age_seconds", Gauge, "How long the uplink has been as it is, connected or not.";
    UPLINK_CONNECTIONS = "siteward_uplink_connections", Counter, "Connections to a broker that were made.";
    UPLINK_FAILURES = "siteward_uplink_failures", Counter, "Connections and attempts at one that failed or broke.";
    UPLINK_REFUSALS = "siteward_uplink_refusals", Counter, "Attempts that a broker refused by login, certificate or rights.";
    UPLINK_PUBLISHED = "siteward_uplink_published", Counter, "Records that were published, each time they were.";
    UPLINK_ACKNOWLEDGED = "siteward_uplink_acknowledged", Counter, "Published records that a broker acknowledged with success.";
    UPLINK_RECEIPTS = "siteward_uplink_receipts", Counter, "Receipts of the hub that moved a feed forward.";
    UPLINK_ACKNOWLEDGED_AGE = "siteward_uplink_last_acknowledged_age_seconds", Gauge, "Time since the broker acknowledged a record.";
    UPLINK_RECEIPT_AGE = "siteward_uplink_last_receipt_age_seconds", Gauge, "Time since a receipt moved a feed forward.";
    CERTIFICATE_END =
        "siteward_uplink_certificate_not_after_timestamp_seconds", Gauge, "When the gateway's own certificate ends, the earliest of its chain.";

    FEED_CAPTURED = "siteward_feed_captured", Counter, "Records of the feed that were made durable.";
    FEED_RELEASED = "siteward_feed_released", Counter, "Records of the feed that were settled.";
    FEED_DUPLICATES = "siteward_feed_duplicates", Counter, "Messages of the feed that were answered as known.";
    FEED_REFUSED = "siteward_feed_refused", Counter, "Messages of the feed that were answered negatively.";
    FEED_QUARANTINED = "siteward_feed_quarantined", Counter, "Records and input of the feed that were put into quarantine.";
    FEED_QUEUED = "siteward_feed_queued_records", Gauge, "Records of the feed that the hub has not confirmed.";
    FEED_OLDEST = "siteward_feed_oldest_age_seconds", Gauge, "Age of the feed's oldest unconfirmed record; 0 while there is none.";
    FEED_MESSAGE_AGE = "siteward_feed_last_message_age_seconds", Gauge, "Time since a message of the feed came.";
    FEED_SEQ = "siteward_feed_last_seq", Gauge, "Sequence number of the feed's newest durable record, over all incarnations.";
    FEED_CONNECTIONS = "siteward_feed_connections", Gauge, "Connections of senders that are open now.";
    FEED_CONNECTIONS_REFUSED = "siteward_feed_connections_refused", Counter, "Connections refused by address or TLS.";
    FEED_RETIRED = "siteward_feed_retired", Gauge, "1 for a feed that is no longer configured and still drains, else 0.";
    FEED_SILENT = "siteward_feed_silent", Gauge, "1 while what the feed is expected to bring did not come, else 0; only of feeds that say so.";

    FEED_OBJECTIVE = "siteward_feed_objective_missed", Gauge,
        "1 while the feed's oldest unconfirmed record is older than its delivery objective, else 0; only of feeds that have one.";

    LANE_RECORDS = "siteward_lane_queued_records", Gauge, "Records of the lane that the hub has not confirmed.";
    LANE_BYTES = "siteward_lane_bytes", Gauge, "Bytes of the lane's segments.";
    LANE_OLDEST = "siteward_lane_oldest_age_seconds", Gauge, "Age of the lane's oldest unconfirmed record; 0 while there is none.";

    SPOOL_BYTES = "siteward_spool_bytes", Gauge, "Bytes that the spool takes.";
    SPOOL_MAX = "siteward_spool_max_bytes", Gauge, "Bytes that the spool may take.";
    SPOOL_FULL = "siteward_spool_time_to_full_seconds", Gauge, "Time until the spool is full at the present rate; absent while it does not fill.";
    SPOOL_SYNC = "siteward_spool_sync_seconds", Histogram, "Time of one write and fdatasync of the journal, on which senders wait.";
    NOTES_DROPPED = "siteward_notes_dropped", Counter, "Notes for the history of messages that were dropped under load; no message is affected.";

    CONDITIONS = "siteward_condition", Gauge, "How often a condition is raised now, 0 for none; the runbook has a section for each code.";
    ALERTING = "siteward_condition_alerting", Gauge,
        "The same, of those whose hold-down is over and that no maintenance window silences: alert on this.";
    SILENCED = "siteward_conditions_silenced", Gauge, "Raised conditions that a maintenance window keeps from alerting.";
    MAINTENANCE = "siteward_maintenance_windows", Gauge, "Maintenance windows that hold.";
    ALERTS_SENT = "siteward_alerts_sent", Counter, "Alert lines that were handed to the syslog receiver.";
    ALERTS_WAITING = "siteward_alerts_waiting", Gauge, "Alert lines that wait for the syslog receiver.";
    ALERTS_DROPPED = "siteward_alerts_dropped", Counter, "Alert lines that were given up: too many waited.";

    CONFIG_REVISION = "siteward_config_revision", Gauge, "Revision of the document that runs; 0 for the local file alone.";
    CONFIG_STATE = "siteward_config_state", Gauge, "1 for the state that the configuration is in, 0 for the others.";

    RESIDENT = "siteward_process_resident_bytes", Gauge, "Resident memory of the agent.";
    CPU = "siteward_process_cpu_seconds", Counter, "Processor time of the agent.";
    FDS = "siteward_process_open_fds", Gauge, "Open file descriptors of the agent.";
    THREADS = "siteward_process_threads", Gauge, "Threads of the agent.";
}
