//! The part of the suite for the topology.

use super::*;
use crate::topology::{Attributes, Edit, Instance, Patch, TopologyLimits};
use landfall_adapter::descriptor::Problem;

fn named(code: &str) -> Attributes {
    Attributes { code: code.to_owned(), name: format!("{code} by name"), ..Attributes::default() }
}

async fn create(store: &Arc<dyn Store>, attributes: Attributes) -> Instance {
    store.edit_instance(Edit::Create(attributes)).await.unwrap().unwrap()
}

async fn all(store: &Arc<dyn Store>) -> Vec<Instance> {
    store.instances().await.unwrap().to_vec()
}

async fn refused(store: &Arc<dyn Store>, edit: Edit) -> Vec<String> {
    let error = store.edit_instance(edit).await.unwrap_err();
    let Kind::Invalid(problems) = error.kind() else { panic!("{error:?}") };
    let line = |problem: &Problem| format!("{problem}; {}", problem.remedy.as_deref().unwrap_or_default());
    problems.iter().map(line).collect()
}

pub(crate) async fn edited_instance_is_read_back(open: impl Open) {
    let (store, _guard) = open(Limits::default()).await;
    assert_eq!(all(&store).await, []);
    let first = create(&store, named("A")).await;
    let second = create(&store, Attributes { environments: vec![2, 1, 2], ..named("B") }).await;
    assert!(first.id < second.id, "{first:?} {second:?}");
    assert_eq!(second.attributes.environments, [2, 1], "each once, in order");
    assert_eq!(all(&store).await, [first.clone(), second.clone()]);

    let replacement = Attributes { is_active: true, workflows: vec![7], ..named("C") };
    let replaced = store.edit_instance(Edit::Replace(second.id, replacement.clone())).await.unwrap().unwrap();
    assert_eq!(replaced, Instance { id: second.id, attributes: replacement });
    let patch = Patch { environments: vec![3], name: Some("N".to_owned()), ..Patch::default() };
    let patched = store.edit_instance(Edit::Patch(second.id, patch.clone())).await.unwrap().unwrap();
    let expected = Attributes { environments: vec![3], name: "N".to_owned(), ..replaced.attributes.clone() };
    assert_eq!(patched, Instance { id: second.id, attributes: expected });
    assert_eq!(all(&store).await, [first, patched.clone()]);

    for edit in [Edit::Replace(1, named("D")), Edit::Patch(1, patch)] {
        assert_eq!(store.edit_instance(edit).await.unwrap(), None, "no such instance");
    }
    assert_eq!(all(&store).await[1], patched);
}

pub(crate) async fn instance_codes_are_unique(open: impl Open) {
    let (store, _guard) = open(Limits::default()).await;
    let first = create(&store, named("Straße")).await;
    let second = create(&store, named("B")).await;
    let before = all(&store).await;
    let code = Patch { code: Some("STRASSE".to_owned()), ..Patch::default() };
    store.edit_instance(Edit::Patch(second.id, code)).await.unwrap().unwrap();
    let back = Patch { code: Some("b".to_owned()), ..Patch::default() };
    store.edit_instance(Edit::Patch(second.id, back)).await.unwrap().unwrap();
    let own = Patch { code: Some("B".to_owned()), ..Patch::default() };
    store.edit_instance(Edit::Patch(second.id, own)).await.unwrap().unwrap();
    assert_eq!(all(&store).await, before, "its own code in another case is no conflict");

    let taken = Patch { code: Some("STRAßE".to_owned()), ..Patch::default() };
    for edit in [
        Edit::Create(named("STRAßE")),
        Edit::Replace(second.id, named("STRAßE")),
        Edit::Patch(second.id, taken),
    ] {
        assert_eq!(
            refused(&store, edit).await,
            [format!(
                "instanceCode: instance {0} has this code: `STRAßE`; choose another one, in which case makes no \
                 difference, or change instance {0}",
                first.id
            )]
        );
    }
    assert_eq!(all(&store).await, before);
}

pub(crate) async fn topology_size_is_limited(open: impl Open) {
    let topology = TopologyLimits { max_instances: 1, max_entries: 2, max_text: 10 };
    let (store, _guard) = open(Limits { topology, ..Limits::default() }).await;
    let one =
        Attributes { code: "A".into(), name: "a".into(), environments: vec![1], ..Attributes::default() };
    let one = create(&store, one).await;
    let patch = Patch { environments: vec![1, 2, 3], ..Patch::default() };
    assert_eq!(
        refused(&store, Edit::Patch(one.id, patch)).await,
        ["environments: would have 3 entries, 2 are kept; replace the list by a shorter one, or raise \
          topology.max_entries"]
    );
    let long = Some("a long text".into());
    let another =
        Attributes { code: "B".into(), name: "b".into(), description: long, ..Attributes::default() };
    assert_eq!(
        refused(&store, Edit::Create(another)).await,
        [
            "description: has 11 characters, 10 are kept; shorten it, or raise topology.max_text",
            "1 instances are kept, and there are as many; change one of them, or raise topology.max_instances",
        ]
    );
    // Values that a database cannot store, or cannot find, are refused before the query.
    for code in ["nul\0".to_owned(), "é".repeat(256)] {
        let told = refused(&store, Edit::Replace(one.id, named(&code))).await;
        assert!(told[0].starts_with("instanceCode: has "), "{told:?}");
    }
    assert_eq!(all(&store).await, [one]);
}

pub(crate) async fn the_longest_code_is_kept(open: impl Open) {
    let (store, _guard) = open(Limits::default()).await;
    // Characters of four bytes each, all different: an index cannot compress them.
    let code: String = (0..255).filter_map(|index| char::from_u32(0x1_F300 + index * 7 % 1009)).collect();
    assert_eq!(code.chars().count(), 255);
    let made = create(&store, Attributes { code, name: "n".into(), ..Attributes::default() }).await;
    assert_eq!(all(&store).await, [made]);
}

pub(crate) async fn a_target_is_seeded_once_and_then_left_alone(open: impl Open) {
    let (store, _guard) = open(Limits::default()).await;
    let own = create(&store, Attributes { is_active: true, ..named("own") }).await;
    assert_eq!(store.seed_instances(vec![named("A"), named("OWN")]).await.unwrap(), 1, "it exists already");
    let before = all(&store).await;
    assert_eq!(before.iter().map(|it| it.attributes.code.as_str()).collect::<Vec<_>>(), ["own", "A"]);
    assert_eq!(before[0], own);

    let renamed = Patch { code: Some("elsewhere".to_owned()), ..Patch::default() };
    store.edit_instance(Edit::Patch(before[1].id, renamed)).await.unwrap().unwrap();
    assert_eq!(store.seed_instances(vec![named("a"), named("OWN"), named("C")]).await.unwrap(), 1);
    let codes = all(&store).await.into_iter().map(|it| it.attributes.code).collect::<Vec<_>>();
    assert_eq!(codes, ["own", "elsewhere", "C"], "the operators' changes stay");
}

pub(crate) async fn concurrent_edits_lose_nothing(open: impl Open) {
    const CALLERS: i64 = 200;
    let (store, _guard) = open(Limits::default()).await;
    let id = create(&store, named("A")).await.id;
    let mut callers = tokio::task::JoinSet::new();
    for environment in 0..CALLERS {
        let store = Arc::clone(&store);
        callers.spawn(async move {
            let patch = Patch { environments: vec![environment], ..Patch::default() };
            let answered = store.edit_instance(Edit::Patch(id, patch)).await.unwrap().unwrap();
            assert!(answered.attributes.environments.contains(&environment));
            let seen = store.instances().await.unwrap();
            assert!(seen[0].attributes.environments.contains(&environment), "the creator sees it");
        });
    }
    callers.join_all().await;
    let mut environments = all(&store).await.remove(0).attributes.environments;
    environments.sort_unstable();
    assert_eq!(environments, (0..CALLERS).collect::<Vec<_>>());
}
