-- The catalogue's database and the login of the function app, on a server of your own. Not for a
-- deployment of infra/, where the identity is the server's administrator. Running it again changes nothing.
--
--     psql --set identity=id-pgkeep-prod-control --file infra/sql/catalogue.sql "host=… user=… dbname=postgres"
--
-- On Azure Database for PostgreSQL Flexible Server as an Entra administrator, with a token as PGPASSWORD
-- (az account get-access-token --resource-type oss-rdbms); the login is then an Entra principal. On
-- any other server as whoever may create databases and roles; give the login a password with \password.
-- database (pgkeep): its name.
--
-- The login may connect, and create in the schema `public` of this one database: it makes the tables
-- itself when the function app starts, and owns them. It owns no database, and nobody else may connect.

\set ON_ERROR_STOP on
\if :{?database}
\else
\set database pgkeep
\endif

SELECT to_regrole(quote_ident(:'identity')) IS NULL AS is_new,
       to_regproc('pgaadauth_create_principal') IS NOT NULL AS knows_entra
\gset
\if :is_new
\if :knows_entra
-- Neither an administrator, nor asked for a second factor: it is a program.
SELECT pgaadauth_create_principal(:'identity', false, false) AS made \gset
\else
CREATE ROLE :"identity" LOGIN;
\endif
\endif

SELECT format('CREATE DATABASE %I', :'database')
 WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database')
\gexec
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"database" TO :"identity";

\connect :"database"
GRANT USAGE, CREATE ON SCHEMA public TO :"identity";
