//! `sightglass faces report COLLECTION`: how far apart the people of a collection are, out of SearchFaces of every face.

use std::collections::{BTreeMap, HashMap};

use client::{Client, Service};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::paint::{Paint, Tint, harmless};
use super::super::progress::Progress;
use super::super::{Failure, connect};
use super::measure::{AT_ONCE, Found, MATCHES_MAX, Match, call, parse_id};
use crate::cli::FacesReportArgs;

/// Faces of one page of ListFaces. AWS: 4,096.
const PAGE: u32 = 1000;
/// People of the table; JSON has all.
const ROWS: usize = 20;
/// The thresholds of which the summary speaks.
const THRESHOLDS: [f32; 4] = [80.0, 90.0, 95.0, 99.0];

/// One person: the faces with one user id, or else one external image id.
#[derive(Debug, Serialize)]
struct Person {
    name: String,
    faces: usize,
    /// The least similar two faces of the person; `null` with one face.
    least_own: Option<f32>,
    /// The most similar face of somebody else.
    nearest: Option<Nearest>,
}

#[derive(Debug, Serialize)]
struct Nearest {
    name: String,
    similarity: f32,
}

impl Person {
    /// How much more alike the person's own faces are than anybody else's.
    fn margin(&self) -> f32 {
        self.least_own.unwrap_or(100.0) - self.nearest.as_ref().map_or(0.0, |nearest| nearest.similarity)
    }
}

#[derive(Debug, Serialize)]
struct Report {
    collection: String,
    model: String,
    faces: usize,
    /// The least separable first.
    people: Vec<Person>,
}

/// Members of ListFaces' answer.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Page {
    #[serde(default)]
    faces: Vec<Listed>,
    face_model_version: Option<String>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    face_id: String,
    external_image_id: Option<String>,
    user_id: Option<String>,
}

/// Runs the command.
pub async fn run(args: &FacesReportArgs) -> Result<(), Failure> {
    let client = connect::client(&args.server)?;
    let mut progress = Progress::new(client.clock().clone(), !args.json);
    let (model, listed) = list(&client, &args.collection).await?;
    let mut people = People::new(&listed);
    let answers = futures_util::stream::iter(listed.iter().enumerate()).map(|(index, face)| {
        let input = json!({ "CollectionId": args.collection, "FaceId": face.face_id, "FaceMatchThreshold": 0, "MaxFaces": MATCHES_MAX });
        let client = &client;
        async move { (index, call::<Found>(client, "SearchFaces", &input).await) }
    });
    let mut answers = std::pin::pin!(answers.buffer_unordered(AT_ONCE));
    let mut done = 0;
    while let Some((probe, answer)) = answers.next().await {
        people.answer(probe, &answer.map_err(connect::explained)?.face_matches);
        done += 1;
        progress.show(|| format!("{done} of {} faces searched", listed.len()));
    }
    progress.clear();
    let report = Report {
        collection: args.collection.clone(),
        model,
        faces: listed.len(),
        people: people.finish(),
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", text(&report, Paint::for_stdout(args.color)));
    }
    Ok(())
}

async fn list(client: &Client, collection: &str) -> Result<(String, Vec<Listed>), Failure> {
    let mut faces = Vec::new();
    let mut token: Option<String> = None;
    loop {
        let mut input = json!({ "CollectionId": collection, "MaxResults": PAGE });
        if let (Some(token), Some(members)) = (&token, input.as_object_mut()) {
            members.insert("NextToken".to_owned(), Value::from(token.as_str()));
        }
        let page: Page = client
            .call_as(Service::Rekognition, "ListFaces", &input)
            .await
            .map_err(connect::explained)?;
        faces.extend(page.faces);
        token = page.next_token;
        if token.is_none() {
            return Ok((page.face_model_version.unwrap_or_default(), faces));
        }
    }
}

/// Who the faces belong to, and what the searches said.
struct People {
    people: Vec<Person>,
    /// Of each face the person.
    person: Vec<usize>,
    face_of: HashMap<u128, usize>,
}

impl People {
    fn new(listed: &[Listed]) -> Self {
        let mut places: BTreeMap<&str, usize> = BTreeMap::new();
        let mut people: Vec<Person> = Vec::new();
        let mut person = Vec::with_capacity(listed.len());
        for face in listed {
            // A face without a name is somebody of its own.
            let name = face
                .user_id
                .as_deref()
                .or(face.external_image_id.as_deref())
                .unwrap_or(&face.face_id);
            let place = *places.entry(name).or_insert_with(|| {
                people.push(Person {
                    name: name.to_owned(),
                    faces: 0,
                    least_own: None,
                    nearest: None,
                });
                people.len() - 1
            });
            if let Some(found) = people.get_mut(place) {
                found.faces += 1;
            }
            person.push(place);
        }
        let ids = listed.iter().enumerate();
        People {
            face_of: ids
                .filter_map(|(index, face)| Some((parse_id(&face.face_id)?, index)))
                .collect(),
            people,
            person,
        }
    }

    fn answer(&mut self, probe: usize, matches: &[Match]) {
        let Some(own) = self.person.get(probe).copied() else {
            return;
        };
        let mut seen = 0;
        let (mut least, mut nearest): (Option<f32>, Option<(f32, usize)>) = (None, None);
        for found in matches {
            let face = parse_id(&found.face.face_id).and_then(|id| self.face_of.get(&id));
            let Some(other) = face.and_then(|face| self.person.get(*face)).copied() else {
                continue;
            };
            if other == own {
                seen += 1;
                least = Some(least.map_or(found.similarity, |least| least.min(found.similarity)));
            } else if nearest.is_none_or(|(similarity, _)| found.similarity > similarity) {
                nearest = Some((found.similarity, other));
            }
        }
        let named = nearest.and_then(|(similarity, other)| {
            let name = self.people.get(other)?.name.clone();
            Some(Nearest { name, similarity })
        });
        let Some(person) = self.people.get_mut(own) else {
            return;
        };
        // Faces of the person that 4,096 others came before are not alike at all.
        if seen + 1 < person.faces {
            least = Some(0.0);
        }
        if let Some(least) = least {
            person.least_own = Some(person.least_own.map_or(least, |before| before.min(least)));
        }
        if let Some(named) = named
            && person
                .nearest
                .as_ref()
                .is_none_or(|before| named.similarity > before.similarity)
        {
            person.nearest = Some(named);
        }
    }

    fn finish(mut self) -> Vec<Person> {
        self.people
            .sort_by(|a, b| a.margin().total_cmp(&b.margin()).then_with(|| a.name.cmp(&b.name)));
        self.people
    }
}

fn text(report: &Report, paint: Paint) -> String {
    let mut out = String::new();
    let Report {
        model, faces, people, ..
    } = report;
    out.push_str(&format!(
        "{faces} faces of {} people, read by {}\n",
        people.len(),
        harmless(model)
    ));
    for threshold in THRESHOLDS {
        let alike = |person: &&Person| {
            person
                .nearest
                .as_ref()
                .is_some_and(|nearest| nearest.similarity >= threshold)
        };
        let torn = |person: &&Person| person.least_own.is_some_and(|least| least < threshold);
        let (alike, torn) = (people.iter().filter(alike).count(), people.iter().filter(torn).count());
        out.push_str(&format!(
            "at {threshold:.0}: {alike} people match somebody else, {torn} have two faces that do not match each other\n"
        ));
    }
    paint.put(
        &mut out,
        Tint::Dim,
        format!(
            "\n{:<24} {:>6} {:>10}  {:>10}  nearest other\n",
            "person", "faces", "least own", "nearest"
        ),
    );
    for person in people.iter().take(ROWS) {
        let number = |value: Option<f32>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
        let nearest = person.nearest.as_ref();
        let tint = if person.margin() < 0.0 { Tint::Alert } else { Tint::Text };
        paint.put(&mut out, tint, format!("{:<24}", harmless(&person.name)));
        out.push_str(&format!(
            " {:>6} {:>10}  {:>10}  {}\n",
            person.faces,
            number(person.least_own),
            number(nearest.map(|nearest| nearest.similarity)),
            nearest.map_or("".into(), |nearest| harmless(&nearest.name))
        ));
    }
    if people.len() > ROWS {
        paint.put(
            &mut out,
            Tint::Dim,
            format!("and {} who are further apart; --json has all\n", people.len() - ROWS),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::measure::tests::found;
    use super::*;

    #[test]
    fn people_are_told_by_user_then_by_image_id_and_the_least_separable_comes_first() {
        let face = |id: u128, user: Option<&str>, image: Option<&str>| Listed {
            face_id: super::super::measure::face_id(id),
            external_image_id: image.map(str::to_owned),
            user_id: user.map(str::to_owned),
        };
        let listed = [
            face(1, Some("ann"), Some("x")),
            face(2, Some("ann"), Some("y")),
            face(3, None, Some("bea")),
            face(4, None, None),
        ];
        let mut people = People::new(&listed);
        people.answer(0, &[found(2, 70.0), found(3, 85.0), found(4, 10.0)]);
        people.answer(1, &[found(1, 70.0), found(3, 20.0)]);
        people.answer(2, &[found(1, 85.0), found(2, 20.0)]);
        people.answer(3, &[found(1, 10.0), found(9, 99.0)]);
        let people = people.finish();
        let rows: Vec<_> = people
            .iter()
            .map(|p| {
                (
                    p.name.as_str(),
                    p.faces,
                    p.least_own,
                    p.nearest.as_ref().map(|n| (n.name.as_str(), n.similarity)),
                )
            })
            .collect();
        let last = super::super::measure::face_id(4);
        assert_eq!(
            rows,
            [
                ("ann", 2, Some(70.0), Some(("bea", 85.0))),
                ("bea", 1, None, Some(("ann", 85.0))),
                (last.as_str(), 1, None, Some(("ann", 10.0))),
            ]
        );
    }
}
