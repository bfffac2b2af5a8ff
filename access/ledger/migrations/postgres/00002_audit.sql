-- +goose Up
-- A login that may only append to the audit log can neither break its chain
-- nor write what the owner of the table alone does.
-- +goose StatementBegin
create function audit_append() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $body$
declare
  last_seq bigint;
  last_hash text;
  said json := convert_from(new.entry, 'UTF8')::json;
begin
  execute format('select seq, hash from %I.%I order by seq desc limit 1', tg_table_schema, tg_table_name) into last_seq, last_hash;
  if new.seq is distinct from coalesce(last_seq, 0) + 1
    or said ->> 'seq' is distinct from new.seq::text
    or said ->> 'prev' is distinct from coalesce(last_hash, '')
    or new.hash is distinct from encode(sha256(new.entry), 'hex')
  then
    raise exception 'audit row % does not follow the one before it', new.seq using errcode = 'check_violation';
  end if;
  if not pg_has_role((select relowner from pg_class where oid = tg_relid), 'usage') and coalesce(said ->> 'action', '') not in
    ('session.open', 'session.close', 'hold.open', 'hold.consumed', 'hold.cancelled', 'hold.timed_out')
  then
    raise exception 'audit action % is not for a gateway', said ->> 'action' using errcode = 'insufficient_privilege';
  end if;
  return new;
end
$body$;
-- +goose StatementEnd
create trigger audit_append before insert on audit for each row execute function audit_append();
