-- Made after the rows are in, as a loader should.
create index on users (organization_id);
create index on documents (organization_id, created_at);
create index on documents (author_id);
create index on comments (document_id);
select setval(pg_get_serial_sequence('organizations', 'id'), max(id)) from organizations;
select setval(pg_get_serial_sequence('users', 'id'), max(id)) from users;
select setval(pg_get_serial_sequence('documents', 'id'), max(id)) from documents;
select setval(pg_get_serial_sequence('comments', 'id'), max(id)) from comments;
update organizations set document_count =
    (select count(*) from documents where organization_id = organizations.id);
