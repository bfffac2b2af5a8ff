-- +goose Up
-- +goose StatementBegin
create trigger audit_append before insert on audit
when new.seq is not (select coalesce(max(seq), 0) + 1 from audit)
begin
  select raise(abort, 'an audit row does not follow the one before it');
end;
-- +goose StatementEnd
