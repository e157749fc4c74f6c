//! What is wrong with a message, or with us: its name in quarantine and log, and how HL7 says it (table 0357, and where).

/// A closed list; every one of them is answered by the table in `ack`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    NoHeader,
    NoControlId,
    /// MSH-10 is longer than what a reply can repeat, or holds framing bytes.
    ControlIdUnusable,
    OverLimit,
    /// MSH-9.1 is not among the feed's `strict.types`.
    UnsupportedType,
    /// MSH-9.1 is, MSH-9.2 is not.
    UnsupportedEvent,
    /// MSH-11.1 is not among the feed's `strict.processing_ids`.
    UnsupportedProcessingId,
    /// MSH-12.1 is not among the feed's `strict.versions`.
    UnsupportedVersion,
    StoreFailed,
}

/// Who is at fault, as the answer table sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// AR, CR: the header is not acceptable, now and for ever.
    Header,
    /// AE, CE: the content is not.
    Content,
    /// AR, CE: we could not, later may do.
    Store,
}

impl Fault {
    /// The name under which the frame is found in quarantine and in the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoHeader => "no_header",
            Self::NoControlId => "no_control_id",
            Self::ControlIdUnusable => "control_id_unusable",
            Self::OverLimit => "over_limit",
            Self::UnsupportedType => "unsupported_type",
            Self::UnsupportedEvent => "unsupported_event",
            Self::UnsupportedProcessingId => "unsupported_processing_id",
            Self::UnsupportedVersion => "unsupported_version",
            Self::StoreFailed => "store_failed",
        }
    }

    /// The bytes cannot be a message; what the sender is told then is `on_invalid`.
    pub fn is_invalid(self) -> bool {
        matches!(self, Self::NoHeader | Self::NoControlId | Self::ControlIdUnusable)
    }

    /// The feed's `strict` edits do not take it.
    pub fn is_strict(self) -> bool {
        matches!(self, Self::UnsupportedType | Self::UnsupportedEvent | Self::UnsupportedProcessingId | Self::UnsupportedVersion)
    }

    pub(super) fn class(self) -> Class {
        match self {
            Self::NoControlId | Self::ControlIdUnusable => Class::Content,
            Self::StoreFailed => Class::Store,
            Self::NoHeader
            | Self::OverLimit
            | Self::UnsupportedType
            | Self::UnsupportedEvent
            | Self::UnsupportedProcessingId
            | Self::UnsupportedVersion => Class::Header,
        }
    }

    /// HL7 table 0357 and its text.
    pub(super) fn condition(self) -> (&'static str, &'static str) {
        match self {
            Self::NoHeader => ("100", "Segment sequence error"),
            Self::NoControlId => ("101", "Required field missing"),
            Self::ControlIdUnusable => ("102", "Data type error"),
            Self::OverLimit => ("104", "Value too long"),
            Self::UnsupportedType => ("200", "Unsupported message type"),
            Self::UnsupportedEvent => ("201", "Unsupported event code"),
            Self::UnsupportedProcessingId => ("202", "Unsupported processing id"),
            Self::UnsupportedVersion => ("203", "Unsupported version id"),
            Self::StoreFailed => ("207", "Application internal error"),
        }
    }

    /// The field of MSH it is about.
    pub(super) fn field(self) -> Option<&'static str> {
        match self {
            Self::NoControlId | Self::ControlIdUnusable => Some("10"),
            Self::UnsupportedType | Self::UnsupportedEvent => Some("9"),
            Self::UnsupportedProcessingId => Some("11"),
            Self::UnsupportedVersion => Some("12"),
            Self::NoHeader | Self::OverLimit | Self::StoreFailed => None,
        }
    }

    /// ERR-8: a sentence for the sender's people, without any content and without the usual delimiters.
    pub(super) fn advice(self) -> &'static str {
        match self {
            Self::NoHeader => "The frame does not begin with MSH",
            Self::NoControlId => "Fill MSH-10 and send again",
            Self::ControlIdUnusable => "MSH-10 is too long to be acknowledged",
            Self::OverLimit => "The message is larger than this interface takes",
            Self::UnsupportedType | Self::UnsupportedEvent => "This interface does not take this message type",
            Self::UnsupportedProcessingId => "This interface does not take this processing id",
            Self::UnsupportedVersion => "This interface does not take this HL7 version",
            Self::StoreFailed => "The message was not stored, send it again later",
        }
    }
}
