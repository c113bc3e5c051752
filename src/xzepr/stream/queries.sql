-- Outbox, sequencer, stream.

-- name: ring
-- Outside any transaction of work. Wakes the sequencer; carries nothing.
select pg_notify('xzepr_outbox', '')

-- name: acquire_lead
-- Take the lease when nobody holds it, by the database's clock. $1: who; $2: for how many seconds.
update sequencer s
set epoch = s.epoch + 1, holder = $1, expires_at = clock_timestamp() + make_interval(secs => $2)
where s.expires_at < clock_timestamp()
returning s.epoch

-- name: renew_lead
-- By the holder of this epoch alone; no row: the lease is lost.
update sequencer s
set expires_at = clock_timestamp() + make_interval(secs => $2)
where s.epoch = $1
returning s.epoch

-- name: free_lead
-- By the parent of a relay that died, or by a relay that ends: the next one need not wait for the expiry.
update sequencer s set expires_at = '-infinity' where s.holder = $1

-- name: lock_lead
-- First in each sequencing transaction: one that was paused and woke up finds another epoch and writes nothing.
select s.last_position from sequencer s where s.epoch = $1 for update

-- name: outbox_has_rows
-- The idle look: takes no lock, writes nothing. $1: above which number.
select exists (select from outbox o where o.seq > $1)

-- name: take_outbox
-- The lowest numbers above $2 that can be seen, with the group's definition where the fact is one. No SKIP LOCKED: one takes, alone.
select
    o.seq, o.kind, o.artifact_id, o.event_id, o.event_receiver_id, o.event_receiver_version,
    o.event_receiver_group_id, o.event_receiver_group_version, o.success, o.traceparent,
    g.enabled as group_enabled, g.event_receiver_ids as group_event_receiver_ids, g.deleted as group_deleted
from (select t.* from outbox t where t.seq > $2 order by t.seq limit $1) o
left join event_receiver_group_versions g
    on g.event_receiver_group_id = o.event_receiver_group_id and g.resource_version = o.event_receiver_group_version
order by o.seq

-- name: load_sequenced_groups
-- The definitions as of their last sequenced version; for a new leader.
select g.event_receiver_group_id as id, g.resource_version as version, g.enabled, g.event_receiver_ids
from sequenced_groups s
join event_receiver_group_versions g
    on g.event_receiver_group_id = s.event_receiver_group_id and g.resource_version = s.resource_version
where not g.deleted

-- name: load_heads
-- All heads of these artifacts.
select h.artifact_id, h.event_receiver_id, h.event_id, h.seq, h.success
from gate_heads h
where h.artifact_id = any($1)

-- name: load_told
-- Which of these pairs were ever told complete.
select s.event_receiver_group_id, s.artifact_id
from unnest($1::text[], $2::bytea[]) as pair (event_receiver_group_id, artifact_id)
join group_states s on s.event_receiver_group_id = pair.event_receiver_group_id and s.artifact_id = pair.artifact_id
where s.first_position is not null

-- name: change_heads
-- Heads that are there; each pair once per call.
update gate_heads h
set event_id = n.event_id, seq = n.seq, success = n.success
from unnest($1::bytea[], $2::text[], $3::text[], $4::bigint[], $5::boolean[]) as n (artifact_id, event_receiver_id, event_id, seq, success)
where h.artifact_id = n.artifact_id and h.event_receiver_id = n.event_receiver_id

-- name: put_group_states
-- Each pair once per call. The position of the first completion stays.
insert into group_states (
    event_receiver_group_id, artifact_id, event_receiver_group_version, complete, event_id, first_position, last_position
)
select * from unnest($1::text[], $2::bytea[], $3::integer[], $4::boolean[], $5::text[], $6::bigint[], $7::bigint[])
on conflict (event_receiver_group_id, artifact_id)
do update set
    event_receiver_group_version = excluded.event_receiver_group_version,
    complete = excluded.complete,
    event_id = excluded.event_id,
    first_position = coalesce(group_states.first_position, excluded.first_position),
    last_position = excluded.last_position

-- name: receiver_version_of_event
-- For the message of an evaluation, whose trigger was sequenced long ago, and may be removed.
select e.event_receiver_version from events e where e.id = $1
union all
select k.event_receiver_version from removed_heads k where k.event_id = $1
limit 1

-- name: put_evaluations
-- For those who wait.
insert into evaluations (seq, complete, message_id, position, sequenced_at)
select * from unnest($1::bigint[], $2::boolean[], $3::text[], $4::bigint[], $5::timestamptz[])

-- name: sweep_evaluations
-- Nobody waits this long.
delete from evaluations v where v.sequenced_at < $1

-- name: put_sequenced_groups
-- Each group once per call, at its highest version.
insert into sequenced_groups (event_receiver_group_id, resource_version)
select * from unnest($1::text[], $2::integer[])
on conflict (event_receiver_group_id) do update set resource_version = excluded.resource_version

-- name: delete_outbox
-- What was sequenced in this transaction.
delete from outbox o where o.seq = any($1)

-- name: advance_position
-- Under the lock that lock_lead took.
update sequencer s set last_position = $2 where s.epoch = $1

-- name: stream_bounds
-- Oldest position kept (null: nothing yet, or no more) and the newest given.
select (select min(t.position) from stream t) as oldest, s.last_position as newest from sequencer s

-- name: position_report
-- How far the stream reaches, and how many facts wait.
select
    (select min(t.position) from stream t) as oldest, s.last_position as newest, (select count(*) from outbox) as pending
from sequencer s

-- name: newest_position
select s.last_position from sequencer s

-- name: read_stream
-- Messages behind a position with the immutable rows that their envelopes are made of. An event is removed only when no message tells of it; an
-- evaluation on request may tell of one afterwards, from what removed_heads keeps.
select
    s.position, s.message_id, s.kind, s.seq, s.event_id, s.event_receiver_id, s.event_receiver_version,
    s.event_receiver_group_id, s.event_receiver_group_version, s.success, s.first, s.sequenced_at, s.traceparent,
    coalesce(e.name, k.name) as e_name, coalesce(e.version, k.version) as e_version, coalesce(e.release, k.release) as e_release,
    coalesce(e.platform_id, k.platform_id) as e_platform_id, coalesce(e.package, k.package) as e_package,
    coalesce(e.description, '') as e_description, coalesce(e.payload, '{}') as e_payload,
    coalesce(e.success, k.success) as e_success, coalesce(e.created_at, k.created_at) as e_created_at,
    s.event_id is not null and e.id is null as e_removed,
    r.name as r_name, r.type as r_type, r.version as r_version, r.description as r_description, r.schema as r_schema,
    r.fingerprint as r_fingerprint, r.created_at as r_created_at, r.updated_at as r_updated_at,
    g.name as g_name, g.type as g_type, g.version as g_version, g.description as g_description, g.enabled as g_enabled,
    g.event_receiver_ids as g_event_receiver_ids, g.created_at as g_created_at, g.updated_at as g_updated_at
from (select t.* from stream t where t.position > $1 order by t.position limit $2) s
left join events e on e.id = s.event_id
left join removed_heads k on k.event_id = s.event_id
left join event_receiver_versions r
    on r.event_receiver_id = s.event_receiver_id and r.resource_version = s.event_receiver_version
left join event_receiver_group_versions g
    on g.event_receiver_group_id = s.event_receiver_group_id and g.resource_version = s.event_receiver_group_version
order by s.position
