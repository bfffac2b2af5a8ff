-- What two graphical tools ask a server for when they connect and open a
-- table, as PostgreSQL's own log shows it. Statements end with an empty line.
-- Origin: DataGrip 2025.2.3 and DBeaver 25.1.5, by the logs in the issues 165
-- and 135 of github.com/datafusion-contrib/datafusion-postgres; DBeaver's
-- queries for an opened table by github.com/dbeaver/dbeaver, plugin
-- org.jkiss.dbeaver.ext.postgresql. Parameters stand in the text.

-- DataGrip
SET extra_float_digits = 3

SET application_name = ''

select version()

SET application_name = 'DataGrip 2025.2.3'

select current_database() as a, current_schemas(false) as b

SHOW TRANSACTION ISOLATION LEVEL

select current_database(), current_schema(), current_user

select round(extract(epoch from pg_postmaster_start_time() at time zone 'UTC')) as startup_time

select L.transactionid::varchar::bigint as transaction_id
from pg_catalog.pg_locks L
where L.transactionid is not null
order by pg_catalog.age(L.transactionid) desc
limit 1

select case when pg_catalog.pg_is_in_recovery() then null
       else (pg_catalog.txid_current() % 4294967296)::varchar::bigint end as current_txid

select N.oid::bigint as id, datname as name, D.description, datistemplate as is_template,
       datallowconn as allow_connections, pg_catalog.pg_get_userbyid(N.datdba) as "owner"
from pg_catalog.pg_database N left join pg_catalog.pg_shdescription D on N.oid = D.objoid
order by case when datname = pg_catalog.current_database() then -1::bigint else N.oid::bigint end

select N.oid::bigint as id, N.xmin as state_number, nspname as name, D.description,
       pg_catalog.pg_get_userbyid(N.nspowner) as "owner"
from pg_catalog.pg_namespace N left join pg_catalog.pg_description D on N.oid = D.objoid
order by case when nspname = pg_catalog.current_schema() then -1::bigint else N.oid::bigint end

show DateStyle

select name, is_dst from pg_catalog.pg_timezone_names
union distinct
select abbrev as name, is_dst from pg_catalog.pg_timezone_abbrevs

select R.oid::bigint as role_id, rolname as role_name, rolsuper is_super, rolinherit is_inherit,
       rolcreaterole can_createrole, rolcreatedb can_createdb, rolcanlogin can_login,
       rolreplication /* false */ is_replication, rolconnlimit conn_limit, rolvaliduntil valid_until,
       rolbypassrls /* false */ bypass_rls, rolconfig config, D.description
from pg_catalog.pg_roles R left join pg_catalog.pg_shdescription D on D.objoid = R.oid

select member id, roleid role_id, admin_option from pg_catalog.pg_auth_members order by id, roleid::text

select T.oid::bigint as id, T.spcname as name, T.xmin as state_number,
       pg_catalog.pg_get_userbyid(T.spcowner) as owner,
       pg_catalog.pg_tablespace_location(T.oid) /* null */ as location,
       T.spcoptions /* null */ as options, D.description as comment
from pg_catalog.pg_tablespace T left join pg_catalog.pg_shdescription D on D.objoid = T.oid
--  where pg_catalog.age(T.xmin) <= #TXAGE

select T.oid as object_id, T.spcacl as acl from pg_catalog.pg_tablespace T
union all
select T.oid as object_id, T.datacl as acl from pg_catalog.pg_database T

SELECT e.typdelim FROM pg_catalog.pg_type t, pg_catalog.pg_type e WHERE t.oid = '1034' and t.typelem = e.oid

select ssl from pg_stat_ssl where pid = pg_backend_pid()

-- DBeaver
SET extra_float_digits = 3

SET application_name = 'DBeaver 25.1.5 - Main <postgres>'

SELECT current_schema(),session_user

SELECT n.oid,n.*,d.description FROM pg_catalog.pg_namespace n
LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=n.oid AND d.objsubid=0 AND d.classoid='pg_namespace'::regclass
ORDER BY nspname

SELECT n.nspname = ANY(current_schemas(true)), n.nspname, t.typname
FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON t.typnamespace = n.oid WHERE t.oid = 1034

SELECT typinput='pg_catalog.array_in'::regproc as is_array, typtype, typname, pg_type.oid
FROM pg_catalog.pg_type
LEFT JOIN (select ns.oid as nspoid, ns.nspname, r.r
  from pg_namespace as ns
  join (select s.r, (current_schemas(false))[s.r] as nspname
        from generate_series(1, array_upper(current_schemas(false), 1)) as s(r)) as r
  using (nspname)) as sp ON sp.nspoid = typnamespace
WHERE pg_type.oid = '1034' ORDER BY sp.r, pg_type.oid DESC

SHOW search_path

SELECT db.oid,db.* FROM pg_catalog.pg_database db WHERE datname='postgres'

SELECT * FROM pg_catalog.pg_settings where name='standard_conforming_strings'

SELECT string_agg(word, ',' ) from pg_catalog.pg_get_keywords() where word <> ALL ('{a,abs,absolute,action,ada,add,zone}'::text[])

SELECT version()

SELECT * FROM pg_catalog.pg_enum WHERE 1<>1 LIMIT 1

SELECT reltype FROM pg_catalog.pg_class WHERE 1<>1 LIMIT 1

SELECT t.oid,t.*,c.relkind,format_type(nullif(t.typbasetype, 0), t.typtypmod) as base_type_name, d.description
FROM pg_catalog.pg_type t
LEFT OUTER JOIN pg_catalog.pg_type et ON et.oid=t.typelem
LEFT OUTER JOIN pg_catalog.pg_class c ON c.oid=t.typrelid
LEFT OUTER JOIN pg_catalog.pg_description d ON t.oid=d.objoid
WHERE t.typname IS NOT NULL AND (c.relkind IS NULL OR c.relkind = 'c') AND (et.typcategory IS NULL OR et.typcategory <> 'C')

SELECT c.oid,c.*,d.description,pg_catalog.pg_get_expr(c.relpartbound, c.oid) as partition_expr, pg_catalog.pg_get_partkeydef(c.oid) as partition_key
FROM pg_catalog.pg_class c
LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=c.oid AND d.objsubid=0 AND d.classoid='pg_class'::regclass
WHERE c.relnamespace='public'::regnamespace AND c.relkind not in ('i','I','c')

SELECT c.relname,a.*,pg_catalog.pg_get_expr(ad.adbin, ad.adrelid, true) as def_value,dsc.description,dep.objid
FROM pg_catalog.pg_attribute a
INNER JOIN pg_catalog.pg_class c ON (a.attrelid=c.oid)
LEFT OUTER JOIN pg_catalog.pg_attrdef ad ON (a.attrelid=ad.adrelid AND a.attnum = ad.adnum)
LEFT OUTER JOIN pg_catalog.pg_description dsc ON (c.oid=dsc.objoid AND a.attnum = dsc.objsubid)
LEFT OUTER JOIN pg_depend dep on dep.refobjid = a.attrelid AND dep.deptype = 'i' and dep.refobjsubid = a.attnum and dep.classid = dep.refclassid
WHERE NOT a.attisdropped AND c.oid='public.t'::regclass ORDER BY a.attnum

SELECT c.oid,c.*,t.relname as tabrelname,rt.relnamespace as refnamespace,d.description,
       case when c.contype='c' then "substring"(pg_get_constraintdef(c.oid), 7) else null end consrc_copy
FROM pg_catalog.pg_constraint c
INNER JOIN pg_catalog.pg_class t ON t.oid=c.conrelid
LEFT OUTER JOIN pg_catalog.pg_class rt ON rt.oid=c.confrelid
LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=c.oid AND d.objsubid=0 AND d.classoid='pg_constraint'::regclass
WHERE c.conrelid='public.t'::regclass ORDER BY c.oid

SELECT i.*,i.indkey as keys,c.relname,c.relnamespace,c.relam,c.reltablespace,tc.relname as tabrelname,dsc.description,
       pg_catalog.pg_get_expr(i.indpred, i.indrelid) as pred_expr, pg_catalog.pg_get_expr(i.indexprs, i.indrelid, true) as expr,
       pg_catalog.pg_relation_size(i.indexrelid) as index_rel_size, pg_catalog.pg_stat_get_numscans(i.indexrelid) as index_num_scans
FROM pg_catalog.pg_index i
INNER JOIN pg_catalog.pg_class c ON c.oid=i.indexrelid
INNER JOIN pg_catalog.pg_class tc ON tc.oid=i.indrelid
LEFT OUTER JOIN pg_catalog.pg_description dsc ON i.indexrelid=dsc.objoid
WHERE i.indrelid='public.t'::regclass ORDER BY tabrelname, c.relname

SELECT x.* FROM public.t x

SHOW TRANSACTION ISOLATION LEVEL

SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY

SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE
