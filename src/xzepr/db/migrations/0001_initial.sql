-- The tables that everything hangs on: definitions with their versions, events by month, outbox, stream, and the fold's state.
-- Ids are ULIDs as text in the "C" collation, so that their order is the order of time on every installation.

-- One sequence numbers every fact (events and definition changes). CACHE 1: a client that saw 201 for A before it sent B gets A < B.
-- Numbers below 10^12 are kept for imports of older events.
create sequence fact_seq as bigint minvalue 1 start with 1000000000000 cache 1;

create table event_receivers (
    id text collate "C" not null,
    name text not null,
    type text not null,
    version text not null,
    description text not null,
    schema json not null,
    -- The draft that "$schema" absent stands for: 2020-12 through the REST door, 7 through the EPR door.
    default_draft text not null,
    fingerprint text not null,
    restricted boolean not null,
    owner_id text collate "C",
    resource_version integer not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    deleted_at timestamptz,
    constraint event_receivers_pkey primary key (id),
    constraint event_receivers_id_is_ulid check (length(id) = 26),
    constraint event_receivers_version_is_positive check (resource_version >= 1)
);
create index event_receivers_type_idx on event_receivers (type, id) where deleted_at is null;
create index event_receivers_name_idx on event_receivers (name, id) where deleted_at is null;
create index event_receivers_fingerprint_idx on event_receivers (fingerprint, id) where deleted_at is null;

-- Append-only: an event names the version that its payload passed, a message the version that it tells of.
create table event_receiver_versions (
    event_receiver_id text collate "C" not null,
    resource_version integer not null,
    seq bigint not null,
    name text not null,
    type text not null,
    version text not null,
    description text not null,
    schema json not null,
    default_draft text not null,
    fingerprint text not null,
    restricted boolean not null,
    deleted boolean not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    constraint event_receiver_versions_pkey primary key (event_receiver_id, resource_version),
    constraint event_receiver_versions_receiver_fkey foreign key (event_receiver_id) references event_receivers (id)
);

create table event_receiver_groups (
    id text collate "C" not null,
    name text not null,
    type text not null,
    version text not null,
    description text not null,
    enabled boolean not null,
    event_receiver_ids text[] collate "C" not null,
    owner_id text collate "C",
    resource_version integer not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    deleted_at timestamptz,
    constraint event_receiver_groups_pkey primary key (id),
    constraint event_receiver_groups_id_is_ulid check (length(id) = 26),
    constraint event_receiver_groups_version_is_positive check (resource_version >= 1),
    constraint event_receiver_groups_has_receivers check (cardinality(event_receiver_ids) >= 1)
);
create index event_receiver_groups_type_idx on event_receiver_groups (type, id) where deleted_at is null;
create index event_receiver_groups_name_idx on event_receiver_groups (name, id) where deleted_at is null;
create index event_receiver_groups_receivers_idx on event_receiver_groups using gin (event_receiver_ids);

create table event_receiver_group_versions (
    event_receiver_group_id text collate "C" not null,
    resource_version integer not null,
    seq bigint not null,
    name text not null,
    type text not null,
    version text not null,
    description text not null,
    enabled boolean not null,
    event_receiver_ids text[] collate "C" not null,
    deleted boolean not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    constraint event_receiver_group_versions_pkey primary key (event_receiver_group_id, resource_version),
    constraint event_receiver_group_versions_group_fkey foreign key (event_receiver_group_id) references event_receiver_groups (id)
);

-- One partition a month, by id: a ULID begins with its time. No foreign key points to or from here: a check per small insert costs twice
-- the insert, and a partition that is referenced cannot be dropped. seq comes from fact_seq, as plain numbers: identity columns attach
-- differently in PostgreSQL 15 and 18.
create table events (
    id text collate "C" not null,
    seq bigint not null,
    artifact_id bytea not null,
    name text not null,
    version text not null,
    release text not null,
    platform_id text not null,
    package text not null,
    description text not null,
    -- json, never jsonb: the text comes back as it was sent.
    payload json not null,
    success boolean not null,
    event_receiver_id text collate "C" not null,
    event_receiver_version integer not null,
    owner_id text collate "C",
    created_at timestamptz not null,
    traceparent text,
    constraint events_pkey primary key (id),
    constraint events_id_is_ulid check (length(id) = 26),
    constraint events_artifact_id_is_16_bytes check (octet_length(artifact_id) = 16)
) partition by range (id);
create index events_artifact_idx on events (artifact_id, seq);
create index events_name_idx on events (name text_pattern_ops, id);
create index events_receiver_idx on events (event_receiver_id, id);
create index events_owner_idx on events (owner_id, id);
-- Rows whose month has no partition (a wrong clock). Emptied when the month's partition is made; never meant to hold anything for long.
create table events_default partition of events default;

-- Facts that are committed and not yet in the stream. A row is written in the transaction of the fact itself, under the fact's number.
create table outbox (
    seq bigint not null,
    kind text not null,
    artifact_id bytea,
    event_id text collate "C",
    event_receiver_id text collate "C",
    event_receiver_version integer,
    event_receiver_group_id text collate "C",
    event_receiver_group_version integer,
    success boolean,
    traceparent text,
    constraint outbox_pkey primary key (seq),
    constraint outbox_event_is_whole check (
        kind <> 'event.recorded'
        or (artifact_id is not null and event_id is not null and event_receiver_id is not null and event_receiver_version is not null and success is not null)
    ),
    constraint outbox_receiver_is_whole check (
        kind not like 'receiver.%' or (event_receiver_id is not null and event_receiver_version is not null)
    ),
    constraint outbox_group_is_whole check (
        kind not like 'group.%' or (event_receiver_group_id is not null and event_receiver_group_version is not null)
    )
);
-- A status query folds what is still queued for one artifact over the heads.
create index outbox_artifact_idx on outbox (artifact_id) where artifact_id is not null;

-- All messages by position. A row points at immutable rows; the envelope is made from them when it is read.
create table stream (
    position bigint not null,
    message_id text collate "C" not null,
    kind text not null,
    seq bigint not null,
    artifact_id bytea,
    event_id text collate "C",
    event_receiver_id text collate "C",
    event_receiver_version integer,
    event_receiver_group_id text collate "C",
    event_receiver_group_version integer,
    success boolean not null,
    first boolean,
    sequenced_at timestamptz not null,
    traceparent text,
    constraint stream_pkey primary key (position),
    constraint stream_position_is_positive check (position >= 1)
) partition by range (position);
create table stream_default partition of stream default;

-- The sequencer's one row: the lease, by the database's clock, and the last position given.
create table sequencer (
    only_row boolean not null default true,
    epoch bigint not null,
    holder text,
    expires_at timestamptz not null,
    last_position bigint not null,
    constraint sequencer_pkey primary key (only_row),
    constraint sequencer_has_one_row check (only_row)
);
insert into sequencer (epoch, holder, expires_at, last_position) values (0, null, '-infinity', 0);

-- The fold's state: what was sequenced, never what the tables above show. Written by the sequencer alone.
create table gate_heads (
    artifact_id bytea not null,
    event_receiver_id text collate "C" not null,
    event_id text collate "C" not null,
    seq bigint not null,
    success boolean not null,
    constraint gate_heads_pkey primary key (artifact_id, event_receiver_id)
);
create table group_states (
    event_receiver_group_id text collate "C" not null,
    artifact_id bytea not null,
    event_receiver_group_version integer not null,
    complete boolean not null,
    -- The trigger of the last decision, for the artifact's five fields and the time.
    event_id text collate "C" not null,
    -- Of the first "group complete" ever told for this pair (null: none yet), and of the last decision.
    first_position bigint,
    last_position bigint not null,
    constraint group_states_pkey primary key (event_receiver_group_id, artifact_id)
);
create index group_states_recent_idx on group_states (event_receiver_group_id, last_position desc);
create table sequenced_groups (
    event_receiver_group_id text collate "C" not null,
    resource_version integer not null,
    constraint sequenced_groups_pkey primary key (event_receiver_group_id)
);

-- Queues and counters are rewritten all day: keep their dead rows few, and leave room on the page for updates in place.
alter table outbox set (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
alter table sequencer set (fillfactor = 10, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 500);
alter table gate_heads set (fillfactor = 80);
