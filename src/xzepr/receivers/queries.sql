-- Event receivers. The row in `event_receivers` is the version in force; `event_receiver_versions` keeps them all.

-- name: create_receiver
-- The receiver, its first version and its fact, in one statement. $1 id … $11 now.
with numbered as (
    select nextval('fact_seq') as seq
), created as (
    insert into event_receivers (
        id, name, type, version, description, schema, default_draft, fingerprint, restricted, owner_id,
        resource_version, created_at, updated_at
    )
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 1, $11, $11)
    returning id
), versioned as (
    insert into event_receiver_versions (
        event_receiver_id, resource_version, seq, name, type, version, description, schema, default_draft, fingerprint,
        restricted, deleted, created_at, updated_at
    )
    select c.id, 1, n.seq, $2, $3, $4, $5, $6, $7, $8, $9, false, $11, $11 from created c, numbered n
    returning event_receiver_id
)
insert into outbox (seq, kind, event_receiver_id, event_receiver_version)
select n.seq, 'receiver.created', v.event_receiver_id, 1 from versioned v, numbered n

-- name: find_receiver
-- Deleted receivers are not found.
select
    r.id, r.name, r.type, r.version, r.description, r.schema, r.fingerprint, r.restricted, r.owner_id,
    r.resource_version, r.created_at, r.updated_at
from event_receivers r
where r.id = $1 and r.deleted_at is null

-- name: find_receiver_in_force
-- What the write path checks an event against. poster_ids: who may post to it besides its owner and administrators, where it is restricted: members
-- of the groups that its owner or an administrator put it into.
select
    r.id, r.resource_version, r.schema as schema_text, r.default_draft, r.restricted, r.owner_id,
    array(
        select distinct m.user_id
        from event_receiver_groups g
        join group_members m on m.event_receiver_group_id = g.id
        where r.restricted and g.event_receiver_ids @> array[r.id] and r.id = any(g.vouched_receiver_ids) and g.deleted_at is null
    ) as poster_ids
from event_receivers r
where r.id = $1 and r.deleted_at is null

-- name: tell_posters_changed
-- Every process forgets what it keeps of these receivers, restricted or not: one that is becoming so at this moment cannot be told from here.
insert into auth_changes (kind, subject) select 'receiver', u.id from unnest($1::text[]) as u (id)

-- name: search_receivers
-- Newest first, behind the cursor. $6: one row more than the page, to know whether there is more; $8: bytes of a page.
select
    p.id, p.name, p.type, p.version, p.description, p.schema, p.fingerprint, p.restricted, p.owner_id,
    p.resource_version, p.created_at, p.updated_at, p.followed
from (
    select
        f.*,
        coalesce(
            sum(
                octet_length(f.description)
                + case when pg_column_compression(f.schema) is null then pg_column_size(f.schema) else octet_length(f.schema::text) end
            ) over before,
            0
        ) as bytes_before,
        lead(true, 1, false) over before as followed
    from (
        select
            r.id, r.name, r.type, r.version, r.description, r.schema, r.fingerprint, r.restricted, r.owner_id,
            r.resource_version, r.created_at, r.updated_at
        from event_receivers r
        where r.deleted_at is null
            and ($1::text is null or r.name = $1)
            and ($2::text is null or r.type = $2)
            and ($3::text is null or r.version = $3)
            and ($4::text is null or r.fingerprint = $4)
            and ($5::text is null or r.id < $5)
        order by r.id desc
        limit $6 offset $7
    ) f
    window before as (order by f.id desc rows between unbounded preceding and 1 preceding)
) p
where p.bytes_before < $8
order by p.id desc

-- name: count_receivers
-- For a list by offset.
select count(*)
from event_receivers r
where r.deleted_at is null
    and ($1::text is null or r.name = $1)
    and ($2::text is null or r.type = $2)
    and ($3::text is null or r.version = $3)
    and ($4::text is null or r.fingerprint = $4)

-- name: lock_receiver
-- Before a number is taken: versions of one receiver must be numbered in their order.
select
    r.id, r.name, r.type, r.version, r.description, r.schema, r.default_draft, r.fingerprint, r.restricted, r.owner_id, r.resource_version
from event_receivers r
where r.id = $1 and r.deleted_at is null
for update

-- name: modify_receiver
-- A new version and its fact, behind lock_receiver. $2 name … $8 restricted, $9 now.
with numbered as (
    select nextval('fact_seq') as seq
), modified as (
    update event_receivers r
    set name = $2, type = $3, version = $4, description = $5, schema = $6, fingerprint = $7, restricted = $8,
        resource_version = r.resource_version + 1, updated_at = greatest($9, r.updated_at)
    where r.id = $1
    returning r.id, r.resource_version, r.default_draft, r.created_at, r.updated_at
), versioned as (
    insert into event_receiver_versions (
        event_receiver_id, resource_version, seq, name, type, version, description, schema, default_draft, fingerprint,
        restricted, deleted, created_at, updated_at
    )
    select m.id, m.resource_version, n.seq, $2, $3, $4, $5, $6, m.default_draft, $7, $8, false, m.created_at, m.updated_at
    from modified m, numbered n
    returning event_receiver_id, resource_version
)
insert into outbox (seq, kind, event_receiver_id, event_receiver_version)
select n.seq, 'receiver.modified', v.event_receiver_id, v.resource_version from versioned v, numbered n

-- name: is_referred_to
-- By an event, queued ones included, or by a group in force.
select
    exists (select from events e where e.event_receiver_id = $1) as by_events,
    exists (select from event_receiver_groups g where g.event_receiver_ids @> array[$1]::text[] and g.deleted_at is null) as by_groups

-- name: delete_receiver
-- Marked, with a last version and its fact, behind lock_receiver. $2 now.
with numbered as (
    select nextval('fact_seq') as seq
), marked as (
    update event_receivers r
    set deleted_at = $2, resource_version = r.resource_version + 1, updated_at = greatest($2, r.updated_at)
    where r.id = $1
    returning r.id, r.resource_version, r.name, r.type, r.version, r.description, r.schema, r.default_draft, r.fingerprint,
        r.restricted, r.created_at, r.updated_at
), versioned as (
    insert into event_receiver_versions (
        event_receiver_id, resource_version, seq, name, type, version, description, schema, default_draft, fingerprint,
        restricted, deleted, created_at, updated_at
    )
    select m.id, m.resource_version, n.seq, m.name, m.type, m.version, m.description, m.schema, m.default_draft, m.fingerprint,
        m.restricted, true, m.created_at, m.updated_at
    from marked m, numbered n
    returning event_receiver_id, resource_version
)
insert into outbox (seq, kind, event_receiver_id, event_receiver_version)
select n.seq, 'receiver.deleted', v.event_receiver_id, v.resource_version from versioned v, numbered n
