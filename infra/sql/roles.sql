-- Roles of pgkeep on a server that is to be backed up. Running it again changes nothing.
--
--     psql --set ON_ERROR_STOP=1 --file infra/sql/roles.sql "host=db.example.net user=postgres dbname=postgres"
--
-- Once per cluster, in any database, as a superuser (from PostgreSQL 16 on as any role that has
-- CREATEROLE and REPLICATION with the admin option). Passwords are set apart, so that none is in a file:
--
--     \password backup_user
--
-- Neither role is a superuser, owns anything, or may read a table that was not granted to it.

BEGIN;

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'backup_user') THEN
        CREATE ROLE backup_user;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'backup_monitor') THEN
        CREATE ROLE backup_monitor;
    END IF;
END
$$;

-- Base backups and WAL. A backup takes two connections, a receiver two, a drill's facts one more.
ALTER ROLE backup_user LOGIN REPLICATION CONNECTION LIMIT 10;
-- Settings that only administrators see, the state of slots, sizes.
GRANT pg_monitor TO backup_user;

-- Looks, and nothing else: for `pgkeep check` and dashboards of others.
ALTER ROLE backup_monitor LOGIN CONNECTION LIMIT 5;
GRANT pg_monitor TO backup_monitor;

-- Facts name the extensions and the collation version of each database.
DO $$
DECLARE
    database name;
BEGIN
    FOR database IN SELECT datname FROM pg_database WHERE datallowconn AND datconnlimit <> -2 LOOP
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO backup_user, backup_monitor', database);
    END LOOP;
END
$$;

-- From PostgreSQL 17 on: which stretches of WAL are summarised, for incremental backups.
DO $$
BEGIN
    IF to_regprocedure('pg_available_wal_summaries()') IS NOT NULL THEN
        GRANT EXECUTE ON FUNCTION pg_available_wal_summaries() TO backup_user;
    END IF;
END
$$;

COMMIT;

-- What depends on you, and `pgkeep check` asks for where it is missing:
--
-- Tables whose rows are counted at backup and at drill:
--     GRANT SELECT ON public.orders, public.customers TO backup_user;
--
-- Index maintenance is off until `[cluster.maintenance]` names a role. From PostgreSQL 17 on it needs
-- no ownership to rebuild, but to drop what an interrupted rebuilding left behind:
--     CREATE ROLE index_maintainer LOGIN;
--     GRANT pg_maintain TO index_maintainer;
