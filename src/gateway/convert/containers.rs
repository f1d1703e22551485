//! The containers of a request: one is the main container, whose end is the sandbox's; the others are additional
//! containers.

use std::collections::BTreeSet;

use super::container;
use super::context::ConvertContext;
use super::draft::Draft;
use super::problems::Problems;
use super::text::{self, quoted};
use crate::api::FieldPath;
use crate::api::{Container, Entrypoint, Sidecar, Workload};
use crate::proto::sandbox as pb;
use crate::resources::pod_containers::MAIN;

/// The main container, and as many additional ones as a Sandbox can have.
const MAX_CONTAINERS: usize = 17;
const MAX_IMAGE_BYTES: usize = 1024;

/// Replaces the containers of the draft, which may come from a template, with those of the request.
pub(crate) fn apply(
    draft: &mut Draft,
    path: &FieldPath,
    containers: Vec<pb::Container>,
    context: &ConvertContext<'_>,
    problems: &mut Problems,
) {
    problems.at_most(path, containers.len(), MAX_CONTAINERS);
    clear(&mut draft.workload);
    let main = main_index(path, &containers, problems);
    let names = names_of(path, &containers, main, problems);
    let mut sidecars = vec![];
    for (i, (container, name)) in containers.into_iter().zip(names).enumerate() {
        let path = path.index(i);
        // The main container has a default image. An override of a template replaces all of its containers, and none of
        // their fields remains.
        let is_required = i != main || context.template.is_some();
        let image = image(&path.field("image"), &container, is_required, problems);
        let name_in_pod = if i == main { MAIN } else { &name };
        let container = container::from_proto(&path, name_in_pod, container, draft, context, problems);
        if i == main {
            let w = &mut draft.workload;
            w.entrypoint = container.command.is_none().then_some(Entrypoint::Image);
            (w.container_image, w.container) = (image, container);
            draft.main_name = (name != MAIN).then_some(name);
        } else {
            let image = image.unwrap_or_default();
            sidecars.push(Sidecar { name, image, container });
        }
    }
    draft.workload.pod.sidecars = text::non_empty(sidecars);
    draft.contents.check(path, problems);
}

fn image(path: &FieldPath, container: &pb::Container, is_required: bool, problems: &mut Problems) -> Option<String> {
    let image = container.image.as_str();
    if image.len() > MAX_IMAGE_BYTES || image.contains(char::is_whitespace) {
        problems.invalid(
            path,
            format!("must have at most {MAX_IMAGE_BYTES} bytes and no whitespace"),
        );
    }
    if image.is_empty() && is_required {
        problems.invalid(path, "is required");
    }
    text::non_empty(image.to_owned())
}

/// Removes a template's containers: the containers of a request replace all of them.
fn clear(w: &mut Workload) {
    w.pod.volumes.iter_mut().flatten().for_each(|v| {
        (v.mount_path, v.sub_path, v.read_only) = (None, None, None);
    });
    (w.container_image, w.entrypoint, w.container) = (None, None, Container::default());
    (w.pod.image_pull_secrets, w.pod.sidecars) = (None, None);
}

/// The container that is marked as primary, else the first.
fn main_index(path: &FieldPath, containers: &[pb::Container], problems: &mut Problems) -> usize {
    let mut primary = (0..containers.len()).filter(|i| containers[*i].primary == Some(true));
    let first = primary.next();
    if let Some(second) = primary.next() {
        problems.invalid(
            &path.index(second).field("primary"),
            "must be true for one container only",
        );
    }
    first.unwrap_or_default()
}

/// The names of the containers. One without a name gets one.
fn names_of(path: &FieldPath, containers: &[pb::Container], main: usize, problems: &mut Problems) -> Vec<String> {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let mut names = vec![];
    for (i, container) in containers.iter().enumerate() {
        let path = path.index(i).field("name");
        let name = match (container.name.as_str(), i == main) {
            ("", true) => MAIN.to_owned(),
            ("", false) => format!("container-{i}"),
            (name, _) => name.to_owned(),
        };
        problems.check(&path, text::dns_label_error(&name));
        if name.starts_with("sandbox-operator") || (name == MAIN && i != main) {
            problems.invalid(&path, format!("{} is reserved", quoted(&name)));
        }
        if !seen.insert(name.clone()) {
            problems.invalid(&path, format!("duplicate name {}", quoted(&name)));
        }
        names.push(name);
    }
    names
}
