-- Event receiver groups. The row in `event_receiver_groups` is the version in force; `event_receiver_group_versions` keeps them all.

-- name: lock_receivers
-- Which of these receivers are there, held against deletion until the commit. In one order, so that two groups never wait for each other.
select r.id, r.restricted, r.owner_id
from event_receivers r
where r.id = any($1) and r.deleted_at is null
order by r.id
for key share

-- name: create_group
-- The group, its first version and its fact. $1 id … $8 owner, $9 now, $10 vouched_receiver_ids.
with numbered as (
    select nextval('fact_seq') as seq
), created as (
    insert into event_receiver_groups (
        id, name, type, version, description, enabled, event_receiver_ids, owner_id, resource_version, created_at, updated_at,
        vouched_receiver_ids
    )
    values ($1, $2, $3, $4, $5, $6, $7, $8, 1, $9, $9, $10)
    returning id
), versioned as (
    insert into event_receiver_group_versions (
        event_receiver_group_id, resource_version, seq, name, type, version, description, enabled, event_receiver_ids,
        deleted, created_at, updated_at
    )
    select c.id, 1, n.seq, $2, $3, $4, $5, $6, $7, false, $9, $9 from created c, numbered n
    returning event_receiver_group_id
)
insert into outbox (seq, kind, event_receiver_group_id, event_receiver_group_version)
select n.seq, 'group.created', v.event_receiver_group_id, 1 from versioned v, numbered n

-- name: find_group
-- Deleted groups are not found.
select
    g.id, g.name, g.type, g.version, g.description, g.enabled, g.event_receiver_ids, g.owner_id,
    g.resource_version, g.created_at, g.updated_at
from event_receiver_groups g
where g.id = $1 and g.deleted_at is null

-- name: lock_group
-- Before a number is taken: versions of one group must be numbered in their order. Also before its members change.
select
    g.id, g.name, g.type, g.version, g.description, g.enabled, g.event_receiver_ids, g.owner_id,
    g.resource_version, g.created_at, g.updated_at, g.vouched_receiver_ids
from event_receiver_groups g
where g.id = $1 and g.deleted_at is null
for update

-- name: modify_group
-- A new version and its fact, behind lock_group. $2 name … $7 event_receiver_ids, $8 now, $9 vouched_receiver_ids.
with numbered as (
    select nextval('fact_seq') as seq
), modified as (
    update event_receiver_groups g
    set name = $2, type = $3, version = $4, description = $5, enabled = $6, event_receiver_ids = $7,
        vouched_receiver_ids = $9, resource_version = g.resource_version + 1, updated_at = greatest($8, g.updated_at)
    where g.id = $1
    returning g.id, g.resource_version, g.created_at, g.updated_at
), versioned as (
    insert into event_receiver_group_versions (
        event_receiver_group_id, resource_version, seq, name, type, version, description, enabled, event_receiver_ids,
        deleted, created_at, updated_at
    )
    select m.id, m.resource_version, n.seq, $2, $3, $4, $5, $6, $7, false, m.created_at, m.updated_at from modified m, numbered n
    returning event_receiver_group_id, resource_version
)
insert into outbox (seq, kind, event_receiver_group_id, event_receiver_group_version)
select n.seq, 'group.modified', v.event_receiver_group_id, v.resource_version from versioned v, numbered n

-- name: vouch_for_receivers
-- Behind lock_group. Who put a receiver into a group is nobody's business but ours: no version, no fact.
update event_receiver_groups g set vouched_receiver_ids = $2 where g.id = $1

-- name: search_groups
-- Newest first, behind the cursor. $7: one row more than the page; $9: bytes of a page.
select
    p.id, p.name, p.type, p.version, p.description, p.enabled, p.event_receiver_ids, p.owner_id,
    p.resource_version, p.created_at, p.updated_at, p.followed
from (
    select
        f.*,
        coalesce(sum(octet_length(f.description) + 26 * cardinality(f.event_receiver_ids)) over before, 0) as bytes_before,
        lead(true, 1, false) over before as followed
    from (
        select
            g.id, g.name, g.type, g.version, g.description, g.enabled, g.event_receiver_ids, g.owner_id,
            g.resource_version, g.created_at, g.updated_at
        from event_receiver_groups g
        where g.deleted_at is null
            and ($1::text is null or g.name = $1)
            and ($2::text is null or g.type = $2)
            and ($3::text is null or g.version = $3)
            and ($4::boolean is null or g.enabled = $4)
            and ($5::text is null or g.event_receiver_ids @> array[$5])
            and ($6::text is null or g.id < $6)
        order by g.id desc
        limit $7 offset $8
    ) f
    window before as (order by f.id desc rows between unbounded preceding and 1 preceding)
) p
where p.bytes_before < $9
order by p.id desc

-- name: count_groups
-- For a list by offset.
select count(*)
from event_receiver_groups g
where g.deleted_at is null
    and ($1::text is null or g.name = $1)
    and ($2::text is null or g.type = $2)
    and ($3::text is null or g.version = $3)
    and ($4::boolean is null or g.enabled = $4)
    and ($5::text is null or g.event_receiver_ids @> array[$5])

-- name: delete_group
-- Marked, with a last version and its fact, behind lock_group. $2 now.
with numbered as (
    select nextval('fact_seq') as seq
), marked as (
    update event_receiver_groups g
    set deleted_at = $2, resource_version = g.resource_version + 1, updated_at = greatest($2, g.updated_at)
    where g.id = $1
    returning g.id, g.resource_version, g.name, g.type, g.version, g.description, g.enabled, g.event_receiver_ids,
        g.created_at, g.updated_at
), versioned as (
    insert into event_receiver_group_versions (
        event_receiver_group_id, resource_version, seq, name, type, version, description, enabled, event_receiver_ids,
        deleted, created_at, updated_at
    )
    select m.id, m.resource_version, n.seq, m.name, m.type, m.version, m.description, m.enabled, m.event_receiver_ids,
        true, m.created_at, m.updated_at
    from marked m, numbered n
    returning event_receiver_group_id, resource_version
)
insert into outbox (seq, kind, event_receiver_group_id, event_receiver_group_version)
select n.seq, 'group.deleted', v.event_receiver_group_id, v.resource_version from versioned v, numbered n

-- name: group_status
-- One statement, so one snapshot: the groups in force, the heads, and what is still queued for the artifact, by gate. Two statements
-- could each miss an event that the sequencer moves between them. Of an event that retention removed, removed_heads knows who posted it.
select
    g.id as group_id, g.name as group_name, g.type as group_type, g.enabled,
    r.id as event_receiver_id, r.name as receiver_name, r.type as receiver_type,
    newest.event_id, newest.success, coalesce(e.owner_id, k.owner_id) as decided_by
from event_receiver_groups g
cross join lateral unnest(g.event_receiver_ids) with ordinality as gate (event_receiver_id, place)
join event_receivers r on r.id = gate.event_receiver_id
left join lateral (
    select n.event_id, n.seq, n.success
    from (
        select h.event_id, h.seq, h.success
        from gate_heads h
        where h.artifact_id = $2 and h.event_receiver_id = gate.event_receiver_id
        union all
        select o.event_id, o.seq, o.success
        from outbox o
        where o.artifact_id = $2 and o.event_receiver_id = gate.event_receiver_id
    ) n
    order by n.seq desc
    limit 1
) newest on true
left join events e on e.id = newest.event_id
left join removed_heads k on k.event_id = newest.event_id
where g.id = any($1) and g.deleted_at is null
order by g.id, gate.place

-- name: group_artifacts
-- By the last decision, newest first, behind a position. complete is said of this moment: the version in force, enabled, all its gates
-- open by heads and queue.
select d.name, d.version, d.release, d.platform_id, d.package, d.event_id, d.position, d.complete
from (
    select
        coalesce(e.name, k.name) as name, coalesce(e.version, k.version) as version, coalesce(e.release, k.release) as release,
        coalesce(e.platform_id, k.platform_id) as platform_id, coalesce(e.package, k.package) as package,
        s.event_id, s.last_position as position,
        g.enabled and not exists (
            select
            from unnest(g.event_receiver_ids) as gate (event_receiver_id)
            left join lateral (
                select n.success
                from (
                    select h.seq, h.success
                    from gate_heads h
                    where h.artifact_id = s.artifact_id and h.event_receiver_id = gate.event_receiver_id
                    union all
                    select o.seq, o.success
                    from outbox o
                    where o.artifact_id = s.artifact_id and o.event_receiver_id = gate.event_receiver_id
                ) n
                order by n.seq desc
                limit 1
            ) newest on true
            where newest.success is distinct from true
        ) as complete
    from group_states s
    join event_receiver_groups g on g.id = s.event_receiver_group_id
    left join events e on e.id = s.event_id
    left join removed_heads k on k.event_id = s.event_id
    where s.event_receiver_group_id = $1 and ($2::bigint is null or s.last_position < $2)
) d
where $3::boolean is null or d.complete = $3
order by d.position desc
limit $4

-- name: groups_of_artifact
-- Groups in force with a receiver that the artifact has an event of; queued ones included.
select g.id
from event_receiver_groups g
where g.deleted_at is null
    and g.event_receiver_ids && (
        select array_agg(n.event_receiver_id)
        from (
            select h.event_receiver_id from gate_heads h where h.artifact_id = $1
            union
            select o.event_receiver_id from outbox o where o.artifact_id = $1 and o.kind = 'event.recorded'
        ) n
    )
order by g.id desc
limit $2

-- name: request_evaluation
-- A fact of its own, without an event: the sequencer finds the newest among the gates.
insert into outbox (seq, kind, artifact_id, event_receiver_group_id, event_receiver_group_version)
values (nextval('fact_seq'), 'evaluation.requested', $1, $2, $3)
returning seq

-- name: find_evaluation
select v.complete, v.message_id, v.position from evaluations v where v.seq = $1

-- name: group_and_membership
-- Of a group in force: whose it is, and whether this user ($2) is one of its members.
select
    g.owner_id,
    exists (select from group_members m where m.event_receiver_group_id = g.id and m.user_id = $2) as is_member
from event_receiver_groups g
where g.id = $1 and g.deleted_at is null

-- name: members_of_group
-- Newest account first, behind the cursor. $3: one row more than the page. Deleted users are no members any more.
select m.user_id, u.username, m.added_at, m.added_by
from group_members m
join users u on u.id = m.user_id
where m.event_receiver_group_id = $1 and u.deleted_at is null and ($2::text is null or m.user_id < $2)
order by m.user_id desc
limit $3

-- name: hold_user
-- Held against deletion until the commit.
select u.username from users u where u.id = $1 and u.deleted_at is null for share

-- name: add_member
-- No row: it is one already.
insert into group_members (event_receiver_group_id, user_id, added_at, added_by)
values ($1, $2, $3, $4)
on conflict (event_receiver_group_id, user_id) do nothing
returning user_id

-- name: remove_member
-- No row: it was none.
delete from group_members m where m.event_receiver_group_id = $1 and m.user_id = $2 returning m.user_id
