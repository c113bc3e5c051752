-- Who may do what: users, their tokens and keys, members of groups, and the log of acts.

-- Local users have a password, users of a provider an issuer and a subject. A user that is deleted stays as a row: what it did names it.
create table users (
    id text collate "C" not null,
    username text not null,
    email text,
    -- argon2id, with its parameters in it; null: no login by password.
    password_hash text,
    issuer text,
    subject text,
    roles text[] not null,
    enabled boolean not null,
    -- Rises with whatever ends the tokens that are out: disabled, password or roles changed.
    auth_epoch integer not null default 1,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    last_login_at timestamptz,
    deleted_at timestamptz,
    constraint users_pkey primary key (id),
    constraint users_id_is_ulid check (length(id) = 26),
    constraint users_provider_is_whole check (num_nonnulls(issuer, subject) in (0, 2))
);
-- Names differ by more than case; the name of a deleted user is free again.
create unique index users_username_key on users (lower(username)) where deleted_at is null;
create unique index users_subject_key on users (issuer, subject) where deleted_at is null;

-- A login and everything refreshed from it. browser: by cookie, without refresh tokens.
create table login_families (
    id text collate "C" not null,
    user_id text collate "C" not null,
    -- password, oidc, browser.
    method text not null,
    created_at timestamptz not null,
    expires_at timestamptz not null,
    ended_at timestamptz,
    constraint login_families_pkey primary key (id),
    constraint login_families_user_fkey foreign key (user_id) references users (id)
);
create index login_families_user_idx on login_families (user_id);
create index login_families_expires_at_idx on login_families (expires_at);

-- Only hashes: whoever reads this table can log in nowhere.
create table refresh_tokens (
    token_sha256 bytea not null,
    family_id text collate "C" not null,
    created_at timestamptz not null,
    expires_at timestamptz not null,
    -- When it was turned in, and for which.
    used_at timestamptz,
    successor_sha256 bytea,
    constraint refresh_tokens_pkey primary key (token_sha256),
    constraint refresh_tokens_is_32_bytes check (octet_length(token_sha256) = 32),
    constraint refresh_tokens_family_fkey foreign key (family_id) references login_families (id) on delete cascade
);
create index refresh_tokens_family_idx on refresh_tokens (family_id);

create table browser_sessions (
    token_sha256 bytea not null,
    family_id text collate "C" not null,
    -- Of the provider, for its logout.
    id_token text,
    constraint browser_sessions_pkey primary key (token_sha256),
    constraint browser_sessions_family_fkey foreign key (family_id) references login_families (id) on delete cascade
);
create index browser_sessions_family_idx on browser_sessions (family_id);

create table api_keys (
    id text collate "C" not null,
    key_sha256 bytea not null,
    user_id text collate "C" not null,
    name text not null,
    scopes text[] not null,
    -- Null: all.
    event_receiver_ids text[] collate "C",
    created_at timestamptz not null,
    expires_at timestamptz,
    last_used_at timestamptz,
    revoked_at timestamptz,
    constraint api_keys_pkey primary key (id),
    constraint api_keys_is_32_bytes check (octet_length(key_sha256) = 32),
    constraint api_keys_user_fkey foreign key (user_id) references users (id)
);
create unique index api_keys_sha256_key on api_keys (key_sha256);
create index api_keys_user_idx on api_keys (user_id, id);

-- What every process must learn within a second: read every quarter of one, by time of the database's clock. kind: user (with the epoch from which on
-- its tokens count), family, api_key; receiver: others may post to it by now; event: it was redacted. Written in the transaction of the act.
create table auth_changes (
    id bigint generated always as identity,
    at timestamptz not null default clock_timestamp(),
    kind text not null,
    subject text collate "C" not null,
    epoch integer,
    constraint auth_changes_pkey primary key (id),
    constraint auth_changes_kind_is_known check (kind in ('user', 'family', 'api_key', 'receiver', 'event'))
);
create index auth_changes_at_idx on auth_changes (at);

-- Wrong guesses, by account and address and by address alone; a row dies when its delay is over long since.
create table login_guesses (
    bucket bytea not null,
    failures integer not null,
    last_at timestamptz not null,
    constraint login_guesses_pkey primary key (bucket)
);
create index login_guesses_last_at_idx on login_guesses (last_at);

-- A login at the provider that has begun: bound to one browser by a cookie, used once.
create table oidc_logins (
    state_sha256 bytea not null,
    browser_sha256 bytea not null,
    nonce text not null,
    code_verifier text not null,
    -- An own path; empty: the login is answered with tokens.
    redirect_to text not null,
    -- Of `xzepr login` with a browser: where its command listens, and its own state and challenge.
    cli_port integer,
    cli_state text,
    cli_code_challenge text,
    created_at timestamptz not null,
    constraint oidc_logins_pkey primary key (state_sha256)
);
create index oidc_logins_created_at_idx on oidc_logins (created_at);
create table cli_codes (
    code_sha256 bytea not null,
    user_id text collate "C" not null,
    method text not null,
    code_challenge text not null,
    created_at timestamptz not null,
    constraint cli_codes_pkey primary key (code_sha256),
    constraint cli_codes_user_fkey foreign key (user_id) references users (id)
);

create table group_members (
    event_receiver_group_id text collate "C" not null,
    user_id text collate "C" not null,
    added_at timestamptz not null,
    added_by text collate "C",
    constraint group_members_pkey primary key (event_receiver_group_id, user_id),
    constraint group_members_group_fkey foreign key (event_receiver_group_id) references event_receiver_groups (id),
    constraint group_members_user_fkey foreign key (user_id) references users (id)
);
create index group_members_user_idx on group_members (user_id);
-- Of a group's receivers those that their owner or an administrator put there: to these its members may post when they are restricted. A group of
-- somebody else that held a receiver before it was restricted lets nobody in. What is there already counts as put there by the owner of the group.
alter table event_receiver_groups add column vouched_receiver_ids text[] collate "C" not null default '{}';
update event_receiver_groups g
set vouched_receiver_ids = array(
    select r.id from event_receivers r where r.id = any(g.event_receiver_ids) and r.owner_id is not distinct from g.owner_id order by r.id
);

-- That an event's payload was taken away, by whom and why; the event itself holds the tombstone.
create table redactions (
    id text collate "C" not null,
    event_id text collate "C" not null,
    reason text not null,
    created_at timestamptz not null,
    created_by text collate "C",
    constraint redactions_pkey primary key (id)
);
create unique index redactions_event_key on redactions (event_id);

-- Append-only. One row an act, in the act's own transaction. Events are their own record.
create table audit_log (
    id text collate "C" not null,
    -- The clock reading in the id, so that a range of times is a range of ids.
    at timestamptz not null,
    actor_id text collate "C",
    actor_name text not null,
    -- anonymous, password, oidc, browser, api_key, trusted_issuer, system.
    actor_kind text not null,
    -- subject.action
    act text not null,
    object_id text,
    outcome text not null,
    address text,
    request_id text,
    details json not null,
    constraint audit_log_pkey primary key (id),
    constraint audit_log_act_is_subject_and_action check (act ~ '^[a-z_]+\.[a-z_]+$'),
    constraint audit_log_outcome_is_known check (outcome in ('success', 'failure', 'denied'))
);
create index audit_log_actor_idx on audit_log (actor_id, id);
create index audit_log_act_idx on audit_log (act, id);
