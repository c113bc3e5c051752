-- What is removed by age, what must not be, and what remains of it.

-- Whose events no rule removes. A hold that was taken off stays as a row: who held what back, and until when, is asked years later.
create table retention_holds (
    id text collate "C" not null,
    event_receiver_id text collate "C",
    artifact_id bytea,
    name text,
    version text,
    release text,
    platform_id text,
    package text,
    reason text not null,
    created_at timestamptz not null,
    created_by text not null,
    removed_at timestamptz,
    removed_by text,
    constraint retention_holds_pkey primary key (id),
    constraint retention_holds_receiver_fkey foreign key (event_receiver_id) references event_receivers (id),
    constraint retention_holds_artifact_is_whole check (
        num_nonnulls(artifact_id, name, version, release, platform_id, package) in (0, 6)
    ),
    constraint retention_holds_has_one_subject check (num_nonnulls(event_receiver_id, artifact_id) = 1),
    constraint retention_holds_removal_is_whole check (num_nonnulls(removed_at, removed_by) in (0, 2))
);

-- Append-only: what was removed, by which rule, written in the transaction that removed it.
-- first, last: event ids, or positions of messages. partition: of what was dropped as a whole.
create table retention_dispositions (
    id text collate "C" not null,
    at timestamptz not null,
    subject text not null,
    rule_type text,
    rule_days integer,
    event_receiver_id text collate "C",
    event_receiver_type text,
    removed bigint not null,
    first text collate "C" not null,
    last text collate "C" not null,
    oldest_at timestamptz not null,
    newest_at timestamptz not null,
    partition text,
    actor text not null,
    constraint retention_dispositions_pkey primary key (id),
    constraint retention_dispositions_subject_is_known check (subject in ('events', 'messages')),
    constraint retention_dispositions_removed_something check (removed >= 1),
    constraint retention_dispositions_events_name_their_rule check (
        subject <> 'events' or num_nonnulls(rule_type, rule_days, event_receiver_id, event_receiver_type) = 4
    )
);

-- Of removed events that decided a gate or a group: what a status, a list and a later message still say of them. No payload.
create table removed_heads (
    event_id text collate "C" not null,
    event_receiver_version integer not null,
    name text not null,
    version text not null,
    release text not null,
    platform_id text not null,
    package text not null,
    success boolean not null,
    owner_id text collate "C",
    created_at timestamptz not null,
    constraint removed_heads_pkey primary key (event_id)
);

-- Whether a message still shows an event. Costs the sequencer 1.2 µs and 50 bytes a row (measured). Making it holds up the sequencer, not the writers.
create index stream_event_idx on stream (event_id) where event_id is not null;
