-- What makes a change of the audit log show: rows are sealed into a chain of hashes, and the chain is signed now and then. How each hash is made stands
-- in audit/chain.py.

-- Rows that no seal holds yet. Written with the row, taken by the sealer: rows become visible at their commit, not in the order of their ids, so a
-- look behind the last id sealed would miss one that committed late.
create table audit_unsealed (
    id text collate "C" not null,
    constraint audit_unsealed_pkey primary key (id)
);
insert into audit_unsealed (id) select a.id from audit_log a;

-- One round of the sealer. previous_sha256: that of the seal before, null in the first one.
create table audit_seals (
    number bigint not null,
    first_row text collate "C" not null,
    last_row text collate "C" not null,
    row_count integer not null,
    rows_sha256 bytea not null,
    previous_sha256 bytea,
    sha256 bytea not null,
    sealed_at timestamptz not null,
    constraint audit_seals_pkey primary key (number),
    constraint audit_seals_holds_rows check (row_count > 0)
);

-- Which rows a seal holds, in their order, from place 1, with the hash of each: so the row that was changed can be named.
create table audit_sealed_rows (
    seal bigint not null,
    place integer not null,
    row_id text collate "C" not null,
    row_sha256 bytea not null,
    constraint audit_sealed_rows_pkey primary key (seal, place),
    constraint audit_sealed_rows_once unique (row_id)
);

-- The chain up to one seal, signed; the log of the server gets the same. kid and signature null: there was no key.
create table audit_checkpoints (
    number bigint not null,
    seal bigint not null,
    sha256 bytea not null,
    signed_at timestamptz not null,
    kid text,
    signature bytea,
    constraint audit_checkpoints_pkey primary key (number),
    constraint audit_checkpoints_signature_is_whole check (num_nonnulls(kid, signature) in (0, 2))
);
