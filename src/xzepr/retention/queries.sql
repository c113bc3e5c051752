-- Retention: what rules make due, what keeps it, what was removed.

-- name: receiver_types
-- All receivers, deleted ones too: their events are there all the same.
select r.id, r.type from event_receivers r order by r.id

-- name: last_position
select s.last_position from sequencer s

-- name: first_young_position
-- The first message that is not older than $1; no row: all are. Walks from the oldest on, so it looks at what is to go and one more.
select t.position from stream t where t.sequenced_at >= $1 order by t.position limit 1

-- name: count_messages_before
select count(*) from stream t where t.position < $1

-- name: count_holds
select count(*) from retention_holds h where h.removed_at is null

-- name: plan_due
-- What is due, by receiver, each event counted once: held, else shown by a message from position $3 on or still queued, else removable.
-- $1 receivers, $2 the id behind what is due of each; $4 the highest of these.
select
    d.event_receiver_id, count(*) as due, count(*) filter (where j.held) as held,
    count(*) filter (where j.shown and not j.held) as shown, min(e.id) as oldest
from unnest($1::text[], $2::text[]) as d (event_receiver_id, before)
join events e on e.event_receiver_id = d.event_receiver_id and e.id < d.before
left join (
    select distinct t.event_id from stream t where t.event_id < $4 and t.position >= $3
) s on s.event_id = e.id
cross join lateral (
    select
        exists (
            select
            from retention_holds h
            where h.removed_at is null
                and (
                    h.event_receiver_id = e.event_receiver_id
                    or (
                        h.artifact_id = e.artifact_id and h.name = e.name and h.version = e.version and h.release = e.release
                        and h.platform_id = e.platform_id and h.package = e.package
                    )
                )
        ) as held,
        s.event_id is not null or exists (select from outbox o where o.artifact_id = e.artifact_id and o.event_id = e.id) as shown
) j
where e.id < $4
group by d.event_receiver_id

-- name: lock_holds
-- First in each transaction that removes: a hold is added before it or after it, never meanwhile; and those that remove take turns.
lock table retention_holds in share row exclusive mode

-- name: take_due
-- The next events of a receiver behind an id and below another, with what keeps each. No row when the receiver is of another type by now.
-- $1 receiver, $2 behind, $3 below, $4 at most, $5 the type that the rule was chosen by.
select
    c.id,
    exists (
        select
        from retention_holds h
        where h.removed_at is null
            and (
                h.event_receiver_id = c.event_receiver_id
                or (
                    h.artifact_id = c.artifact_id and h.name = c.name and h.version = c.version and h.release = c.release
                    and h.platform_id = c.platform_id and h.package = c.package
                )
            )
    ) as held,
    exists (select from stream t where t.event_id = c.id)
        or exists (select from outbox o where o.artifact_id = c.artifact_id and o.event_id = c.id) as shown
from (
    select e.id, e.artifact_id, e.event_receiver_id, e.name, e.version, e.release, e.platform_id, e.package
    from events e
    where e.event_receiver_id = $1 and e.id > $2 and e.id < $3
        and exists (select from event_receivers r where r.id = $1 and r.type = $5)
    order by e.id
    limit $4
) c
order by c.id

-- name: groups_of_receiver
-- Every group that ever needed it: only these can have decided by its events.
select distinct v.event_receiver_group_id as id from event_receiver_group_versions v where v.event_receiver_ids @> array[$1]

-- name: remove_events
-- These events, of one receiver; what gates still show of them is kept before (keep_heads). $2, $3: lowest and highest, so that only their months
-- are looked at.
with gone as (
    delete from events e
    where e.id = any($1::text[]) and e.id >= $2 and e.id <= $3
    returning e.id
), forgotten as (
    -- The source and id of a CloudEvent are kept as long as its event.
    delete from idempotency_keys k using gone g where k.lasting and k.answer_id = g.id
)
select count(*) as removed, min(g.id) as first, max(g.id) as last from gone g

-- name: lock_sequencer
-- Held from here to the commit only: no step of the sequencer commits meanwhile.
select s.last_position from sequencer s for update

-- name: shown_since
-- Whether a message behind position $1 tells of one of these events: an evaluation on request may, of one that is long sequenced.
select exists (select from stream t where t.position > $1 and t.event_id = any($2::text[]))

-- name: keep_heads
-- Ahead of a removal: of the next $4 events of a receiver behind an id and below another, or of those among them that $6 names, what gates still
-- show. $5: groups_of_receiver.
with looked_at as (
    select
        e.id, e.artifact_id, e.event_receiver_id, e.event_receiver_version, e.name, e.version, e.release, e.platform_id, e.package,
        e.success, e.owner_id, e.created_at
    from events e
    where e.event_receiver_id = $1 and e.id > $2 and e.id < $3
    order by e.id
    limit $4
), kept as (
    insert into removed_heads (
        event_id, event_receiver_version, name, version, release, platform_id, package, success, owner_id, created_at
    )
    select
        g.id, g.event_receiver_version, g.name, g.version, g.release, g.platform_id, g.package, g.success, g.owner_id, g.created_at
    from looked_at g
    where ($6::text[] is null or g.id = any($6))
        and (
            exists (
                select
                from gate_heads h
                where h.artifact_id = g.artifact_id and h.event_receiver_id = g.event_receiver_id and h.event_id = g.id
            )
            or exists (
                select
                from group_states s
                where s.event_receiver_group_id = any($5::text[]) and s.artifact_id = g.artifact_id and s.event_id = g.id
            )
        )
    on conflict (event_id) do nothing
)
select max(g.id) from looked_at g

-- name: partitions_of
-- By name. $1: the table.
select c.relname::text as name
from pg_inherits i
join pg_class c on c.oid = i.inhrelid
where i.inhparent = $1::text::regclass
order by c.relname

-- name: forget_keys
-- The source and id of a CloudEvent are kept as long as its event.
delete from idempotency_keys k where k.lasting and k.answer_id >= $1 and k.answer_id < $2

-- name: receivers_in_range
-- Whose events lie in a range of ids: one look at the index each.
select r.id
from event_receivers r
cross join lateral (select from events e where e.event_receiver_id = r.id and e.id >= $1 and e.id < $2 limit 1) there
order by r.id

-- name: range_is_kept
-- Whether anything keeps an event of a range of ids: a hold (each asks an index once), a message, the queue.
select
    exists (
        select
        from retention_holds h
        cross join lateral (select from events e where e.event_receiver_id = h.event_receiver_id and e.id >= $1 and e.id < $2 limit 1) there
        where h.removed_at is null
    )
    or exists (
        select
        from retention_holds h
        cross join lateral (
            select
            from events e
            where e.artifact_id = h.artifact_id and e.name = h.name and e.version = h.version and e.release = h.release
                and e.platform_id = h.platform_id and e.package = h.package and e.id >= $1 and e.id < $2
            limit 1
        ) there
        where h.removed_at is null
    )
    or exists (select from stream t where t.event_id >= $1 and t.event_id < $2)
    or exists (select from outbox o where o.event_id >= $1 and o.event_id < $2)

-- name: count_range
-- What a range of ids holds, by receiver; the type is null when there is no such receiver.
select e.event_receiver_id, r.type as event_receiver_type, count(*) as removed, min(e.id) as first, max(e.id) as last
from events e
left join event_receivers r on r.id = e.event_receiver_id
where e.id >= $1 and e.id < $2
group by e.event_receiver_id, r.type
order by e.event_receiver_id

-- name: lock_partitions
-- As events/partitions.py: whoever makes or drops one takes turns.
select pg_advisory_xact_lock(hashtext('xzepr'), hashtext('partitions'))

-- name: put_disposition
-- Beside what it tells of, in the same transaction.
insert into retention_dispositions (
    id, at, subject, rule_type, rule_days, event_receiver_id, event_receiver_type, removed, first, last, oldest_at, newest_at, partition, actor
)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)

-- name: try_trim_lock
-- One trims at a time; freed at the end of the transaction.
select pg_try_advisory_xact_lock(hashtext('xzepr'), hashtext('trim'))

-- name: oldest_messages
select t.position, t.sequenced_at from stream t order by t.position limit $1

-- name: remove_messages
-- From position $1 to below $2.
delete from stream t where t.position >= $1 and t.position < $2

-- name: edges_of_piece
-- First and last message of a range of positions; no row when there is none.
(select t.position, t.sequenced_at from stream t where t.position >= $1 and t.position < $2 order by t.position limit 1)
union all
(select t.position, t.sequenced_at from stream t where t.position >= $1 and t.position < $2 order by t.position desc limit 1)

-- name: piece_has_young
select exists (select from stream t where t.position >= $1 and t.position < $2 and t.sequenced_at >= $3)

-- name: receiver_exists
-- A deleted one can be held too.
select exists (select from event_receivers r where r.id = $1)

-- name: add_hold
insert into retention_holds (
    id, event_receiver_id, artifact_id, name, version, release, platform_id, package, reason, created_at, created_by
)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)

-- name: list_holds
-- In force, oldest first, behind an id.
select
    h.id, h.event_receiver_id, h.name, h.version, h.release, h.platform_id, h.package, h.reason, h.created_at, h.created_by
from retention_holds h
where h.removed_at is null and h.id > $1
order by h.id
limit $2

-- name: remove_hold
-- The row stays, with who took it off.
update retention_holds h set removed_at = $2, removed_by = $3 where h.id = $1 and h.removed_at is null
