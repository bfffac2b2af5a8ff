-- +goose Up
create table counters (name text primary key, value integer not null) strict;
insert into counters values ('sequence', 0);
create table grants (
  repo integer not null, id text not null, number integer not null,
  sequence integer not null unique, state text not null, closed integer, -- microseconds
  payload blob not null, signature blob not null,
  primary key (repo, id)
) strict;
create index grants_of on grants (repo, number);
create table audit (seq integer primary key, hash text not null, entry blob not null) strict;
create table done (kind text not null, id text not null, primary key (kind, id)) strict;
create table pins (provider text not null, email text not null, issuer text not null, subject text not null, primary key (provider, email)) strict;
