//! What a message says, for people.

use plimsoll_core::notice::Event;

/// A message in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What happened, on one line.
    pub subject: String,
    /// What, how much, since when, who is behind it, what to do, and where to look.
    pub body: String,
}

/// How messages are written.
#[derive(Debug, Clone, Default)]
pub struct Texts {
    /// What comes before the paths of links.
    pub server_url: Option<String>,
}

impl Texts {
    /// The message of an event.
    #[must_use]
    pub fn message(&self, event: &Event) -> Message {
        let title = plain(&event.title);
        let mut lines = vec![title.clone(), String::new()];
        let figures = event.figures.iter();
        lines.extend(figures.map(|f| format!("{}: {}", plain(&f.name), plain(&f.value))));
        if let Some(since) = super::time(event.since_ms).as_str() {
            lines.push(format!("since: {since}"));
        }
        if !event.by.is_empty() {
            lines.push(format!("by: {}", plain(&event.by.join(", "))));
        }
        if let Some(advice) = &event.advice {
            lines.extend([String::new(), plain(advice)]);
        }
        if let Some(link) = self.link(event) {
            lines.extend([String::new(), link]);
        }
        lines.push(String::new());
        Message {
            subject: title,
            body: lines.join("\n"),
        }
    }

    /// Where to look.
    #[must_use]
    pub fn link(&self, event: &Event) -> Option<String> {
        let server = self.server_url.as_deref()?;
        Some(format!("{}{}", server.trim_end_matches('/'), event.link))
    }
}

/// On one line, whatever a name or a reason holds.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use plimsoll_core::entity::UserId;
    use plimsoll_core::notice::{About, EventKind};

    use super::*;

    #[test]
    fn a_message_says_what_how_much_since_when_who_and_where() {
        let about = About::user(UserId(uuid::Uuid::nil()), "ada");
        let event = Event::new(EventKind::QuotaChanged, about, "Ada's quota", "/mine", 0)
            .figure("cpu", "2, was 1")
            .figure("reason", "because\nBcc: everybody")
            .by("root")
            .advice("Look at it.");
        let texts = Texts {
            server_url: Some("https://plimsoll.lab/".into()),
        };
        let message = texts.message(&event);
        assert_eq!(message.subject, "Ada's quota");
        assert_eq!(
            message.body,
            "Ada's quota\n\ncpu: 2, was 1\nreason: because Bcc: everybody\n\
             since: 1970-01-01T00:00:00Z\nby: root\n\nLook at it.\n\nhttps://plimsoll.lab/mine\n"
        );
        assert!(!Texts::default().message(&event).body.contains("/mine"));
    }
}
