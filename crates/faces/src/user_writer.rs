//! How users are made, changed and deleted, and how a call that is repeated with its token gets its old answer.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use base::{ResourceName, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::db::{TokenKey, TokenRow, UserRows};
use crate::ids::FaceId;
use crate::limits;
use crate::store::{Collection, CollectionInfo, FacesError, Refusal, UserChange, UserChanged, UserStatus};
use crate::users::User;
use crate::vectors::cosine;
use crate::writer::{Writer, check_limit};

/// A call to change a user, found to be new.
struct Call<'a> {
    collection: Arc<Collection>,
    name: &'a str,
    token: Option<TokenKey<'a>>,
    request: [u8; 32],
    at: Timestamp,
}

/// What becomes of the faces of a call.
#[derive(Default)]
struct Plan {
    user: i64,
    /// Faces that change hands, with their slots.
    changed: Vec<(FaceId, u32)>,
    refused: Vec<(FaceId, Refusal)>,
    /// Faces that the user has before it.
    before: usize,
}

/// An answer as it is kept with its token.
#[derive(Serialize, Deserialize)]
struct Kept {
    changed: Vec<String>,
    refused: Vec<(String, KeptRefusal)>,
    status: UserStatus,
}

#[derive(Serialize, Deserialize)]
enum KeptRefusal {
    NotFound,
    OtherUser(String),
    NotSimilar(f32),
}

impl Writer {
    /// See [`crate::FaceStore::change_user`].
    pub(crate) fn change_user(
        &mut self,
        key: &ResourceName,
        name: &str,
        change: &UserChange,
        token: Option<&str>,
    ) -> Result<UserChanged, FacesError> {
        let collection = self.shared.find(key)?;
        let call = Call {
            request: digest(&collection.info, name, change),
            at: self.shared.clock.now(),
            collection,
            name,
            token: token.map(|token| TokenKey {
                owner: key,
                operation: operation(change),
                token,
            }),
        };
        if let Some(token) = call.token {
            let kept = i64::try_from(limits::TOKEN_KEPT.as_millis()).unwrap_or(i64::MAX);
            let found = self.database.answered(token, call.at.plus_millis(-kept));
            if let Some((request, answer)) = self.checked(found)? {
                return if request == call.request {
                    restored(&answer)
                } else {
                    Err(FacesError::TokenReused)
                };
            }
        }
        match change {
            UserChange::Create => self.create_user(&call),
            UserChange::Delete => self.delete_user(&call),
            UserChange::Associate { faces, threshold } => {
                let plan = call.association(faces, *threshold)?;
                self.check_space()?;
                let user = Some(plan.user);
                self.change_faces(&call, plan, user)
            }
            UserChange::Disassociate { faces } => {
                let plan = call.disassociation(faces)?;
                self.change_faces(&call, plan, None)
            }
        }
    }

    fn create_user(&mut self, call: &Call<'_>) -> Result<UserChanged, FacesError> {
        if call.collection.index.read().users().find(call.name).is_some() {
            return Err(FacesError::UserExists(call.name.to_owned()));
        }
        let users = self.shared.users.load(Ordering::Relaxed) + 1;
        check_limit(users, "users on this server", limits::USERS_PER_STORE_MAX)?;
        self.check_space()?;
        let answer = UserChanged {
            changed: Vec::new(),
            refused: Vec::new(),
            status: UserStatus::Created,
        };
        let (name, created) = (call.name, call.at);
        let token = call.token_row(&answer)?;
        let rows = UserRows::Create { name, created };
        let made = self
            .database
            .change_user(call.collection.info.id, &rows, token.as_ref());
        let number = self.checked(made)?;
        self.shared.users.fetch_add(1, Ordering::Relaxed);
        call.collection.index.write().add_user(number, name.into());
        Ok(answer)
    }

    fn delete_user(&mut self, call: &Call<'_>) -> Result<UserChanged, FacesError> {
        let (user, slots) = {
            let index = call.collection.index.read();
            let user = call.user(index.users().find(call.name))?;
            let slots: Vec<u32> = (user.faces.iter())
                .filter_map(|face| index.get(*face).map(|entry| entry.slot))
                .collect();
            (user.number, slots)
        };
        let answer = UserChanged {
            changed: Vec::new(),
            refused: Vec::new(),
            status: UserStatus::Created,
        };
        let token = call.token_row(&answer)?;
        let id = call.collection.info.id;
        let rows = UserRows::Delete { user, slots: &slots };
        self.deleting(|database| database.change_user(id, &rows, token.as_ref()))?;
        self.shared.users.fetch_sub(1, Ordering::Relaxed);
        call.collection.index.write().remove_user(user);
        Ok(answer)
    }

    /// Gives the faces of a plan to `user`, or to nobody.
    fn change_faces(&mut self, call: &Call<'_>, plan: Plan, user: Option<i64>) -> Result<UserChanged, FacesError> {
        let (changed, slots): (Vec<FaceId>, Vec<u32>) = plan.changed.into_iter().unzip();
        let left = match user {
            Some(_) => plan.before + changed.len(),
            None => plan.before - changed.len(),
        };
        let answer = UserChanged {
            changed,
            refused: plan.refused,
            status: if left == 0 {
                UserStatus::Created
            } else {
                UserStatus::Active
            },
        };
        let token = call.token_row(&answer)?;
        let id = call.collection.info.id;
        let rows = UserRows::Faces { user, slots: &slots };
        self.deleting(|database| database.change_user(id, &rows, token.as_ref()))?;
        let mut index = call.collection.index.write();
        let name: Arc<str> = call.name.into();
        for &face in &answer.changed {
            match user {
                Some(number) => index.join(number, &name, face),
                None => index.leave(plan.user, face),
            }
        }
        index.fuse(plan.user);
        Ok(answer)
    }
}

impl Call<'_> {
    fn user<'u>(&self, found: Option<&'u User>) -> Result<&'u User, FacesError> {
        found.ok_or_else(|| FacesError::UserNotFound(self.name.to_owned()))
    }

    /// Which faces become the user's. They are compared with the user as it is before the call; with one that has no
    /// faces there is nothing to compare.
    fn association(&self, faces: &[FaceId], threshold: f32) -> Result<Plan, FacesError> {
        check_limit(faces.len(), "faces in one call", limits::FACES_PER_USER_MAX)?;
        let index = self.collection.index.read();
        let user = self.user(index.users().find(self.name))?;
        let vector = index.users().vector(user);
        let mut plan = Plan {
            user: user.number,
            before: user.faces.len(),
            ..Plan::default()
        };
        let mut seen = HashSet::new();
        for &face in faces.iter().filter(|&&face| seen.insert(face)) {
            let (Some(entry), Some(probe)) = (index.get(face), index.vector(face)) else {
                plan.refused.push((face, Refusal::NotFound));
                continue;
            };
            match &entry.record.user {
                Some(_) if user.faces.contains(&face) => continue,
                Some(other) => plan.refused.push((face, Refusal::OtherUser(other.clone()))),
                None => match vector.map(|vector| index.scale().similarity(cosine(vector, probe))) {
                    Some(similarity) if similarity < threshold => {
                        plan.refused.push((face, Refusal::NotSimilar(similarity)));
                    }
                    _ => plan.changed.push((face, entry.slot)),
                },
            }
        }
        let faces = plan.before + plan.changed.len();
        check_limit(faces, "faces of one user", limits::FACES_PER_USER_MAX)?;
        Ok(plan)
    }

    /// Which faces become nobody's.
    fn disassociation(&self, faces: &[FaceId]) -> Result<Plan, FacesError> {
        check_limit(faces.len(), "faces in one call", limits::FACES_PER_USER_MAX)?;
        let index = self.collection.index.read();
        let user = self.user(index.users().find(self.name))?;
        let mut plan = Plan {
            user: user.number,
            before: user.faces.len(),
            ..Plan::default()
        };
        let mut seen = HashSet::new();
        for &face in faces.iter().filter(|&&face| seen.insert(face)) {
            match index.get(face).map(|entry| (entry.slot, &entry.record.user)) {
                None => plan.refused.push((face, Refusal::NotFound)),
                Some((_, None)) => {}
                Some((slot, Some(_))) if user.faces.contains(&face) => plan.changed.push((face, slot)),
                Some((_, Some(other))) => plan.refused.push((face, Refusal::OtherUser(other.clone()))),
            }
        }
        Ok(plan)
    }

    /// What is kept of the call, where it has a token.
    fn token_row(&self, answer: &UserChanged) -> Result<Option<TokenRow<'_>>, FacesError> {
        let Some(key) = self.token else {
            return Ok(None);
        };
        Ok(Some(TokenRow {
            key,
            request: self.request,
            answer: kept(answer)?,
            at: self.at,
        }))
    }
}

fn operation(change: &UserChange) -> &'static str {
    match change {
        UserChange::Create => "CreateUser",
        UserChange::Delete => "DeleteUser",
        UserChange::Associate { .. } => "AssociateFaces",
        UserChange::Disassociate { .. } => "DisassociateFaces",
    }
}

/// Two calls of one operation are the same if their digests are. Names of collections and users hold no line break.
fn digest(collection: &CollectionInfo, name: &str, change: &UserChange) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(format!("{}\n{name}\n", collection.key.name));
    let (faces, threshold) = match change {
        UserChange::Create | UserChange::Delete => (&[][..], None),
        UserChange::Associate { faces, threshold } => (&faces[..], Some(threshold)),
        UserChange::Disassociate { faces } => (&faces[..], None),
    };
    for face in faces {
        digest.update(face.0.as_bytes());
    }
    digest.update(threshold.map(|threshold| threshold.to_le_bytes()).unwrap_or_default());
    digest.finalize().into()
}

fn kept(answer: &UserChanged) -> Result<String, FacesError> {
    let refused = |(face, refusal): &(FaceId, Refusal)| {
        let refusal = match refusal {
            Refusal::NotFound => KeptRefusal::NotFound,
            Refusal::OtherUser(name) => KeptRefusal::OtherUser(name.to_string()),
            Refusal::NotSimilar(similarity) => KeptRefusal::NotSimilar(*similarity),
        };
        (face.to_string(), refusal)
    };
    let kept = Kept {
        changed: answer.changed.iter().map(FaceId::to_string).collect(),
        refused: answer.refused.iter().map(refused).collect(),
        status: answer.status,
    };
    serde_json::to_string(&kept).map_err(|error| FacesError::Storage(error.to_string()))
}

fn restored(text: &str) -> Result<UserChanged, FacesError> {
    let damaged = || FacesError::Storage("the answer kept for a token is damaged".to_owned());
    let kept: Kept = serde_json::from_str(text).map_err(|_| damaged())?;
    let face = |text: &String| FaceId::parse(text).ok_or_else(damaged);
    let refused = |(id, refusal): &(String, KeptRefusal)| {
        let refusal = match refusal {
            KeptRefusal::NotFound => Refusal::NotFound,
            KeptRefusal::OtherUser(name) => Refusal::OtherUser(name.as_str().into()),
            KeptRefusal::NotSimilar(similarity) => Refusal::NotSimilar(*similarity),
        };
        Ok((face(id)?, refusal))
    };
    Ok(UserChanged {
        changed: kept.changed.iter().map(face).collect::<Result<_, _>>()?,
        refused: kept.refused.iter().map(refused).collect::<Result<_, FacesError>>()?,
        status: kept.status,
    })
}
