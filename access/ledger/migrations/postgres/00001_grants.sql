-- +goose Up
-- Times are microseconds since 1970.
create table counters (name text primary key, value bigint not null);
insert into counters values ('sequence', 0);
create table grants (
  repo bigint not null, id text not null, number bigint not null,
  sequence bigint not null unique, state text not null, closed bigint,
  payload bytea not null, signature bytea not null,
  primary key (repo, id)
);
create index grants_of on grants (repo, number);
create index grants_closed on grants (closed);
create table audit (seq bigint primary key, hash text not null, entry bytea not null);
create table done (kind text not null, id text not null, primary key (kind, id));
create table pins (provider text not null, email text not null, issuer text not null, subject text not null, primary key (provider, email));
create table held (
  id text primary key, repo bigint not null, pull bigint not null, number bigint not null,
  state text not null, expires bigint not null, payload bytea not null,
  unique (repo, pull, number)
);
create index held_state on held (state);
create table sessions (
  id text primary key, repo bigint not null, grant_id text not null,
  started bigint not null, ended bigint, reason text not null, payload bytea not null
);
create index sessions_of on sessions (repo, grant_id);
create index sessions_started on sessions (started);
create table heads (session text not null, segment bigint not null, payload bytea not null, primary key (session, segment));
create table adopted (one bigint primary key check (one = 1), tree bytea not null, rules bytea not null);
create table reviews (repo bigint not null, pull bigint not null, id bigint not null, payload bytea not null, primary key (repo, pull, id));
create table pushers (repo bigint not null, head text not null, person bigint not null, payload bytea not null, primary key (repo, head, person));
