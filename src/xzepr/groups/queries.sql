-- Event receiver groups. The row in `event_receiver_groups` is the version in force; `event_receiver_group_versions` keeps them all.

-- name: lock_receivers
-- Which of these receivers are there, held against deletion until the commit. In one order, so that two groups never wait for each other.
select r.id, r.restricted, r.owner_id
from event_receivers r
where r.id = any($1) and r.deleted_at is null
order by r.id
for key share

-- name: create_group
-- The group, its first version and its fact. $1 id … $8 owner, $9 now.
with numbered as (
    select nextval('fact_seq') as seq
), created as (
    insert into event_receiver_groups (
        id, name, type, version, description, enabled, event_receiver_ids, owner_id, resource_version, created_at, updated_at
    )
    values ($1, $2, $3, $4, $5, $6, $7, $8, 1, $9, $9)
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
-- Before a number is taken: versions of one group must be numbered in their order.
select
    g.id, g.name, g.type, g.version, g.description, g.enabled, g.event_receiver_ids, g.owner_id,
    g.resource_version, g.created_at, g.updated_at
from event_receiver_groups g
where g.id = $1 and g.deleted_at is null
for update

-- name: modify_group
-- A new version and its fact, behind lock_group. $2 name … $7 event_receiver_ids, $8 now.
with numbered as (
    select nextval('fact_seq') as seq
), modified as (
    update event_receiver_groups g
    set name = $2, type = $3, version = $4, description = $5, enabled = $6, event_receiver_ids = $7,
        resource_version = g.resource_version + 1, updated_at = greatest($8, g.updated_at)
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

-- name: search_groups
-- Newest first, behind the cursor. $7: one row more than the page.
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
limit $7

-- name: group_status
-- One statement, so one snapshot: the group in force, the heads, and what is still queued for the artifact, by gate. Two statements
-- could each miss an event that the sequencer moves between them.
select
    g.name as group_name, g.enabled, r.id as event_receiver_id, r.name as receiver_name, r.type as receiver_type,
    newest.event_id, newest.success, e.created_at as decided_at, e.owner_id as decided_by
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
where g.id = $1 and g.deleted_at is null
order by gate.place
