//! DetectLabels: the objects of an image, and what they are kinds of.
//!
//! What differs from AWS: the labels are COCO's 80 classes and their parents, each with boxes; scenes, activities and image
//! properties are told by no model here. How sure and how complete they are stands in docs/reference/accuracy.md.

use std::collections::BTreeMap;

use base::{ApiError, Handle, Reply, Request};
use vision::{DetectedObject, LabelAnalysis};
use wire::rekognition::{self as w, DetectLabelsFeatureName, op};

use crate::service::Rekognition;
use crate::taxonomy::{self, Term};
use crate::{error, limits, shapes};

/// A label that was found.
#[derive(Debug)]
struct Found<'a> {
    category: &'static str,
    alias: Option<&'static str>,
    parents: &'static [&'static str],
    confidence: f32,
    instances: Vec<&'a DetectedObject>,
}

/// Which labels an answer shows.
#[derive(Default)]
struct Filter {
    names: Names,
    categories: Names,
}

/// Those to show, or nothing for all; and those not to show.
#[derive(Default)]
struct Names {
    only: Vec<String>,
    never: Vec<String>,
}

impl Filter {
    fn of(settings: Option<w::GeneralLabelsSettings>) -> Filter {
        let settings = settings.unwrap_or_default();
        Filter {
            names: Names {
                only: settings.label_inclusion_filters.unwrap_or_default(),
                never: settings.label_exclusion_filters.unwrap_or_default(),
            },
            categories: Names {
                only: settings.label_category_inclusion_filters.unwrap_or_default(),
                never: settings.label_category_exclusion_filters.unwrap_or_default(),
            },
        }
    }

    /// Whichever inclusion names it lets a label in; whichever exclusion names it keeps it out.
    fn shows(&self, name: &str, category: &str) -> bool {
        let has = |list: &[String], wanted: &str| list.iter().any(|one| one == wanted);
        let unlimited = self.names.only.is_empty() && self.categories.only.is_empty();
        let included = unlimited || has(&self.names.only, name) || has(&self.categories.only, category);
        included && !has(&self.names.never, name) && !has(&self.categories.never, category)
    }
}

/// Every label of an analysis: the objects' own, with where they are, and their parents', as sure as the surest child.
fn labels(analysis: &LabelAnalysis, confidence_min: f32) -> BTreeMap<&'static str, Found<'_>> {
    let mut found: BTreeMap<&'static str, Found<'_>> = BTreeMap::new();
    let sure = analysis
        .objects
        .iter()
        .filter(|object| object.confidence >= confidence_min);
    for (object, term) in sure.filter_map(|object| Some((object, taxonomy::of(object.class)?))) {
        let own = found.entry(term.name).or_insert_with(|| of_term(term));
        own.confidence = own.confidence.max(object.confidence);
        own.instances.push(object);
        for (place, parent) in term.parents.iter().enumerate() {
            let parent = found.entry(parent).or_insert_with(|| Found {
                alias: None,
                // A chain's earlier names are the more general ones.
                parents: term.parents.get(..place).unwrap_or_default(),
                ..of_term(term)
            });
            parent.confidence = parent.confidence.max(object.confidence);
        }
    }
    found
}

fn of_term(term: &'static Term) -> Found<'static> {
    Found {
        category: term.category,
        alias: term.alias,
        parents: term.parents,
        confidence: 0.0,
        instances: Vec::new(),
    }
}

fn to_wire(name: &str, found: Found<'_>) -> w::Label {
    let instance = |object: &DetectedObject| w::Instance {
        bounding_box: Some(shapes::bounding_box(&object.bounding_box)),
        confidence: Some(object.confidence),
        dominant_colors: None,
    };
    let parent = |name: &&str| w::Parent {
        name: Some((*name).to_owned()),
    };
    let alias = |name: &str| w::LabelAlias {
        name: Some(name.to_owned()),
    };
    w::Label {
        name: Some(name.to_owned()),
        confidence: Some(found.confidence),
        instances: Some(found.instances.into_iter().map(instance).collect()),
        parents: Some(found.parents.iter().map(parent).collect()),
        aliases: Some(found.alias.into_iter().map(alias).collect()),
        categories: Some(vec![w::LabelCategory {
            name: Some(found.category.to_owned()),
        }]),
    }
}

impl Handle<op::DetectLabels> for Rekognition {
    async fn handle(
        &self,
        request: Request<w::DetectLabelsRequest>,
    ) -> Result<Reply<w::DetectLabelsResponse>, ApiError> {
        let input = request.input;
        let settings = input.settings.unwrap_or_default();
        let properties = input
            .features
            .is_some_and(|all| all.contains(&DetectLabelsFeatureName::ImageProperties));
        if properties || settings.image_properties.is_some() {
            return Err(error::invalid_parameter(
                "IMAGE_PROPERTIES is not available in this version; GENERAL_LABELS is",
            ));
        }
        if !self.vision.abilities().labels {
            return Err(error::invalid_parameter(
                "labels are not available: this server's models were prepared without that of objects",
            ));
        }
        let filter = Filter::of(settings.general_labels);
        let image = self.bytes_of(&request.context, input.image).await?;
        let account = request.context.caller.account;
        let analysis = self
            .vision
            .label_image(account, image)
            .await
            .map_err(error::from_image)?;
        let confidence_min = input.min_confidence.unwrap_or(limits::LABEL_CONFIDENCE_DEFAULT);
        let found = labels(&analysis, confidence_min).into_iter();
        let mut shown: Vec<w::Label> = found
            .filter(|(name, label)| filter.shows(name, label.category))
            .map(|(name, label)| to_wire(name, label))
            .collect();
        let sureness = |label: &w::Label| label.confidence.unwrap_or(0.0);
        shown.sort_by(|a, b| sureness(b).total_cmp(&sureness(a)));
        shown.truncate(
            input
                .max_labels
                .and_then(|most| usize::try_from(most).ok())
                .unwrap_or(limits::LABELS_MAX),
        );
        let answer = w::DetectLabelsResponse {
            labels: Some(shown),
            label_model_version: self.vision.label_model(),
            image_properties: None,
            orientation_correction: None,
        };
        Ok(answer.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(class: u8, confidence: f32) -> DetectedObject {
        DetectedObject {
            class,
            confidence,
            ..DetectedObject::default()
        }
    }

    #[test]
    fn objects_become_labels_with_instances_and_parents_without() {
        let analysis = LabelAnalysis {
            objects: vec![object(16, 90.0), object(15, 80.0), object(16, 60.0), object(0, 50.0)],
            ..LabelAnalysis::default()
        };
        let found = labels(&analysis, 55.0);
        let names: Vec<&str> = found.keys().copied().collect();
        assert_eq!(names, ["Animal", "Canine", "Cat", "Dog", "Mammal", "Pet"]);
        assert_eq!((found["Dog"].instances.len(), found["Dog"].confidence), (2, 90.0));
        assert_eq!((found["Pet"].instances.len(), found["Pet"].confidence), (0, 90.0));
        assert_eq!(
            (
                found["Animal"].parents.len(),
                found["Mammal"].parents.contains(&"Animal")
            ),
            (0, true)
        );
        assert!(labels(&analysis, 10.0).contains_key("Person"));
    }

    #[test]
    fn filters_let_in_and_keep_out_by_name_and_category() {
        let filter = |only: &[&str], never: &[&str], categories: &[&str], no_categories: &[&str]| {
            let list = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
            Filter::of(Some(w::GeneralLabelsSettings {
                label_inclusion_filters: list(only),
                label_exclusion_filters: list(never),
                label_category_inclusion_filters: list(categories),
                label_category_exclusion_filters: list(no_categories),
            }))
        };
        let animals = "Animals and Pets";
        assert!(Filter::default().shows("Dog", animals));
        assert!(filter(&["Dog"], &[], &[], &[]).shows("Dog", animals));
        assert!(!filter(&["Dog"], &[], &[], &[]).shows("Cat", animals));
        assert!(filter(&["Car"], &[], &[animals], &[]).shows("Cat", animals));
        assert!(!filter(&[], &["Cat"], &[animals], &[]).shows("Cat", animals));
        assert!(!filter(&[], &[], &[], &[animals]).shows("Cat", animals));
    }
}
