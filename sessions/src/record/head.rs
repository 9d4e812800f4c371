//! What stands in a payload before its fields: nothing at all for the usual session.
//!
//! ```text
//! head = flags  [idle]  [absolute]  [holder (8 bytes)  lease-time]  [count (one byte)  write id (4 bytes)*]
//!        [last-seen  length  user-agent  length  address]  [cookie-sent]
//!        [binding-id (16 bytes)  public-key (33 bytes)  bound-at]
//! ```
//!
//! The flag of a session that was adopted has nothing behind it. Flags and times, in milliseconds, are
//! [varints](crate::varint). A write id of zero is none: there is room for all that are kept from the first one
//! on, so that a head does not grow from save to save, and a store that sends what has changed finds the rest
//! where it was. What a later version may add behind is ignored, and lost with the next save.

use std::time::{Duration, SystemTime};

use crate::{
    clock::{from_millis, to_millis},
    record::{
        Record,
        binding::{Binding, BindingId, DeviceKey},
        device::Device,
        expiry::{Lifetime, as_stored},
    },
    varint,
};

const IDLE: u64 = 1;
const ABSOLUTE: u64 = 2;
/// Whether the lifetime says something of the cookie's persistence; [`PERSISTENT`] is what it says.
const PERSISTENCE: u64 = 4;
const PERSISTENT: u64 = 8;
const LEASE: u64 = 16;
const WRITE_IDS: u64 = 32;
const DEVICE: u64 = 64;
const COOKIE_SENT: u64 = 128;
const BINDING: u64 = 256;
const ADOPTED: u64 = 512;

/// How many saves a record remembers. Of one that is further back nobody can tell whether it was ever
/// carried out.
pub(crate) const WRITE_IDS_KEPT: usize = 8;

/// The place of a write id that is not there yet. No save has it.
pub(crate) const NO_WRITE_ID: u32 = 0;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) lifetime: Lifetime,
    /// Who alone may save this session just now.
    pub(crate) lease: Option<Lease>,
    /// The write ids of the last saves, the newest first: by its write id a save whose answer was lost is
    /// found again.
    pub(crate) write_ids: Vec<u32>,
    /// What the user recognises the session by, and when it was last saved.
    pub(crate) device: Option<Box<(Device, SystemTime)>>,
    /// When a persistent cookie was sent again, last, only because it was old.
    pub(crate) cookie_sent: Option<SystemTime>,
    /// The device that the session is bound to.
    pub(crate) binding: Option<Box<Binding>>,
    /// The user has logged in before the session began, in another library: nobody knows when.
    pub(crate) is_adopted: bool,
}

/// A record with its head, which is parsed once.
#[derive(Clone)]
pub(crate) struct Loaded {
    pub(crate) record: Record,
    /// As the record has it.
    pub(crate) head: Head,
}

/// The right to be the only one who saves a session, for as long as it is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    /// A random number for each lease that is taken.
    pub(crate) holder: u64,
    /// A process that sees the record unchanged for so long may take over. No clock is compared with
    /// another's.
    pub(crate) time: Duration,
}

impl Head {
    /// Notes one more save.
    pub(crate) fn note_write(&mut self, write_id: u32) {
        self.write_ids.insert(0, write_id);
        self.write_ids.truncate(WRITE_IDS_KEPT);
    }

    /// The write id of the save that made the record, if it has one.
    pub(crate) fn write_id(&self) -> Option<u32> {
        self.write_ids.first().copied()
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if *self == Self::default() {
            return out;
        }
        let Self { lifetime, lease, write_ids, device, cookie_sent, binding, is_adopted } = self;
        let flag = |flag: u64, is_set: bool| if is_set { flag } else { 0 };
        let flags = flag(IDLE, lifetime.idle.is_some())
            | flag(ABSOLUTE, lifetime.absolute.is_some())
            | flag(PERSISTENCE, lifetime.persistent.is_some())
            | flag(PERSISTENT, lifetime.persistent == Some(true))
            | flag(LEASE, lease.is_some())
            | flag(WRITE_IDS, !write_ids.is_empty())
            | flag(DEVICE, device.is_some())
            | flag(COOKIE_SENT, cookie_sent.is_some())
            | flag(BINDING, binding.is_some())
            | flag(ADOPTED, *is_adopted);
        varint::put(flags, &mut out);
        for timeout in [lifetime.idle, lifetime.absolute].into_iter().flatten() {
            varint::put(timeout.as_millis() as u64, &mut out);
        }
        if let Some(Lease { holder, time }) = lease {
            out.extend(holder.to_le_bytes());
            varint::put(time.as_millis() as u64, &mut out);
        }
        if !write_ids.is_empty() {
            out.push(WRITE_IDS_KEPT as u8);
            let places = write_ids.iter().copied().chain(std::iter::repeat(NO_WRITE_ID));
            out.extend(places.take(WRITE_IDS_KEPT).flat_map(u32::to_le_bytes));
        }
        if let Some((device, last_seen)) = device.as_deref() {
            varint::put(to_millis(*last_seen), &mut out);
            for text in device.texts() {
                let text = text.unwrap_or_default();
                varint::put(text.len() as u64, &mut out);
                out.extend(text.as_bytes());
            }
        }
        if let Some(sent) = cookie_sent {
            varint::put(to_millis(*sent), &mut out);
        }
        if let Some(Binding { id, key, since }) = binding.as_deref() {
            out.extend(id.as_bytes());
            out.extend(key.as_bytes());
            varint::put(to_millis(*since), &mut out);
        }
        out
    }

    /// `None` if the bytes are no head.
    pub(crate) fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::default());
        }
        let flags = varint::take(&mut bytes)?;
        let has = |flag: u64| flags & flag != 0;
        let time = |bytes: &mut &[u8]| {
            varint::take(bytes).map(|millis| as_stored(Duration::from_millis(millis)))
        };
        let mut head = Self::default();
        if has(IDLE) {
            head.lifetime.idle = Some(time(&mut bytes)?);
        }
        if has(ABSOLUTE) {
            head.lifetime.absolute = Some(time(&mut bytes)?);
        }
        if has(PERSISTENCE) {
            head.lifetime.persistent = Some(has(PERSISTENT));
        }
        if has(LEASE) {
            let (holder, rest) = bytes.split_first_chunk()?;
            bytes = rest;
            let holder = u64::from_le_bytes(*holder);
            head.lease = Some(Lease { holder, time: time(&mut bytes)? });
        }
        if has(WRITE_IDS) {
            let count = usize::from(*bytes.split_off_first()?);
            let (write_ids, _) = bytes.as_chunks();
            let write_ids = write_ids.get(..count)?;
            bytes = &bytes[4 * count..];
            let write_ids = write_ids.iter().map(|write_id| u32::from_le_bytes(*write_id));
            head.write_ids = write_ids.filter(|write_id| *write_id != NO_WRITE_ID).collect();
        }
        if has(DEVICE) {
            let last_seen = from_millis(varint::take(&mut bytes)?);
            let device = Device::from_texts(take_text(&mut bytes)?, take_text(&mut bytes)?);
            head.device = Some(Box::new((device, last_seen)));
        }
        if has(COOKIE_SENT) {
            head.cookie_sent = Some(from_millis(varint::take(&mut bytes)?));
        }
        head.is_adopted = has(ADOPTED);
        if has(BINDING) {
            let id = BindingId::from_bytes(take_array(&mut bytes)?);
            let key = DeviceKey::from_bytes(take_array(&mut bytes)?);
            let since = from_millis(varint::take(&mut bytes)?);
            head.binding = Some(Box::new(Binding { id, key, since }));
        }
        Some(head)
    }
}

fn take_array<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (array, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*array)
}

fn take_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let length = usize::try_from(varint::take(bytes)?).ok()?;
    str::from_utf8(bytes.split_off(..length)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn heads_come_back() {
        let lifetimes = [
            Lifetime::new(),
            Lifetime::new().without_persistent_cookie(),
            Lifetime::new().with_persistent_cookie().with_idle_timeout(HOUR),
            Lifetime::new().with_absolute_timeout(Duration::from_millis(1)),
            Lifetime::new()
                .with_idle_timeout(Duration::ZERO)
                .with_absolute_timeout(HOUR)
                .with_persistent_cookie(),
        ];
        let leases = [None, Some(Lease { holder: u64::MAX - 7, time: HOUR })];
        for lifetime in lifetimes {
            for lease in leases {
                let time = from_millis(u64::from(u32::MAX));
                let binding = Binding {
                    id: BindingId::from_bytes([7; 16]),
                    key: DeviceKey::from_bytes([3; 33]),
                    since: time,
                };
                for (write_ids, device, cookie_sent, binding) in [
                    (vec![], None, None, None),
                    (vec![], None, None, Some(binding)),
                    (vec![1], Some(Device::new()), Some(time), None),
                    (
                        vec![u32::MAX; WRITE_IDS_KEPT],
                        Some(Device::new().with_user_agent("Zoë's")),
                        None,
                        Some(binding),
                    ),
                ] {
                    let binding = binding.map(Box::new);
                    let device = device.map(|it| Box::new((it, time)));
                    let is_adopted = binding.is_some();
                    let head = Head {
                        lifetime,
                        lease,
                        write_ids,
                        device,
                        cookie_sent,
                        binding,
                        is_adopted,
                    };
                    let bytes = head.to_bytes();
                    assert_eq!(Head::from_bytes(&bytes), Some(head.clone()));
                    let later = [&bytes[..], b"later"].concat();
                    assert!(bytes.is_empty() || Head::from_bytes(&later) == Some(head.clone()));
                    for cut in 1..bytes.len() {
                        assert_eq!(Head::from_bytes(&bytes[..cut]), None, "{head:?} cut at {cut}");
                    }
                }
            }
        }
    }

    /// Old payloads must stay readable.
    #[test]
    fn golden() {
        assert!(Head::default().to_bytes().is_empty());
        let lifetime =
            Lifetime::new().with_idle_timeout(Duration::from_millis(300)).with_persistent_cookie();
        let lease = Some(Lease { holder: 0x0807_0605_0403_0201, time: Duration::from_millis(5) });
        let head = Head { lifetime, lease, write_ids: vec![0x0403_0201], ..Head::default() };
        let begin = b"\x3d\xac\x02\x01\x02\x03\x04\x05\x06\x07\x08\x05\x08\x01\x02\x03\x04";
        assert_eq!(head.to_bytes(), [&begin[..], &[0; 28]].concat());
        let device = Device::new().with_user_agent("Zoë").with_address("::1");
        let head = Head { device: Some(Box::new((device, from_millis(300)))), ..Head::default() };
        assert_eq!(head.to_bytes(), b"\x40\xac\x02\x04Zo\xc3\xab\x03::1");
        let head = Head { cookie_sent: Some(from_millis(300)), ..Head::default() };
        assert_eq!(head.to_bytes(), b"\x80\x01\xac\x02");
        let head = Head { is_adopted: true, ..Head::default() };
        assert_eq!(head.to_bytes(), b"\x80\x04");
        let binding = Binding {
            id: BindingId::from_bytes(*b"0123456789abcdef"),
            key: DeviceKey::from_bytes(*b"\x02the x of a point in 32 bytes ..."),
            since: from_millis(300),
        };
        let head = Head { binding: Some(Box::new(binding)), ..Head::default() };
        let written = b"\x80\x020123456789abcdef\x02the x of a point in 32 bytes ...\xac\x02";
        assert_eq!(head.to_bytes(), written);
    }

    /// A save changes the write ids and nothing else.
    #[test]
    fn a_head_with_write_ids_does_not_grow() {
        let mut head = Head::default();
        head.note_write(1);
        let length = head.to_bytes().len();
        for write_id in 2..20 {
            head.note_write(write_id);
            assert_eq!(head.to_bytes().len(), length);
        }
    }

    #[test]
    fn only_the_last_saves_are_remembered() {
        let mut head = Head::default();
        (0..100).for_each(|write_id| head.note_write(write_id));
        assert_eq!(head.write_ids, [99, 98, 97, 96, 95, 94, 93, 92]);
    }
}
