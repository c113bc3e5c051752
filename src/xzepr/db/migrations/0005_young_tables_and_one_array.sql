-- The sequencer reads the states of a batch of artifacts. With the artifact first, one index alone can serve that, whatever the planner believes of a
-- young table; by the pair it chose to walk the whole index for each batch.
alter table group_states
    drop constraint group_states_pkey,
    add constraint group_states_pkey primary key (artifact_id, event_receiver_group_id);

-- One parameter brings the events of a transaction. Whoever needs a further field makes a type of another name: processes of both versions run side by
-- side during an upgrade.
create type event_to_record as (
    id text,
    artifact_id bytea,
    name text,
    version text,
    release text,
    platform_id text,
    package text,
    description text,
    payload json,
    success boolean,
    event_receiver_id text,
    event_receiver_version integer,
    owner_id text,
    created_at timestamptz,
    traceparent text
);

-- The same for what the sequencer writes. moved_fact: where a fact goes; position null: nowhere.
create type moved_fact as (
    seq bigint,
    position bigint,
    message_id text
);
create type verdict_message as (
    position bigint,
    message_id text,
    kind text,
    seq bigint,
    event_receiver_group_id text,
    event_receiver_group_version integer,
    success boolean,
    first boolean
);
create type newest_event as (
    artifact_id bytea,
    event_receiver_id text,
    event_id text,
    seq bigint,
    success boolean
);
create type decided_group as (
    event_receiver_group_id text,
    artifact_id bytea,
    event_receiver_group_version integer,
    complete boolean,
    event_id text,
    first_position bigint,
    last_position bigint
);
