-- +goose Up
-- Times are microseconds since 1970.
create table counters (name text primary key, value integer not null) strict;
insert into counters values ('sequence', 0);
create table grants (
  repo integer not null, id text not null, number integer not null,
  sequence integer not null unique, state text not null, closed integer,
  payload blob not null, signature blob not null,
  primary key (repo, id)
) strict;
create index grants_of on grants (repo, number);
create index grants_closed on grants (closed);
create table audit (seq integer primary key, hash text not null, entry blob not null) strict;
create table done (kind text not null, id text not null, primary key (kind, id)) strict;
create table pins (provider text not null, email text not null, issuer text not null, subject text not null, primary key (provider, email)) strict;
create table held (
  id text primary key, repo integer not null, pull integer not null, number integer not null,
  state text not null, expires integer not null, payload blob not null,
  unique (repo, pull, number)
) strict;
create index held_state on held (state);
create table sessions (
  id text primary key, repo integer not null, grant_id text not null,
  started integer not null, ended integer, reason text not null, payload blob not null
) strict;
create index sessions_of on sessions (repo, grant_id);
create index sessions_started on sessions (started);
create table heads (session text not null, segment integer not null, payload blob not null, primary key (session, segment)) strict;
create table adopted (one integer primary key check (one = 1), tree blob not null, rules blob not null) strict;
create table reviews (repo integer not null, pull integer not null, id integer not null, payload blob not null, primary key (repo, pull, id)) strict;
create table pushers (repo integer not null, head text not null, person integer not null, payload blob not null, primary key (repo, head, person)) strict;
