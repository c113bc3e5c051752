-- Events: appended, read, never changed.

-- name: record_event
-- One event and its outbox row, in one statement and so in one transaction; no row comes back when the receiver is gone or has another
-- version than the payload was checked against. Reads no other event, locks nothing beyond its own rows.
with in_force as (
    select r.id, r.resource_version
    from event_receivers r
    where r.id = $11 and r.resource_version = $12 and r.deleted_at is null
), numbered as (
    select nextval('fact_seq') as seq, f.id as event_receiver_id, f.resource_version from in_force f
), stored as (
    insert into events (
        id, seq, artifact_id, name, version, release, platform_id, package, description, payload, success,
        event_receiver_id, event_receiver_version, owner_id, created_at, traceparent
    )
    select $1, n.seq, $2, $3, $4, $5, $6, $7, $8, $9, $10, n.event_receiver_id, n.resource_version, $13, $14, $15
    from numbered n
), queued as (
    insert into outbox (seq, kind, artifact_id, event_id, event_receiver_id, event_receiver_version, success, traceparent)
    select n.seq, 'event.recorded', $2, $1, n.event_receiver_id, n.resource_version, $10, $15
    from numbered n
)
select n.seq from numbered n

-- name: is_recorded
-- Whether a commit whose answer was lost went through.
select exists (select from events e where e.id = $1)

-- name: find_event
select
    e.id, e.seq, e.name, e.version, e.release, e.platform_id, e.package, e.description, e.payload, e.success,
    e.event_receiver_id, e.event_receiver_version, e.owner_id, e.created_at
from events e
where e.id = $1

-- name: search_events
-- Newest first. The inner part walks one index and looks at no more than $2 rows, the rest of the conditions are checked on the way:
-- a page may come back short. events/search.py puts the conditions in, with their parameters before these two.
select
    e.id, e.seq, e.name, e.version, e.release, e.platform_id, e.package, e.description, e.payload, e.success,
    e.event_receiver_id, e.event_receiver_version, e.owner_id, e.created_at
from (select w.* from events w where true /* walk */ order by w.id desc limit $2) e
where true /* filters */
order by e.id desc
limit $1

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
