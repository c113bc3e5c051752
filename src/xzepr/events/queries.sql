-- Events: appended, read, never changed, except that a payload can be taken away for good (redact_event).

-- name: record_events
-- Any number of events and their outbox rows, in one statement and so in one transaction. When a receiver is gone, or has another version than
-- the payloads were checked against ($2, $3: each pair once), nothing is stored and these receivers come back. Reads no other event, locks
-- nothing beyond its own rows. Rows of one array come out in its order, so numbers rise as the events stand; an array a column costs a tenth more.
with stale as materialized (
    select u.event_receiver_id
    from unnest($2::text[], $3::integer[]) as u (event_receiver_id, event_receiver_version)
    where not exists (
        select from event_receivers r
        where r.id = u.event_receiver_id and r.resource_version = u.event_receiver_version and r.deleted_at is null
    )
), numbered as materialized (
    select g.*, nextval('fact_seq') as seq from unnest($1::event_to_record[]) as g where not exists (select from stale)
), stored as (
    insert into events (
        id, seq, artifact_id, name, version, release, platform_id, package, description, payload, success,
        event_receiver_id, event_receiver_version, owner_id, created_at, traceparent
    )
    select n.id, n.seq, n.artifact_id, n.name, n.version, n.release, n.platform_id, n.package, n.description, n.payload, n.success,
        n.event_receiver_id, n.event_receiver_version, n.owner_id, n.created_at, n.traceparent
    from numbered n
), queued as (
    insert into outbox (seq, kind, artifact_id, event_id, event_receiver_id, event_receiver_version, success, traceparent)
    select n.seq, 'event.recorded', n.artifact_id, n.id, n.event_receiver_id, n.event_receiver_version, n.success, n.traceparent
    from numbered n
)
select s.event_receiver_id from stale s

-- name: reserve
-- Numbers for $1 events, in order, and which of these receivers are gone or have another version than the payloads were checked against.
select
    array(select nextval('fact_seq') from generate_series(1, $1::integer)) as numbers,
    array(
        select u.event_receiver_id
        from unnest($2::text[], $3::integer[]) as u (event_receiver_id, event_receiver_version)
        where not exists (
            select from event_receivers r
            where r.id = u.event_receiver_id and r.resource_version = u.event_receiver_version and r.deleted_at is null
        )
    ) as stale

-- name: wait_briefly_for_keys
-- In this transaction: $1 milliseconds for a lock.
select set_config('lock_timeout', $1, true)

-- name: receivers_of_types
-- For CloudEvents that name no receiver; two of a type are one too many.
select wanted.type, found.id
from unnest($1::text[]) as wanted (type)
cross join lateral (
    select r.id from event_receivers r where r.type = wanted.type and r.deleted_at is null limit 2
) found

-- name: is_recorded
-- Whether a commit whose answer was lost went through.
select exists (select from events e where e.id = $1)

-- name: find_events
-- By their ids; those that are there, in no order. Each id by itself, so that each looks at its month alone: `= any($1)` looks at all of them.
select
    e.id, e.seq, e.name, e.version, e.release, e.platform_id, e.package, e.description, e.payload, e.success,
    e.event_receiver_id, e.event_receiver_version, e.owner_id, e.created_at
from unnest($1::text[]) as wanted (id)
cross join lateral (select f.* from events f where f.id = wanted.id offset 0) e

-- name: search_events
-- Newest first. The inner part walks one index and looks at no more than $2 rows, the rest of the conditions are checked on the way:
-- a page may come back short. events/search.py and events/walk.py put the conditions in, with their parameters before these three. $3: bytes of a page.
select
    p.id, p.seq, p.name, p.version, p.release, p.platform_id, p.package, p.description, p.payload, p.success,
    p.event_receiver_id, p.event_receiver_version, p.owner_id, p.created_at, p.bytes_before, p.followed
from (
    select
        f.*,
        coalesce(
            sum(
                octet_length(f.description)
                + case when pg_column_compression(f.payload) is null then pg_column_size(f.payload) else octet_length(f.payload::text) end
            ) over before,
            0
        ) as bytes_before,
        lead(true, 1, false) over before as followed
    from (
        select
            e.id, e.seq, e.name, e.version, e.release, e.platform_id, e.package, e.description, e.payload, e.success,
            e.event_receiver_id, e.event_receiver_version, e.owner_id, e.created_at
        from (select w.* from events w where true /* walk */ order by w.id desc limit $2) e
        where true /* filters */
        order by e.id desc
        limit $1
    ) f
    window before as (order by f.id desc rows between unbounded preceding and 1 preceding)
) p
where p.bytes_before < $3
order by p.id desc

-- name: search_events_stop
-- Where the walk of search_events stopped because of its bound; no row when it came to the end by itself.
select w.id from events w where true /* walk */ order by w.id desc offset $1 limit 1

-- name: last_position
-- How far the stream's partitions must reach.
select s.last_position from sequencer s

-- name: relation_exists
select to_regclass($1) is not null

-- name: lock_partitions
-- Two processes that make partitions take turns; freed at the end of the transaction.
select pg_advisory_xact_lock(hashtext('xzepr'), hashtext('partitions'))

-- name: created_in_default_partition
-- Months whose events wait in the default partition.
select distinct date_trunc('month', d.created_at, 'UTC') as month from events_default d limit 120

-- name: lock_holds_as_they_are
-- First in a redaction: a hold is added before it or after it, never meanwhile. Waits for a removal that is under way.
lock table retention_holds in share mode

-- name: lock_event_to_redact
-- Two redactions of one event take turns, and retention waits. held_by: the hold that keeps it as it is, if any.
select
    (
        select h.id
        from retention_holds h
        where h.removed_at is null and (h.event_receiver_id = e.event_receiver_id or h.artifact_id = e.artifact_id)
        order by h.id
        limit 1
    ) as held_by
from events e
where e.id = $1
for update of e

-- name: find_redaction
select d.id from redactions d where d.event_id = $1

-- name: redact_event
-- Behind lock_event_to_redact: $3 takes the payload's place. Everything that gates and lists go by stays. Messages, timelines and lists are made from
-- this row when they are read; processes forget the messages that they keep.
with redacted as (
    insert into redactions (id, event_id, reason, created_at, created_by) values ($1, $2, $4, $5, $6) returning event_id
), told as (
    insert into auth_changes (kind, subject) select 'event', r.event_id from redacted r
)
update events e set payload = $3, description = '' where e.id = $2
