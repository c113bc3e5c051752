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
-- What the write path checks an event against.
select r.id, r.resource_version, r.schema as schema_text, r.default_draft, r.restricted, r.owner_id
from event_receivers r
where r.id = $1 and r.deleted_at is null

-- name: search_receivers
-- Newest first, behind the cursor. $6: one row more than the page, to know whether there is more.
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
limit $6
