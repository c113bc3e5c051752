-- What a retried request and an evaluation on request need.

-- A key is claimed in the transaction of the act itself, together with its answer: after a crash either both are there or neither.
-- principal_id: empty for callers without credentials, who share one name space.
create table idempotency_keys (
    principal_id text collate "C" not null,
    route text not null,
    key text not null,
    body_sha256 bytea not null,
    answer_id text collate "C" not null,
    created_at timestamptz not null,
    constraint idempotency_keys_pkey primary key (principal_id, route, key),
    constraint idempotency_keys_body_is_32_bytes check (octet_length(body_sha256) = 32)
);
create index idempotency_keys_created_at_idx on idempotency_keys (created_at);

-- The sequencer's answers to evaluations on request, by the number of the request. Kept for an hour: somebody waits for them.
create table evaluations (
    seq bigint not null,
    complete boolean not null,
    message_id text collate "C",
    position bigint,
    sequenced_at timestamptz not null,
    constraint evaluations_pkey primary key (seq)
);

alter table outbox add constraint outbox_evaluation_is_whole check (
    kind <> 'evaluation.requested' or (artifact_id is not null and event_receiver_group_id is not null)
);
