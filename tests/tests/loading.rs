//! The catalogue on a real server: what PostgreSQL and pgSTAC say and what is done about it, where items go, what comes
//! out again.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use landfall_events::codes;
use landfall_events::routed::{CollectionRouted, ItemRouted, ObjectRemoved};
use landfall_events::{Cause, Change, Envelope, ObjectRef};
use landfall_shared::catalogue::{
    Applied, Catalogue, CatalogueError, Content, Load, PostgresCatalogue, Reaction, RowFilter, Settled, State,
};
use landfall_shared::pgstac::Item;
use landfall_tests::load_world::{cause, inline, stored};
use landfall_tests::real_world::Database;
use serde_json::{Value, json};
use tokio_postgres::Client;

fn document(id: &str, collection: &str, datetime: &str) -> Value {
    json!({
        "type": "Feature", "stac_version": "1.0.0", "id": id, "collection": collection,
        "geometry": {"type": "Polygon", "coordinates": [[[1, 2], [3, 2], [3, 4], [1, 2]]]}, "bbox": [1, 2, 3, 4],
        "properties": {"datetime": datetime}, "links": [],
        "assets": {"data": {"href": format!("s3://archive/{id}.tif"), "type": "image/tiff", "roles": ["data"]}},
    })
}

fn item(id: &str, collection: &str, datetime: &str) -> Item {
    Item::read(document(id, collection, datetime).to_string()).unwrap()
}

async fn collection(client: &Client, id: &str, truncation: Option<&str>) {
    let document = json!({
        "type": "Collection", "stac_version": "1.0.0", "id": id, "description": "d", "license": "CC0-1.0", "links": [],
        "extent": {"spatial": {"bbox": [[0, 0, 1, 1]]}, "temporal": {"interval": [["2024-01-01T00:00:00Z", null]]}},
        "item_assets": {"data": {"type": "image/tiff", "roles": ["data"]}, "thumbnail": {"type": "image/png"}},
    });
    client.execute("select pgstac.create_collection($1::text::jsonb)", &[&document.to_string()]).await.unwrap();
    let sql = "update pgstac.collections set partition_trunc = $2 where id = $1";
    client.execute(sql, &[&id, &truncation]).await.unwrap();
}

/// Where an id's rows are.
async fn leaves(client: &Client, id: &str) -> Vec<String> {
    let sql = "select tableoid::regclass::text from pgstac.items where id = $1 order by 1";
    let leaf = |row: &tokio_postgres::Row| row.get::<_, &str>(0).trim_start_matches("pgstac.").to_owned();
    client.query(sql, &[&id]).await.unwrap().iter().map(leaf).collect()
}

async fn read_back(client: &Client, id: &str) -> Value {
    let text: String = client.query_one("select pgstac.get_item($1)::text", &[&id]).await.unwrap().get(0);
    serde_json::from_str(&text).unwrap()
}

/// What is done about what these statements meet, run one after the other on one connection.
async fn reaction(database: &Database, statements: &[&str]) -> (String, Reaction) {
    let client = database.connect().await.unwrap();
    client.batch_execute("set search_path = pgstac, public").await.unwrap();
    for statement in statements {
        if let Err(error) = client.batch_execute(statement).await {
            let sqlstate = error.code().map(|code| code.code().to_owned()).unwrap_or_default();
            // What it held is free before the next connects.
            drop(client.batch_execute("rollback").await);
            return (sqlstate, Reaction::to(&error));
        }
    }
    panic!("nothing was met: {statements:?}")
}

#[tokio::test]
async fn everything_that_the_server_can_say_is_answered_as_it_should_be() {
    let database = Database::start().await.unwrap();
    let refuse = Reaction::Refuse;
    collection(&database.client, "c", None).await;
    collection(&database.client, "m", Some("month")).await;
    let create = |mend: &dyn Fn(&mut Value)| {
        let mut document = document("i", "c", "2024-05-17T10:15:00Z");
        mend(&mut document);
        format!("select create_item($t${document}$t$::text::jsonb)")
    };
    let with = |pointer: &'static str, value: Value| {
        create(&move |document| {
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            document.pointer_mut(parent).unwrap()[name] = value.clone();
        })
    };
    let without = |pointer: &'static str| {
        create(&move |document| {
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            document.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name);
        })
    };
    let good = create(&|_| {});
    let raw = |more: &str| good.replace("\"datetime\":", &format!("{more},\"datetime\":"));
    let month = |day: &str| with("/collection", json!("m")).replace("2024-05-17", day);
    let polygon = |kind: &str| with("/geometry", json!({"type": kind, "coordinates": [[[1, 2]]]}));
    let backwards =
        with("/properties", json!({"start_datetime": "2024-02-01T00:00:00Z", "end_datetime": "2024-01-01T00:00:00Z"}));
    let big_object = "select upsert_items('{\"id\": 1}')";

    let table: Vec<(&str, Reaction, Vec<String>)> = vec![
        // Collections that are not there, partitions that have changed.
        ("23514", Reaction::Reread, vec![with("/collection", json!("nope"))]),
        ("23514", Reaction::Reread, vec![without("/collection")]),
        ("23514", Reaction::Reread, vec![good.replace("create_item(", "upsert_item(").replace("\"c\"", "\"nope\"")]),
        ("23503", Reaction::Reread, vec!["select check_partition('nope', '[2024-01-01,2024-01-02]', '[2024-01-01,2024-01-02]')".into()]),
        ("23514", Reaction::Reread, vec![month("2024-05-17"), "insert into _items_2_202405 select id || '2', geometry, collection,
            '2024-05-30', '2024-05-30', content from _items_2_202405".into()]),
        ("42P01", Reaction::Reread, vec!["insert into _items_2_202404 select * from items".into()]),
        ("42P10", Reaction::Reread, vec!["insert into _items_2 select * from items where collection = 'm' on conflict (id) do nothing".into()]),
        // What is in a document.
        ("23505", refuse(codes::LOAD_DUPLICATE), vec![good.clone(), good.clone()]),
        ("23502", refuse(codes::LOAD_GEOMETRY), vec![with("/geometry", Value::Null)]),
        ("XX000", refuse(codes::LOAD_GEOMETRY), vec![polygon("Circle")]),
        ("XX000", refuse(codes::LOAD_GEOMETRY), vec![with("/geometry", json!("no"))]),
        ("P0001", refuse(codes::LOAD_DATETIME), vec![with("/properties/datetime", Value::Null)]),
        ("P0001", refuse(codes::LOAD_DATETIME), vec![without("/properties/datetime")]),
        ("P0001", refuse(codes::LOAD_DATETIME), vec![with("/properties", json!({"start_datetime": "2024-01-01T00:00:00Z"}))]),
        ("P0001", refuse(codes::LOAD_DATETIME), vec![backwards]),
        ("22007", refuse(codes::LOAD_DATETIME), vec![with("/properties/datetime", json!("garbage"))]),
        ("22008", refuse(codes::LOAD_DATETIME), vec![with("/properties/datetime", json!("2024-13-01T00:00:00Z"))]),
        ("23502", refuse(codes::LOAD_ID), vec![without("/id")]),
        ("23502", refuse(codes::LOAD_ID), vec![with("/id", Value::Null)]),
        ("22P05", refuse(codes::LOAD_NUL), vec![raw("\"x\":\"\\u0000\"")]),
        ("22P02", refuse(codes::LOAD_JSON), vec![raw("\"x\":\"\\ud800\"")]),
        ("22P02", refuse(codes::LOAD_JSON), vec![raw("\"x\":")]),
        ("22003", refuse(codes::LOAD_NUMBER), vec![raw("\"x\":1e200000")]),
        ("22003", refuse(codes::LOAD_NUMBER), vec![raw("\"x\":1e-200000")]),
        ("22023", refuse(codes::LOAD_REFUSED), vec![big_object.into()]),
        ("21000", refuse(codes::LOAD_REPEATED), vec!["insert into landfall.collections values ('x', 'p'), ('x', 'q')
            on conflict (collection) do update set provider = excluded.provider".into()]),
        ("54000", refuse(codes::LOAD_TOO_LARGE), vec!["insert into landfall.collections
            select string_agg(md5(n::text), ''), 'p' from generate_series(1, 1000) n".into()]),
        // Collections' own documents.
        ("23505", refuse(codes::LOAD_DUPLICATE), vec!["select create_collection('{\"id\": \"c\"}')".into()]),
        ("23502", refuse(codes::LOAD_ID), vec!["select create_collection('{}')".into()]),
        ("22P02", refuse(codes::LOAD_JSON), vec![
            "select create_collection('{\"id\": \"x\", \"extent\": {\"spatial\": {\"bbox\": [[\"a\", 0, 1, 1]]}}}')".into()]),
        ("22007", refuse(codes::LOAD_DATETIME), vec![
            "select create_collection('{\"id\": \"x\", \"extent\": {\"temporal\": {\"interval\": [[\"a\", null]]}}}')".into()]),
        // What passes.
        ("55006", Reaction::Retry, vec!["begin; create temp table t (x int); declare c cursor for select * from t; fetch c; drop table t".into()]),
        ("57014", Reaction::Retry, vec!["set statement_timeout = '10ms'; select pg_sleep(1)".into()]),
        ("53200", Reaction::Split, vec!["begin; select pg_advisory_xact_lock(n) from generate_series(1, 1000000) n".into()]),
        ("53400", Reaction::Retry, vec!["set temp_file_limit = '64kB'; set work_mem = '64kB';
            select count(*) from (select n from generate_series(1, 300000) n order by -n) s".into()]),
        ("25006", Reaction::Reconnect, vec!["set default_transaction_read_only = on".into(), "delete from items".into()]),
        ("57P01", Reaction::Reconnect, vec!["select pg_terminate_backend(pg_backend_pid())".into()]),
        // What only an operator can mend.
        ("42501", Reaction::Stop, vec!["create role nobody; set role nobody; select * from landfall.ledger".into()]),
        ("42883", Reaction::Stop, vec!["select upsert_everything(1)".into()]),
        ("42703", Reaction::Stop, vec!["select contents from items".into()]),
        ("42P01", Reaction::Stop, vec!["select * from landfall.nothing".into()]),
        // A full disk cannot be had in a test; the server says it in these words.
        ("53100", Reaction::Stop, vec!["do $$ begin raise exception 'could not extend file' using errcode = '53100'; end $$".into()]),
        ("57P03", Reaction::Reconnect, vec!["do $$ begin raise exception 'starting up' using errcode = '57P03'; end $$".into()]),
        ("57P02", Reaction::Reconnect, vec!["do $$ begin raise exception 'crash' using errcode = '57P02'; end $$".into()]),
    ];
    let mut wrong = Vec::new();
    for (sqlstate, expected, statements) in table {
        let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
        let met = reaction(&database, &statements).await;
        if met != (sqlstate.to_owned(), expected.clone()) {
            wrong.push(format!("{sqlstate} {expected:?}, and not {met:?}: {}", statements.last().unwrap()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    of_two_sessions(&database).await;
    of_connecting(&database).await;
}

/// Deadlocks, lost races and locks need two.
async fn of_two_sessions(database: &Database) {
    let (one, two) = (database.connect().await.unwrap(), database.connect().await.unwrap());
    let setup = "create table public.pair (id int primary key, x int); insert into public.pair values (1, 0), (2, 0)";
    one.batch_execute(setup).await.unwrap();

    one.batch_execute("begin; update public.pair set x = 1 where id = 1").await.unwrap();
    two.batch_execute("begin; update public.pair set x = 1 where id = 2").await.unwrap();
    let (first, second) = futures::join!(
        one.batch_execute("update public.pair set x = 2 where id = 2; commit"),
        two.batch_execute("update public.pair set x = 2 where id = 1; commit"),
    );
    let victim = first.err().or(second.err()).unwrap();
    assert_eq!((victim.code().unwrap().code(), Reaction::to(&victim)), ("40P01", Reaction::Retry));
    one.batch_execute("rollback").await.unwrap();
    two.batch_execute("rollback").await.unwrap();

    one.batch_execute("begin isolation level repeatable read; select * from public.pair").await.unwrap();
    two.batch_execute("update public.pair set x = 3").await.unwrap();
    let late = one.batch_execute("update public.pair set x = 4").await.unwrap_err();
    assert_eq!((late.code().unwrap().code(), Reaction::to(&late)), ("40001", Reaction::Retry));
    one.batch_execute("rollback").await.unwrap();

    one.batch_execute("begin; lock table public.pair").await.unwrap();
    let held = two.batch_execute("set lock_timeout = '20ms'; select * from public.pair").await.unwrap_err();
    assert_eq!((held.code().unwrap().code(), Reaction::to(&held)), ("55P03", Reaction::Retry));
}

/// What is met before there is a session.
async fn of_connecting(database: &Database) {
    let connect = async |url: &str| tokio_postgres::connect(url, tokio_postgres::NoTls).await.err().unwrap();
    let code = |error: &tokio_postgres::Error| error.code().map(|code| code.code().to_owned()).unwrap_or_default();
    let (start, at) = database.url.split_once('@').unwrap();

    let wrong = connect(&format!("postgresql://postgres:wrong@{at}")).await;
    assert_eq!((code(&wrong).as_str(), Reaction::to(&wrong)), ("28P01", Reaction::Stop));
    let nowhere = connect(&format!("{start}@{}", at.replace("/landfall", "/nowhere"))).await;
    assert_eq!((code(&nowhere).as_str(), Reaction::to(&nowhere)), ("3D000", Reaction::Stop));
    let sql = "create role few login password 'few' connection limit 0";
    database.client.batch_execute(sql).await.unwrap();
    let few = connect(&format!("postgresql://few:few@{at}")).await;
    assert_eq!((code(&few).as_str(), Reaction::to(&few)), ("53300", Reaction::Retry));
    let closed = connect("postgresql://x@127.0.0.1:1/x").await;
    assert_eq!(Reaction::to(&closed), Reaction::Reconnect);
}

#[tokio::test]
async fn what_pgstac_takes_and_must_not_hold_is_refused_before_it() {
    let database = Database::start().await.unwrap();
    collection(&database.client, "c", None).await;
    let ring = |coordinates: Value| json!({"type": "Polygon", "coordinates": coordinates});
    let cases = [
        ("/geometry", ring(json!([[[0, 0], [1, 0], [1, 1], [0, 1]]])), codes::LOAD_GEOMETRY),
        ("/geometry", json!({"type": "Point", "coordinates": ["a", "b"]}), codes::LOAD_GEOMETRY),
        ("/geometry", ring(json!([])), codes::LOAD_GEOMETRY),
        ("/id", json!(""), codes::LOAD_ID),
        ("/id", json!(7), codes::LOAD_ID),
        ("/properties/datetime", json!("yesterday"), codes::LOAD_DATETIME),
        ("/properties/datetime", json!("2024-05-17T10:15:00"), codes::LOAD_DATETIME),
    ];
    for (pointer, value, code) in cases {
        let mut document = document("i", "c", "2024-05-17T10:15:00Z");
        *document.pointer_mut(pointer).unwrap() = value;
        let text = document.to_string();
        // pgSTAC would take it.
        let taken =
            database.client.execute("select pgstac.upsert_items(jsonb_build_array($1::text::jsonb))", &[&text]).await;
        assert!(taken.is_ok(), "{pointer}: {taken:?}");
        assert_eq!(Item::read(text).unwrap_err().code, code, "{pointer}");
    }
    let huge =
        document("i", "c", "2024-05-17T10:15:00Z").to_string().replace("\"datetime\"", "\"x\":1e400,\"datetime\"");
    let taken =
        database.client.execute("select pgstac.upsert_items(jsonb_build_array($1::text::jsonb))", &[&huge]).await;
    assert!(taken.is_ok(), "{taken:?}");
    assert_eq!(Item::read(huge).unwrap_err().code, codes::LOAD_NUMBER);
}

#[tokio::test]
async fn items_are_where_they_belong_and_come_out_as_they_went_in() {
    let mut database = Database::start().await.unwrap();
    let catalogue = PostgresCatalogue::new(&database.url, 4).unwrap();
    for (id, truncation) in [("null", None), ("year", Some("year")), ("month", Some("month"))] {
        collection(&database.client, id, truncation).await;
    }
    let load = async |items: &[Item]| catalogue.load(&items.iter().collect::<Vec<_>>()).await;

    // The month is that of UTC, at both of its edges.
    load(&[
        item("n", "null", "2024-05-17T10:15:00Z"),
        item("old", "null", "0044-03-15T12:00:00Z"),
        item("y", "year", "2024-12-31T23:30:00-02:00"),
        item("m", "month", "2024-01-31T23:30:00-02:00"),
        item("first", "month", "2024-03-01T00:00:00Z"),
        item("last", "month", "2024-03-31T23:59:59.999999Z"),
    ])
    .await
    .unwrap();
    for (id, leaf) in [
        ("n", "_items_1"),
        ("old", "_items_1"),
        ("y", "_items_2_2025"),
        ("m", "_items_3_202402"),
        ("first", "_items_3_202403"),
        ("last", "_items_3_202403"),
    ] {
        assert_eq!(leaves(&database.client, id).await, [leaf], "{id}");
    }

    // A moved item leaves the partition where it was.
    load(&[item("m", "month", "2024-07-01T00:00:00Z")]).await.unwrap();
    load(&[item("y", "year", "2023-07-01T00:00:00Z")]).await.unwrap();
    assert_eq!(leaves(&database.client, "m").await, ["_items_3_202407"]);
    assert_eq!(leaves(&database.client, "y").await, ["_items_2_2023"]);

    // Bounds are as wide as the partition: nothing in it is validated again.
    let constraints = async |client: &Client| -> Vec<String> {
        let sql = "select pg_get_constraintdef(oid) from pg_constraint where conname = '_items_3_202407_dt'";
        client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
    };
    let before = constraints(&database.client).await;
    assert!(before[0].contains("2024-07-31 23:59:59.999999+00"), "{before:?}");
    load(
        &(1..28)
            .map(|day| item(&format!("d{day}"), "month", &format!("2024-07-{day:02}T00:00:00Z")))
            .collect::<Vec<_>>(),
    )
    .await
    .unwrap();
    assert_eq!(constraints(&database.client).await, before);

    // pgSTAC's own maintenance narrows them: that is found out, and mended.
    database
        .client
        .batch_execute("set search_path = pgstac, public; select update_partition_stats('_items_3_202407')")
        .await
        .unwrap();
    assert_ne!(constraints(&database.client).await, before);
    load(&[item("d30", "month", "2024-07-30T00:00:00Z"), item("end", "month", "2024-07-31T23:59:59.999999Z")])
        .await
        .unwrap();
    // A collection that is divided anew has other partitions.
    let sql = "update pgstac.collections set partition_trunc = 'month' where id = 'null'";
    database.client.batch_execute(sql).await.unwrap();
    load(&[item("n", "null", "2024-08-01T00:00:00Z"), item("n2", "null", "2024-08-02T00:00:00Z")]).await.unwrap();
    assert_eq!(leaves(&database.client, "n").await, ["_items_1_202408"]);
    // One that is gone and comes again has another key.
    database.client.batch_execute("select pgstac.delete_collection('year')").await.unwrap();
    assert!(matches!(
        load(&[item("y", "year", "2023-07-01T00:00:00Z")]).await,
        Err(CatalogueError::Missing(_)) | Ok(())
    ));
    collection(&database.client, "year", Some("year")).await;
    load(&[item("y", "year", "2023-07-01T00:00:00Z")]).await.unwrap();
    assert_eq!(leaves(&database.client, "y").await, ["_items_4_2023"]);

    // A collection's edit leaves the items as they are, though what they have in common is another now.
    let sql = "update pgstac.collections set content = jsonb_set(content, '{item_assets,data,type}', '\"other\"') where id = 'month'";
    database.client.batch_execute(sql).await.unwrap();
    load(&[item("later", "month", "2024-03-05T00:00:00Z")]).await.unwrap();
    for id in ["d1", "later"] {
        let datetime = read_back(&database.client, id).await["properties"]["datetime"].clone();
        assert_eq!(read_back(&database.client, id).await, document(id, "month", datetime.as_str().unwrap()), "{id}");
    }

    // The server goes and comes back.
    database.restart_at_once().await.unwrap();
    load(&[item("after", "month", "2024-03-05T00:00:00Z")])
        .await
        .or(load(&[item("after", "month", "2024-03-05T00:00:00Z")]).await)
        .unwrap();
    assert_eq!(leaves(&database.client, "after").await, ["_items_3_202403"]);
}

#[tokio::test]
async fn every_digit_key_and_shape_comes_out_again() {
    let database = Database::start().await.unwrap();
    let catalogue = PostgresCatalogue::new(&database.url, 2).unwrap();
    collection(&database.client, "c", None).await;
    let numbers =
        r#""a":0.1000000000000000055511151231257827,"b":123456789012345678901234567890,"c":1e-300,"d":1.0,"e":-0.5e3"#;
    let text = document("digits", "c", "2024-05-17T10:15:00Z")
        .to_string()
        .replace("\"datetime\"", &format!("{numbers},\"datetime\""));
    catalogue.load(&[&Item::read(text).unwrap()]).await.unwrap();
    let sql = "select content->'properties'->>'a', content->'properties'->>'b', content->'properties'->>'d', content->'properties'->>'e'
        from pgstac.items where id = 'digits'";
    let row = database.client.query_one(sql, &[]).await.unwrap();
    let kept: Vec<&str> = (0..4).map(|column| row.get(column)).collect();
    assert_eq!(kept, ["0.1000000000000000055511151231257827", "123456789012345678901234567890", "1.0", "-500"]);

    // Every geometry is as PostGIS reads it from the document, bit by bit.
    let shapes = [
        json!({"type": "Point", "coordinates": [1.1, 2.2]}),
        json!({"type": "Point", "coordinates": [1.1, 2.2, 3.3]}),
        json!({"type": "MultiPoint", "coordinates": [[1, 2], [3, 4]]}),
        json!({"type": "LineString", "coordinates": [[1, 2], [3, 4, 5]]}),
        json!({"type": "MultiLineString", "coordinates": [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]}),
        json!({"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 0]], [[1, 1], [2, 1], [2, 2], [1, 1]]]}),
        json!({"type": "MultiPolygon", "coordinates": [[[[0, 0], [9, 0], [9, 9], [0, 0]]], [[[1, 1], [2, 1], [2, 2], [1, 1]]]]}),
        json!({"type": "GeometryCollection", "geometries": [{"type": "Point", "coordinates": [1, 2]}, {"type": "LineString", "coordinates": [[1, 2], [3, 4]]}]}),
    ];
    for shape in shapes {
        let mut document = document("shape", "c", "2024-05-17T10:15:00Z");
        document["geometry"] = shape.clone();
        catalogue.load(&[&Item::read(document.to_string()).unwrap()]).await.unwrap();
        let sql = "select geometry::bytea = st_geomfromgeojson($1)::bytea from pgstac.items where id = 'shape'";
        let same: bool = database.client.query_one(sql, &[&shape.to_string()]).await.unwrap().get(0);
        assert!(same, "{shape}");
    }

    // Strange ids, and what differs from the collection's assets in every way.
    for id in ["'", "%", "\\", "/", "\t", "\n", "🛰", " a b ", "\"", "${x}"] {
        let mut document = document(id, "c", "2024-05-17T10:15:00Z");
        document["assets"] = json!({
            "data": {"href": "x", "type": "other", "roles": [], "bands": [{"n": 1}, {"n": 2}]},
            "more": {"href": "y"},
        });
        catalogue.load(&[&Item::read(document.to_string()).unwrap()]).await.unwrap();
        assert_eq!(read_back(&database.client, id).await, document, "{id:?}");
    }
}

#[tokio::test]
async fn an_unknown_pgstac_is_left_to_its_own_functions() {
    let database = Database::start().await.unwrap();
    collection(&database.client, "c", Some("month")).await;
    database
        .client
        .batch_execute("insert into pgstac.migrations (version, datetime) values ('0.11.0', now() + interval '1 day')")
        .await
        .unwrap();
    let catalogue = PostgresCatalogue::new(&database.url, 2).unwrap();

    catalogue.load(&[&item("i", "c", "2024-05-17T10:15:00Z")]).await.unwrap();
    catalogue.load(&[&item("i", "c", "2024-06-17T10:15:00Z")]).await.unwrap();

    assert_eq!(leaves(&database.client, "i").await, ["_items_1_202406"]);
    // What it wrote went through its staging: it is tagged as pgSTAC does, and reads the same.
    assert_eq!(read_back(&database.client, "i").await, document("i", "c", "2024-06-17T10:15:00Z"));
    let missing = catalogue.load(&[&item("j", "nope", "2024-05-17T10:15:00Z")]).await;
    assert!(matches!(missing, Err(CatalogueError::Missing(_))), "{missing:?}");
}

/// Events of one provider, in the order in which they happen.
struct Events {
    second: i64,
}

impl Events {
    fn cause(&mut self, key: &str, change: Change) -> Cause {
        self.second += 1;
        cause(key, change, self.second)
    }

    fn item(&mut self, key: &str, item: Item) -> Load {
        let document = inline("{}");
        let stored = stored(&ObjectRef::new("archive", key));
        let (cause, collection, id) = (self.cause(key, Change::Created), item.collection.clone(), item.id.clone());
        let routed = ItemRouted { cause, collection, item: id, document, stored, assets: vec![], warnings: vec![] };
        Load {
            envelope: Envelope::new(routed.into(), "p", 0),
            content: Content::Item(Arc::new(item)),
            released_by: None,
        }
    }

    fn collection(&mut self, id: &str) -> Load {
        let text = json!({"type": "Collection", "id": id, "extent": {"spatial": {"bbox": [[5, 5, 6, 6]]},
            "temporal": {"interval": [["2024-05-01T00:00:00Z", "2024-05-02T00:00:00Z"]]}},
            "summaries": {"eo:cloud_cover": {"minimum": 10, "maximum": 20}, "platform": ["a"]}})
        .to_string();
        let document = inline(&text);
        let stored = stored(&ObjectRef::new("archive", id));
        let cause = self.cause(&format!("{id}.json"), Change::Created);
        let routed = CollectionRouted { cause, collection: id.into(), document, stored, warnings: vec![] };
        Load {
            envelope: Envelope::new(routed.into(), "p", 0),
            content: Content::Collection(text.into()),
            released_by: None,
        }
    }

    fn removed(&mut self, key: &str) -> Load {
        let removed = ObjectRemoved { cause: self.cause(key, Change::Removed) };
        Load { envelope: Envelope::new(removed.into(), "p", 0), content: Content::Nothing, released_by: None }
    }
}

fn until() -> Timestamp {
    "2030-01-01T00:00:00Z".parse().unwrap()
}

fn applied(settled: Vec<Settled>) -> Vec<Applied> {
    settled.into_iter().map(|one| one.applied).collect()
}

#[tokio::test]
async fn maintenance_makes_partitions_widens_extents_and_releases_what_waits() {
    let database = Database::start().await.unwrap();
    let catalogue = PostgresCatalogue::new(&database.url, 2).unwrap();
    let mut events = Events { second: 0 };
    let now: Timestamp = "2024-05-20T00:00:00Z".parse().unwrap();
    let mut cloudy = document("i", "c", "2024-05-17T10:15:00Z");
    cloudy["properties"]["eo:cloud_cover"] = json!(3.25);
    cloudy["properties"]["platform"] = json!("b");
    let loads = [events.collection("c"), events.item("i", Item::read(cloudy.to_string()).unwrap())];
    catalogue.apply(&loads.iter().collect::<Vec<_>>(), until()).await.unwrap();
    database.client.batch_execute("update pgstac.collections set partition_trunc = 'month'").await.unwrap();
    let parked = events.item("late", item("late", "nope", "2024-05-17T10:15:00Z"));
    let waits = applied(catalogue.apply(&[&parked], now).await.unwrap());
    assert!(matches!(waits[..], [Applied::Parked { .. }]));

    let due = catalogue.due(now, SignedDuration::from_hours(1)).await.unwrap();
    let done = catalogue.maintain(now, SignedDuration::from_hours(1)).await.unwrap().unwrap();
    let again = catalogue.maintain(now, SignedDuration::from_hours(1)).await.unwrap().unwrap();

    assert_eq!((due.releases, done.releases.len(), done.extents), (1, 1, 1));
    assert_eq!((again.partitions, again.extents), (0, 0));
    let sql = "select string_agg(partition, ' ' order by partition) from pgstac.partition_stats";
    let partitions: String = database.client.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(partitions, "_items_1_202405 _items_1_202406");
    let text: String =
        database.client.query_one("select content::text from pgstac.collections", &[]).await.unwrap().get(0);
    let content: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(content["extent"]["spatial"]["bbox"], json!([[1, 2, 6, 6]]));
    assert_eq!(content["extent"]["temporal"]["interval"], json!([["2024-05-01T00:00:00Z", "2024-05-17T10:15:00Z"]]));
    assert_eq!(
        content["summaries"],
        json!({"eo:cloud_cover": {"minimum": 3.25, "maximum": 20}, "platform": ["a", "b"]})
    );
    // A removal, long ago, is forgotten; what the catalogue holds is not.
    let loads = [events.item("gone", item("gone", "c", "2024-05-17T10:15:00Z")), events.removed("gone")];
    catalogue.apply(&loads.iter().collect::<Vec<_>>(), until()).await.unwrap();
    let later: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
    assert_eq!(catalogue.due(later, SignedDuration::from_hours(1)).await.unwrap().forgotten, 1);
    assert_eq!(catalogue.maintain(later, SignedDuration::from_hours(1)).await.unwrap().unwrap().forgotten, 1);
    let rows = catalogue.rows(&RowFilter::default(), 10).await.unwrap();
    let mut states: Vec<_> = rows.iter().map(|row| row.row.state).collect();
    states.sort();
    assert_eq!(states, [State::Parked, State::Loaded, State::Loaded]);
}

#[tokio::test]
async fn a_role_with_the_least_rights_can_do_what_a_worker_does() {
    let database = Database::start().await.unwrap();
    let owner = PostgresCatalogue::new(&database.url, 1).unwrap();
    database.client.batch_execute("create role loader login password 'loader'").await.unwrap();
    let at = database.url.split_once('@').unwrap().1;
    let url = format!("postgresql://loader:loader@{at}");
    let worker = PostgresCatalogue::new(&url, 2).unwrap();
    let mut events = Events { second: 0 };
    let loads = [events.collection("c"), events.item("i", item("i", "c", "2024-05-17T10:15:00Z"))];

    let refused = worker.apply(&loads.iter().collect::<Vec<_>>(), until()).await;
    assert!(matches!(&refused, Err(CatalogueError::Unusable(why)) if why.contains("42501")), "{refused:?}");
    assert!(worker.ready().await.is_err(), "nothing is taken on while only an operator can help");

    owner.grant("loader").await.unwrap();
    let worker = PostgresCatalogue::new(&url, 2).unwrap();
    let done = applied(worker.apply(&loads.iter().collect::<Vec<_>>(), until()).await.unwrap());
    assert!(done.iter().all(|applied| matches!(applied, Applied::Loaded { .. })), "{done:?}");
    worker.apply(&[&events.removed("i")], until()).await.unwrap();
    let maintained = worker.maintain(Timestamp::now(), SignedDuration::from_hours(1)).await.unwrap().unwrap();
    assert_eq!(maintained.queued, None);
    let client = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(client.1);
    for forbidden in [
        "drop table landfall.ledger",
        "create table landfall.x (x int)",
        "delete from landfall.migrations",
        "drop table pgstac._items_1",
    ] {
        assert!(client.0.batch_execute(forbidden).await.is_err(), "{forbidden}");
    }
}

#[tokio::test]
async fn a_lock_that_is_held_for_long_is_waited_for() {
    let database = Database::start().await.unwrap();
    let catalogue = PostgresCatalogue::new(&database.url, 2).unwrap();
    collection(&database.client, "c", None).await;
    catalogue.load(&[&item("i", "c", "2024-05-17T10:15:00Z")]).await.unwrap();
    database.client.batch_execute("begin; lock table pgstac._items_1 in access exclusive mode").await.unwrap();

    let one = item("j", "c", "2024-05-17T10:15:00Z");
    let waiting = tokio::spawn(async move { catalogue.load(&[&one]).await });
    // Longer than the lock timeout: the try is given up and begun anew.
    tokio::time::sleep(Duration::from_secs(11)).await;
    database.client.batch_execute("commit").await.unwrap();

    waiting.await.unwrap().unwrap();
    assert_eq!(leaves(&database.client, "j").await, ["_items_1"]);
}
