-- Roles of pgkeep on a server that is to be backed up. Running it again changes nothing.
--
--     psql --file infra/sql/roles.sql "host=db.example.net user=postgres dbname=postgres"
--
-- Once per cluster, on the primary, connected to any database; PostgreSQL 15 to 18. As a superuser;
-- from 16 on also as a role with CREATEROLE and REPLICATION that administers pg_monitor (GRANT
-- pg_monitor TO … WITH ADMIN OPTION), for the databases that it owns. No password is in a file:
--
--     \password backup_user
--
-- Options, as --set NAME=VALUE:
--     read_all_data=yes   backup_user may read every table by SQL, for dumps and for `tables` without
--                         grants of their own; =no takes it back
--     maintainer=NAME     makes the role for index maintenance, and
--     table_owners=A,B    makes it a member of these owners; their tables are what it may rebuild
--
-- Lines of pg_hba.conf, on the primary and on each standby, whose configuration is their own. `all`
-- does not stand for replication:
--
--     hostssl  all          backup_user     10.0.0.0/16  scram-sha-256
--     hostssl  replication  backup_user     10.0.0.0/16  scram-sha-256
--     hostssl  all          backup_monitor  10.0.0.0/16  scram-sha-256

\set ON_ERROR_STOP on

BEGIN;

SELECT format('CREATE ROLE %I', wanted)
  FROM (VALUES ('backup_user'), ('backup_monitor')) AS roles (wanted)
 WHERE to_regrole(wanted) IS NULL
\gexec

-- Only what differs is changed: from PostgreSQL 16 on an administrator may not even confirm an
-- attribute that is not his own (CREATE ROLE, "Notes"). A limit that somebody set stays. A backup
-- takes two connections for the stream and one for facts, a receiver two, a check two.
SELECT format('ALTER ROLE %I %s', rolname, change)
  FROM pg_roles
 CROSS JOIN LATERAL (VALUES
       (NOT rolcanlogin, 'LOGIN'),
       (NOT rolinherit, 'INHERIT'),
       (rolsuper, 'NOSUPERUSER'),
       (rolcreatedb, 'NOCREATEDB'),
       (rolcreaterole, 'NOCREATEROLE'),
       (rolname = 'backup_user' AND NOT rolreplication, 'REPLICATION'),
       (rolname = 'backup_user' AND rolconnlimit = -1, 'CONNECTION LIMIT 10'),
       (rolname = 'backup_monitor' AND rolreplication, 'NOREPLICATION'),
       (rolname = 'backup_monitor' AND rolbypassrls, 'NOBYPASSRLS'),
       (rolname = 'backup_monitor' AND rolconnlimit = -1, 'CONNECTION LIMIT 5')
     ) AS attribute (differs, change)
 WHERE rolname IN ('backup_user', 'backup_monitor') AND differs
\gexec

COMMENT ON ROLE backup_user IS 'pgkeep: base backups and WAL';
COMMENT ON ROLE backup_monitor IS 'pgkeep: looks without copying';

-- For their SQL sessions only: physical walsenders read no settings of roles (InitPostgres). Rows are
-- counted under drill.statement_timeout_s, which pgkeep sets itself.
SELECT format('ALTER ROLE %I SET %I = %L', rolname, name, value)
  FROM (VALUES ('backup_user'), ('backup_monitor')) AS roles (rolname)
 CROSS JOIN (VALUES
       ('default_transaction_read_only', 'on'),
       ('statement_timeout', '15min'),
       ('lock_timeout', '30s'),
       ('idle_in_transaction_session_timeout', '15min')
     ) AS settings (name, value)
\gexec

-- Settings that others do not see, the state of slots, sizes, what waits to be archived.
SELECT format('GRANT pg_monitor TO %I', rolname)
  FROM (VALUES ('backup_user'), ('backup_monitor')) AS roles (rolname)
 WHERE NOT pg_has_role(rolname, 'pg_monitor', 'USAGE')
\gexec

-- Facts name the extensions and the collation version of each database, its unlogged tables as well.
-- Granted by name, so that taking CONNECT from PUBLIC later does not end the backups.
SELECT format('GRANT CONNECT ON DATABASE %I TO %I', datname, rolname)
  FROM pg_database
 CROSS JOIN (VALUES ('backup_user'), ('backup_monitor')) AS roles (rolname)
 WHERE datallowconn AND datconnlimit <> -2
   AND NOT EXISTS (SELECT FROM aclexplode(datacl)
                    WHERE grantee = to_regrole(rolname) AND privilege_type = 'CONNECT')
\gexec

\if :{?read_all_data}
SELECT CASE WHEN :'read_all_data'::boolean THEN 'GRANT pg_read_all_data TO backup_user'
            WHEN pg_has_role('backup_user', 'pg_read_all_data', 'MEMBER')
            THEN 'REVOKE pg_read_all_data FROM backup_user' END
\gexec
\endif

\if :{?maintainer}
\if :{?table_owners}
\else
\set table_owners ''
\endif
SELECT format('CREATE ROLE %I LOGIN CONNECTION LIMIT 3', :'maintainer')
 WHERE to_regrole(quote_ident(:'maintainer')) IS NULL
\gexec
SELECT format('GRANT CONNECT ON DATABASE %I TO %I', datname, :'maintainer')
  FROM pg_database
 WHERE datallowconn AND datconnlimit <> -2 AND NOT datistemplate
   AND NOT EXISTS (SELECT FROM aclexplode(datacl)
                    WHERE grantee = to_regrole(quote_ident(:'maintainer'))
                      AND privilege_type = 'CONNECT')
\gexec
-- Rebuilding, dropping and analyzing ask for what an owner may; becoming the owner is not needed.
SELECT format('GRANT %I TO %I', trim(owner), :'maintainer')
       || CASE WHEN current_setting('server_version_num')::int >= 160000
               THEN ' WITH INHERIT TRUE, SET FALSE' ELSE '' END
  FROM string_to_table(:'table_owners', ',') AS owner
 WHERE trim(owner) <> ''
\gexec
\endif

COMMIT;

-- What depends on you, and `pgkeep check` prints where it is missing: SELECT on the tables whose rows
-- are counted at backup and at drill.
--
--     GRANT SELECT ON public.orders, public.customers TO backup_user;
