//! The profiles that the landings ask for: shipped ones, and an operator's own from a folder or from S3.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use anyhow::Context;
use landfall_events::ObjectRef;
use landfall_shared::documents::DOCUMENT_BYTES_MAX;
use landfall_shared::objects::{Objects, ObjectsError};
use landfall_stac::{Profile, ProfileError};

/// Profiles by the name that landings ask for.
pub struct Profiles(HashMap<String, Arc<Profile>>);

impl Profiles {
    /// Takes shipped profiles only.
    ///
    /// # Errors
    /// [`ProfileError::Unknown`].
    pub fn shipped(names: &BTreeSet<&str>) -> Result<Self, ProfileError> {
        let named = |name: &&str| Ok(((*name).to_owned(), Profile::shipped(name)?));
        Ok(Self(names.iter().map(named).collect::<Result<_, ProfileError>>()?))
    }

    /// Reads the profiles of these names from `place`, a folder or `s3://bucket/prefix/`; shipped ones answer for what
    /// is not there.
    ///
    /// # Errors
    /// Where one is not there or wrong, or the place cannot be read.
    pub async fn read(objects: &dyn Objects, place: &str, names: &BTreeSet<&str>) -> anyhow::Result<Self> {
        if place.is_empty() {
            return Ok(Self::shipped(names)?);
        }
        let mut profiles = HashMap::new();
        for name in names {
            let profile = one(objects, place, name).await.with_context(|| format!("among the profiles of {place}"))?;
            profiles.insert((*name).to_owned(), Arc::new(profile));
        }
        Ok(Self(profiles))
    }

    /// The profile of this name.
    ///
    /// # Panics
    /// Where it was not asked for at the start.
    #[must_use]
    pub fn get(&self, name: &str) -> &Profile {
        self.0.get(name).expect("every landing's profile is read at the start")
    }
}

/// Reads one profile. Which files it names is seen while it is read: what is not here yet is read, and it is read again.
async fn one(objects: &dyn Objects, place: &str, name: &str) -> anyhow::Result<Profile> {
    let mut files: BTreeMap<String, Option<String>> = BTreeMap::new();
    loop {
        let wanted = RefCell::new(BTreeSet::new());
        let file = |name: &str| match files.get(name) {
            Some(text) => text.clone().ok_or_else(|| "it is not there".to_owned()),
            None => {
                wanted.borrow_mut().insert(name.to_owned());
                Err("it is not read yet".to_owned())
            }
        };
        let profile = Profile::read(name, &file);
        let wanted = wanted.into_inner();
        if wanted.is_empty() {
            return Ok(profile?);
        }
        for name in wanted {
            let text = text(objects, place, &name).await.with_context(|| format!("could not read {name}"))?;
            files.insert(name, text);
        }
    }
}

async fn text(objects: &dyn Objects, place: &str, name: &str) -> anyhow::Result<Option<String>> {
    if place.starts_with("s3://") {
        let url = format!("{}/{name}", place.trim_end_matches('/'));
        let object = ObjectRef::parse(&url).with_context(|| format!("{url} names no object"))?;
        return match objects.get(&object, None, DOCUMENT_BYTES_MAX).await {
            Ok((body, _)) => Ok(Some(String::from_utf8(body.to_vec())?)),
            Err(ObjectsError::Missing(_)) => Ok(None),
            Err(error) => Err(error.into()),
        };
    }
    match std::fs::read_to_string(std::path::Path::new(place).join(name)) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}
