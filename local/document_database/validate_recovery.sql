-- What must hold in a recovered document database, whatever instant it was recovered to.
-- Each statement raises an error, naming the number of offenders, when its rule is broken.
do $$
declare offenders bigint;
begin
    select count(*) into offenders from users u
    where not exists (select from organizations o where o.id = u.organization_id);
    if offenders > 0 then
        raise exception '% users belong to no organization', offenders;
    end if;
end $$;

do $$
declare offenders bigint;
begin
    select count(*) into offenders from documents d
    where not exists (select from organizations o where o.id = d.organization_id)
       or not exists (select from users u
                      where u.id = d.author_id and u.organization_id = d.organization_id);
    if offenders > 0 then
        raise exception '% documents lack an organization or an author in it', offenders;
    end if;
end $$;

do $$
declare offenders bigint;
begin
    select count(*) into offenders
    from summaries s full join documents d on d.id = s.document_id
    where d.id is null or s.document_id is null or s.revision is distinct from d.revision;
    if offenders > 0 then
        raise exception '% summaries and documents do not belong together', offenders;
    end if;
end $$;

do $$
declare offenders bigint;
begin
    select count(*) into offenders from organizations o
    where document_count <> (select count(*) from documents d where d.organization_id = o.id);
    if offenders > 0 then
        raise exception '% organizations count their documents wrongly: a transaction was torn',
            offenders;
    end if;
end $$;

do $$
declare offenders bigint;
begin
    select count(*) into offenders from documents
    where updated_at > clock_timestamp() or created_at > updated_at or title = '' or length(body) < 100;
    if offenders > 0 then
        raise exception '% documents have a time in the future, no title or no body', offenders;
    end if;
end $$;

do $$
declare offenders bigint;
begin
    select count(*) into offenders from comments c
    where not exists (select from documents d where d.id = c.document_id)
       or not exists (select from users u where u.id = c.author_id);
    if offenders > 0 then
        raise exception '% comments lack a document or an author', offenders;
    end if;
end $$;

do $$
declare offenders bigint;
begin
    select count(*) into offenders from heartbeat where at > clock_timestamp();
    if offenders > 0 then
        raise exception '% heartbeats lie in the future', offenders;
    end if;
end $$;

-- A recovered copy that lost its rows would pass all of the above.
do $$
begin
    if not exists (select from organizations) or not exists (select from documents) then
        raise exception 'the database is empty';
    end if;
end $$;
