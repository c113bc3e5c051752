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
-- The lowest numbers above $2 that can be seen, with the group's definition where the fact is one; of the rest only what a decision needs.
-- No SKIP LOCKED: one takes, alone.
select
    o.seq, o.kind, o.artifact_id, o.event_id, o.event_receiver_id, o.event_receiver_group_id, o.event_receiver_group_version, o.success,
    case when o.kind = 'evaluation.requested' then o.traceparent end as traceparent,
    g.enabled as group_enabled, g.event_receiver_ids as group_event_receiver_ids, g.deleted as group_deleted
from (select t.* from outbox t where t.seq > $2 order by t.seq limit $1) o
left join lateral (
    select v.enabled, v.event_receiver_ids, v.deleted
    from event_receiver_group_versions v
    where v.event_receiver_group_id = o.event_receiver_group_id and v.resource_version = o.event_receiver_group_version
    offset 0
) g on o.event_receiver_group_id is not null
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
-- Which groups were ever told complete, of these artifacts. Not by pairs: of a young table the planner believes that a join reads it cheapest whole.
select s.event_receiver_group_id, s.artifact_id
from group_states s
where s.artifact_id = any($1) and s.first_position is not null

-- name: change_heads
-- Heads that are there; each pair once per call. A conflict is always found by the index; an update by a join is not (see load_told).
insert into gate_heads (artifact_id, event_receiver_id, event_id, seq, success)
select n.artifact_id, n.event_receiver_id, n.event_id, n.seq, n.success from unnest($1::newest_event[]) as n
on conflict (artifact_id, event_receiver_id) do update set event_id = excluded.event_id, seq = excluded.seq, success = excluded.success

-- name: put_group_states
-- Each pair once per call. The position of the first completion stays.
insert into group_states (
    event_receiver_group_id, artifact_id, event_receiver_group_version, complete, event_id, first_position, last_position
)
select
    n.event_receiver_group_id, n.artifact_id, n.event_receiver_group_version, n.complete, n.event_id, n.first_position, n.last_position
from unnest($1::decided_group[]) as n
on conflict (artifact_id, event_receiver_group_id)
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

-- name: append_verdicts
-- What events decided, at these positions; the rest of each row is that of the event's fact, which still waits.
insert into stream (
    position, message_id, kind, seq, artifact_id, event_id, event_receiver_id, event_receiver_version,
    event_receiver_group_id, event_receiver_group_version, success, first, sequenced_at, traceparent
)
select
    v.position, v.message_id, v.kind, v.seq, o.artifact_id, o.event_id, o.event_receiver_id, o.event_receiver_version,
    v.event_receiver_group_id, v.event_receiver_group_version, v.success, v.first, $2, o.traceparent
from unnest($1::verdict_message[]) as v
cross join lateral (select t.* from outbox t where t.seq = v.seq offset 0) o

-- name: move_facts
-- From the outbox into the stream, at these positions; a fact without one is no message. The rows never leave the database, which costs half of
-- fetching all of them and copying them back.
with given as materialized (
    select m.seq, m.position, m.message_id from unnest($1::moved_fact[]) as m
), taken as (
    delete from outbox o where o.seq = any(array(select g.seq from given g)) returning o.*
)
insert into stream (
    position, message_id, kind, seq, artifact_id, event_id, event_receiver_id, event_receiver_version,
    event_receiver_group_id, event_receiver_group_version, success, sequenced_at, traceparent
)
select
    g.position, g.message_id, t.kind, t.seq, t.artifact_id, t.event_id, t.event_receiver_id, t.event_receiver_version,
    t.event_receiver_group_id, t.event_receiver_group_version, coalesce(t.success, true), $2, t.traceparent
from taken t
join given g on g.seq = t.seq
where g.position is not null

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

-- name: match_stream
-- Positions behind $1 up to $2, at most $3 of them, whose messages a filter wants: the parameters from $4 on are stream/filter.py's, null where anything
-- will do. Reads neither payloads nor schemas. The lateral parts with their offset look a row up by its key, whatever the planner believes of a young table.
select s.position
from (
    select
        t.position, t.kind, t.event_id, t.event_receiver_id, t.event_receiver_version, t.event_receiver_group_id, t.event_receiver_group_version
    from stream t
    where t.position > $1 and t.position <= $2
        and ($4::boolean is null or t.success = $4) and ($5::text is null or t.event_receiver_id = $5)
        and ($11::text is null or t.kind = any($12::text[]) or t.kind in ('event.recorded', 'group.complete'))
    order by t.position
    offset 0
) s
where (
    $11::text is null or s.kind = any($12::text[])
    or (
        s.kind = 'event.recorded'
        and (
            select v.type = $11
            from event_receiver_versions v
            where v.event_receiver_id = s.event_receiver_id and v.resource_version = s.event_receiver_version
            offset 0
        )
    )
    or (
        s.kind = 'group.complete'
        and (
            select v.type = $11
            from event_receiver_group_versions v
            where v.event_receiver_group_id = s.event_receiver_group_id and v.resource_version = s.event_receiver_group_version
            offset 0
        )
    )
) and (
    coalesce($6::text, $7, $8, $9, $10) is null
    or exists (
        select
        from (
            select x.name, x.version, x.release, x.platform_id, x.package from events x where x.id = s.event_id
            union all
            select k.name, k.version, k.release, k.platform_id, k.package from removed_heads k where k.event_id = s.event_id
            union all
            select v.name, v.version, to_char(v.updated_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), $13::text, $14::text
            from event_receiver_versions v
            where s.event_id is null and v.event_receiver_id = s.event_receiver_id and v.resource_version = s.event_receiver_version
            union all
            select v.name, v.version, to_char(v.updated_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), $13::text, $15::text
            from event_receiver_group_versions v
            where s.event_id is null
                and v.event_receiver_group_id = s.event_receiver_group_id and v.resource_version = s.event_receiver_group_version
        ) n
        where ($6::text is null or n.name = $6) and ($7::text is null or n.version = $7) and ($8::text is null or n.release = $8)
            and ($9::text is null or n.platform_id = $9) and ($10::text is null or n.package = $10)
        offset 0
    )
)
order by s.position
limit $3

-- name: walk_stream
-- How far $2 messages behind a position reach: the first and the last of them, null where there is none.
select min(w.position) as first, max(w.position) as last
from (select t.position from stream t where t.position > $1 order by t.position limit $2) w

-- name: read_stream
-- Messages behind a position with the immutable rows that their envelopes are made of, until these come to $3 bytes: a schema stands twice in an
-- envelope. An event is removed only when no message tells of it; an evaluation on request may tell of one afterwards, from what removed_heads keeps.
-- stream/follow.py puts in which are chosen, where not all are.
select
    p.position, p.message_id, p.kind, p.seq, p.event_id, p.event_receiver_id, p.event_receiver_version,
    p.event_receiver_group_id, p.event_receiver_group_version, p.success, p.first, p.sequenced_at, p.traceparent,
    p.e_name, p.e_version, p.e_release, p.e_platform_id, p.e_package, p.e_description, p.e_payload,
    p.e_success, p.e_created_at, p.e_removed,
    p.r_name, p.r_type, p.r_version, p.r_description, p.r_schema, p.r_fingerprint, p.r_created_at, p.r_updated_at,
    p.g_name, p.g_type, p.g_version, p.g_description, p.g_enabled, p.g_event_receiver_ids, p.g_created_at, p.g_updated_at
from (
    select
        f.*,
        coalesce(
            sum(
                octet_length(f.e_description)
                + case when pg_column_compression(f.e_payload) is null then pg_column_size(f.e_payload) else octet_length(f.e_payload::text) end
                + coalesce(
                    2 * case when pg_column_compression(f.r_schema) is null then pg_column_size(f.r_schema) else octet_length(f.r_schema::text) end, 0
                )
            ) over (order by f.position rows between unbounded preceding and 1 preceding),
            0
        ) as bytes_before
    from (
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
        from (select t.* from stream t where t.position > $1 and true /* chosen */ order by t.position limit $2) s
        left join events e on e.id = s.event_id
        left join removed_heads k on k.event_id = s.event_id
        left join event_receiver_versions r
            on r.event_receiver_id = s.event_receiver_id and r.resource_version = s.event_receiver_version
        left join event_receiver_group_versions g
            on g.event_receiver_group_id = s.event_receiver_group_id and g.resource_version = s.event_receiver_group_version
        order by s.position
    ) f
) p
where p.bytes_before < $3
order by p.position
