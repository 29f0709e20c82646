use super::*;

const NOW: Duration = Duration::ZERO;

fn limits(bytes_max: usize, overflow: Overflow) -> OutboxLimits {
    OutboxLimits {
        bytes_max,
        time_max: Duration::from_secs(60),
        overflow,
        fragment_bytes_max: 1000,
    }
}

fn epoch(header: &'static str) -> Arc<Epoch> {
    Arc::new(Epoch {
        header: Bytes::from_static(header.as_bytes()),
        timecodes: TimecodeType::Relative,
        started: Timestamp::from_millis(0),
        scale_ns: 1_000_000,
        ours: true,
    })
}

/// Puts a fragment of two pieces, `a<timecode>` and `b<timecode>`.
fn put(outbox: &mut Outbox, epoch: &Arc<Epoch>, timecode: u64) {
    assert_eq!(
        outbox.begin(epoch, timecode, Bytes::from(format!("a{timecode} ")), NOW),
        Put::Taken
    );
    assert_eq!(
        outbox.append(&Bytes::from(format!("b{timecode} ")), true, NOW),
        Put::Taken
    );
}

fn ack(event: EventType, timecode: i64) -> Ack {
    Ack {
        event,
        fragment_timecode: Some(timecode),
        fragment_number: None,
        error_id: (event == EventType::Error).then_some(4002),
        error_code: None,
    }
}

/// All that a connection can send, and what stopped it.
fn sent(outbox: &mut Outbox, connection: u64, cursor: &mut Cursor) -> (String, Next) {
    let mut text = String::new();
    loop {
        match outbox.next(connection, cursor, true, NOW) {
            Next::Piece(piece) => text += std::str::from_utf8(&piece).unwrap(),
            stop => return (text, stop),
        }
    }
}

#[test]
fn what_was_not_persisted_is_sent_again_whole_and_what_was_is_not() {
    let mut outbox = Outbox::new(limits(1000, Overflow::Wait));
    let epoch = epoch("H ");
    for timecode in [0, 1000, 2000] {
        put(&mut outbox, &epoch, timecode);
    }
    let mut cursor = Cursor::default();
    let (text, stop) = sent(&mut outbox, 1, &mut cursor);
    assert_eq!(
        (text.as_str(), stop),
        ("H a0 b0 a1000 b1000 a2000 b2000 ", Next::Nothing)
    );
    outbox.acknowledge(1, &ack(EventType::Persisted, 0), NOW);
    outbox.acknowledge(1, &ack(EventType::Received, 1000), NOW);
    outbox.release(1);
    outbox.append(&Bytes::from_static(b"c2000 "), false, NOW);
    let (text, _) = sent(&mut outbox, 2, &mut Cursor::default());
    assert_eq!(text, "H a1000 b1000 a2000 b2000 c2000 ");
    // An acknowledgement of a connection that is gone is about nothing.
    assert_eq!(
        outbox.acknowledge(1, &ack(EventType::Persisted, 1000), NOW),
        Acknowledged::default()
    );
    assert_eq!(
        (outbox.stats.resent, outbox.stats.confirmed, outbox.unconfirmed().len()),
        (2, 1, 2)
    );
}

#[test]
fn an_older_fragment_and_another_header_need_another_connection() {
    let mut outbox = Outbox::new(limits(1000, Overflow::Wait));
    let (first, second) = (epoch("H "), epoch("J "));
    put(&mut outbox, &first, 0);
    put(&mut outbox, &first, 1000);
    let mut old = Cursor::default();
    assert_eq!(sent(&mut outbox, 1, &mut old).1, Next::Nothing);
    put(&mut outbox, &first, 2000);
    let mut new = Cursor::default();
    // The open fragment of connection 1 has ended meanwhile; connection 2 goes on behind it.
    assert_eq!(sent(&mut outbox, 2, &mut new).0, "H a2000 b2000 ");
    assert!(!outbox.all_numbered(|connection| connection == 1));
    outbox.release(1);
    assert_eq!(
        sent(&mut outbox, 2, &mut new).1,
        Next::Nothing,
        "the open fragment is not left"
    );
    put(&mut outbox, &second, 0);
    assert_eq!(sent(&mut outbox, 2, &mut new), (String::new(), Next::Change));
    outbox.release(2);
    let mut third = Cursor::default();
    assert_eq!(
        sent(&mut outbox, 3, &mut third),
        ("H a0 b0 a1000 b1000 a2000 b2000 ".to_owned(), Next::Change)
    );
}

#[test]
fn a_full_buffer_makes_the_caller_wait_but_never_for_ever() {
    let mut outbox = Outbox::new(limits(10, Overflow::Wait));
    let epoch = epoch("H");
    // A lone fragment may grow beyond the limit: nothing else could end it.
    assert_eq!(
        outbox.begin(&epoch, 0, Bytes::from_static(b"12345678901"), NOW),
        Put::Taken
    );
    assert_eq!(outbox.append(&Bytes::from_static(b"12345"), true, NOW), Put::Taken);
    // So may the first piece of the next, whose head tells the server that the one before has ended.
    assert_eq!(outbox.begin(&epoch, 10, Bytes::from_static(b"1"), NOW), Put::Taken);
    assert_eq!(outbox.append(&Bytes::from_static(b"1"), true, NOW), Put::Full);
    assert_eq!(outbox.append(&Bytes::from(vec![0; 1000]), true, NOW), Put::TooLarge);
    sent(&mut outbox, 1, &mut Cursor::default());
    outbox.acknowledge(1, &ack(EventType::Persisted, 0), NOW);
    assert_eq!(outbox.append(&Bytes::from_static(b"1"), true, NOW), Put::Taken);
    assert_eq!((outbox.stats.buffered_bytes, outbox.stats.buffered_bytes_peak), (2, 17));
}

#[test]
fn a_full_buffer_drops_the_oldest_and_goes_on_at_a_key_frame() {
    let mut outbox = Outbox::new(limits(16, Overflow::DropOldest));
    let epoch = epoch("H ");
    put(&mut outbox, &epoch, 0);
    assert_eq!(outbox.begin(&epoch, 10, Bytes::from_static(b"no key"), NOW), Put::Taken);
    put(&mut outbox, &epoch, 20);
    let lost: Vec<(u64, LossReason)> = outbox
        .take_news()
        .into_iter()
        .map(|l| (l.fragment.timecode, l.reason))
        .collect();
    assert_eq!(lost, [(0, LossReason::BufferFull)]);
    assert_eq!(sent(&mut outbox, 1, &mut Cursor::default()).0, "H a20 b20 ");
    let (lost, count) = outbox.take_lost();
    assert_eq!((count, &lost[1].reason), (2, &LossReason::NoKeyFrame));
}

#[test]
fn a_refused_fragment_is_lost_and_the_others_are_sent_again() {
    let mut outbox = Outbox::new(limits(1000, Overflow::Wait));
    let epoch = epoch("H ");
    for timecode in [0, 10, 20] {
        put(&mut outbox, &epoch, timecode);
    }
    sent(&mut outbox, 1, &mut Cursor::default());
    assert!(outbox.refuse(1, &ack(EventType::Error, 10)));
    outbox.release(1);
    assert_eq!(sent(&mut outbox, 2, &mut Cursor::default()).0, "H a0 b0 a20 b20 ");
    let unnamed = Ack {
        fragment_timecode: None,
        ..ack(EventType::Error, 0)
    };
    assert!(outbox.refuse(2, &unnamed), "the oldest that has not arrived");
    assert_eq!(outbox.unconfirmed().len(), 1);
    assert!(!outbox.refuse(3, &unnamed), "a connection that carries nothing");
}

#[test]
fn without_retention_a_received_fragment_is_delivered() {
    let mut outbox = Outbox::new(limits(1000, Overflow::Wait));
    outbox.set_confirm(Confirm::Received);
    put(&mut outbox, &epoch("H"), 0);
    sent(&mut outbox, 1, &mut Cursor::default());
    outbox.acknowledge(1, &ack(EventType::Buffering, 0), NOW);
    assert!(!outbox.is_empty() && outbox.all_numbered(|_| true));
    outbox.acknowledge(1, &ack(EventType::Received, 0), NOW);
    assert!(outbox.is_empty());
}

#[test]
fn a_connection_that_is_relieved_ends_at_a_fragments_end() {
    let mut outbox = Outbox::new(limits(1000, Overflow::Wait));
    let epoch = epoch("H ");
    put(&mut outbox, &epoch, 0);
    let mut cursor = Cursor::of(Arc::clone(&epoch));
    assert_eq!(sent(&mut outbox, 1, &mut cursor).0, "H a0 b0 ");
    outbox.append(&Bytes::from_static(b"c0"), false, NOW);
    assert_eq!(
        outbox.next(1, &mut cursor, false, NOW),
        Next::Piece(Bytes::from_static(b"c0"))
    );
    assert_eq!(outbox.next(1, &mut cursor, false, NOW), Next::Nothing);
    put(&mut outbox, &epoch, 10);
    assert_eq!(outbox.next(1, &mut cursor, false, NOW), Next::Change);
    assert!(cursor.between_fragments());
}
